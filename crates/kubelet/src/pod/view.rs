//! Reading a typed Pod without stumbling over its options.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, EphemeralContainer, Pod, PodSpec};

/// Grace of a pod that names none, seconds.
pub(crate) const DEFAULT_GRACE_SECONDS: i64 = 30;

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The version of the object: of two, the greater is the newer.
pub(crate) fn version(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_deref()?.parse().ok()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

pub(crate) fn spec(pod: &Pod) -> Option<&PodSpec> {
    pod.spec.as_ref()
}

/// Annotation that says where the kubelet has a pod from: `api`, or `file` for static pods.
pub(crate) const CONFIG_SOURCE: &str = "kubernetes.io/config.source";

/// Whether the pod comes from a file of this node and not from the API server.
pub(crate) fn is_static(pod: &Pod) -> bool {
    let source = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CONFIG_SOURCE));
    source.is_some_and(|source| source != "api")
}

/// A pod of the API server's as what it is: it is not static because it says so.
pub(crate) fn of_api(mut pod: Arc<Pod>) -> Arc<Pod> {
    if is_static(&pod)
        && let Some(annotations) = &mut Arc::make_mut(&mut pod).metadata.annotations
    {
        annotations.insert(CONFIG_SOURCE.into(), "api".into());
    }
    pod
}

/// `name_namespace(uid)`, as upstream's messages name a pod.
pub(crate) fn format(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

pub(crate) fn containers(pod: &Pod) -> &[Container] {
    spec(pod).map(|spec| spec.containers.as_slice()).unwrap_or_default()
}

/// Init and app containers.
pub(crate) fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    init_containers(pod).iter().chain(containers(pod))
}

pub(crate) fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default()
}

/// An ephemeral container in the shape of the others.
pub(crate) fn ephemeral_as_container(ephemeral: &EphemeralContainer) -> Container {
    Container {
        name: ephemeral.name.clone(),
        image: ephemeral.image.clone(),
        command: ephemeral.command.clone(),
        args: ephemeral.args.clone(),
        working_dir: ephemeral.working_dir.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        security_context: ephemeral.security_context.clone(),
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        tty: ephemeral.tty,
        termination_message_path: ephemeral.termination_message_path.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        volume_mounts: ephemeral.volume_mounts.clone(),
        ..Default::default()
    }
}

/// The container of this name, of whatever sort.
pub(crate) fn find_container(pod: &Pod, name: &str) -> Option<Container> {
    init_containers(pod).iter().chain(containers(pod)).find(|container| container.name == name).cloned().or_else(|| {
        ephemeral_containers(pod).iter().find(|container| container.name == name).map(ephemeral_as_container)
    })
}

pub(crate) fn host_network(pod: &Pod) -> bool {
    spec(pod).and_then(|spec| spec.host_network).unwrap_or(false)
}

pub(crate) fn restart_policy(pod: &Pod) -> &str {
    spec(pod).and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// Seconds the pod has to end: the deletion's, else the spec's.
pub(crate) fn grace_seconds(pod: &Pod) -> i64 {
    pod.metadata
        .deletion_grace_period_seconds
        .or(spec(pod).and_then(|spec| spec.termination_grace_period_seconds))
        .unwrap_or(DEFAULT_GRACE_SECONDS)
        .max(1)
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// What the API server last heard of a container.
pub(crate) fn last_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
}

/// Longest name a Linux host has.
const MAX_HOSTNAME: usize = 64;

/// The name that the pod's own `hostname` says: all of it with `setHostnameAsFQDN`. An error is upstream's words.
pub(crate) fn hostname_in_pod(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let hostname = hostname(pod);
    let spec = spec(pod);
    let subdomain = spec.and_then(|spec| spec.subdomain.as_deref()).filter(|subdomain| !subdomain.is_empty());
    let overridden = spec.is_some_and(|spec| spec.hostname_override.is_some());
    let (Some(subdomain), Some(true), false) = (subdomain, spec.and_then(|spec| spec.set_hostname_as_fqdn), overridden)
    else {
        return Ok(hostname);
    };
    let full = format!("{hostname}.{subdomain}.{}.svc.{cluster_domain}", namespace(pod));
    if full.len() > MAX_HOSTNAME {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({MAX_HOSTNAME} \
             characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

/// The pod's host name: `spec.hostnameOverride`, `spec.hostname` or its name cut to 63 characters as upstream does.
pub(crate) fn hostname(pod: &Pod) -> String {
    let spec = spec(pod);
    let wanted = spec
        .and_then(|spec| spec.hostname_override.as_deref().or(spec.hostname.as_deref()))
        .filter(|hostname| !hostname.is_empty())
        .unwrap_or_else(|| name(pod));
    let cut: String = wanted.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_string()
}
