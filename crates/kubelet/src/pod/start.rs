//! Carrying out the steps of a plan: a sandbox made, a container started or ended, the remains removed. Each step can be
//! done again after it failed half-way.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use k8s_openapi::api::node::v1::RuntimeClass;
use keelson_cri::{steps, v1 as cri};
use tokio_util::sync::CancellationToken;

use super::observed::{ContainerRecord, Observed};
use super::plan::Why;
use super::{container, end, events, hooks, sandbox, userns, view};
use crate::context::Context;
use crate::downward::Addresses;
use crate::env::{self, Facts, Sources};
use crate::error::Error;
use crate::images::Problem;
use crate::runtime::image_spec;
use crate::volumes::{Mounted, subpath};
use crate::{expansion, logs, resources};

/// A postStart hook may take this long.
const POST_START_LIMIT: Duration = Duration::from_secs(3600);
/// How long a pod's start waits for the first list of RuntimeClasses.
const CLASSES_KNOWN: Duration = Duration::from_secs(10);
/// Tries to remove a cgroup whose last process is just going.
const CGROUP_TRIES: u32 = 50;

/// The sandbox's configuration for `attempt`.
pub(crate) fn sandbox_config(ctx: &Context, pod: &Pod, attempt: u32) -> Result<cri::PodSandboxConfig, Error> {
    let cluster_dns: Vec<String> = ctx.config.cluster_dns.iter().map(|ip| ip.to_string()).collect();
    let mut config = sandbox::config(
        pod,
        &sandbox::Facts {
            attempt,
            pod_logs_dir: &ctx.config.pod_logs_dir,
            cluster_dns: &cluster_dns,
            cluster_domain: &ctx.config.cluster_domain,
            node_dns: &ctx.node_dns,
            cgroup_parent: ctx.cgroups.parent_of(resources::qos_class(pod), view::uid(pod)),
        },
    );
    if userns::wanted(pod) {
        let uid = view::uid(pod);
        let dir = ctx.volumes.pod_dir(uid);
        let options = userns::of(dir.parent().unwrap_or(&dir), uid)?;
        let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        if let Some(namespaces) = security.and_then(|security| security.namespace_options.as_mut()) {
            namespaces.userns_options = Some(options);
        }
    }
    Ok(config)
}

/// The handler that the pod's RuntimeClass names; empty for the runtime's own choice.
async fn runtime_handler(ctx: &Context, pod: &Pod) -> Result<String, Error> {
    let class = view::spec(pod).and_then(|spec| spec.runtime_class_name.clone()).unwrap_or_default();
    if class.is_empty() {
        return Ok(String::new());
    }
    if tokio::time::timeout(CLASSES_KNOWN, ctx.runtime_classes.synced()).await.is_err() {
        return Err(Error::message(format!(
            "failed to lookup RuntimeClass {class}: timed out waiting for the RuntimeClasses to be listed"
        )));
    }
    if let Some(found) = ctx.runtime_classes.get(None, &class) {
        return Ok(found.handler.clone());
    }
    // One that was made a moment ago may not have come yet.
    let classes: kube::Api<RuntimeClass> = kube::Api::all(ctx.client.clone());
    match classes.get_opt(&class).await {
        Ok(Some(class)) => Ok(class.handler),
        Ok(None) => Err(Error::message(format!("runtimeclass.node.k8s.io {class:?} not found"))),
        Err(error) => Err(Error::message(format!("failed to lookup RuntimeClass {class}: {error}"))),
    }
}

/// Directories and cgroup of a pod.
pub(crate) fn prepare(ctx: &Context, pod: &Pod) -> Result<(), Error> {
    let uid = view::uid(pod);
    for dir in [
        ctx.volumes.pod_dir(uid),
        logs::pod_directory(&ctx.config.pod_logs_dir, view::namespace(pod), view::name(pod), uid),
    ] {
        fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    }
    // Who has CPUs for itself needs no quota, which would only hold it up on them.
    let quota = ctx.config.cpu_cfs_quota && !ctx.managers.has_exclusive_cpus(uid, None);
    let limits = resources::pod_cgroup(pod, quota);
    steps::reached("kubelet-directories");
    ctx.cgroups.set_up_pod(resources::qos_class(pod), uid, &limits, ctx.config.pod_pids_limit)?;
    let huge_pages = resources::pod_huge_pages(pod, &ctx.limits.huge_page_sizes);
    ctx.cgroups.set_huge_pages(resources::qos_class(pod), uid, &huge_pages)?;
    steps::reached("kubelet-cgroup");
    Ok(())
}

/// Stops what is left of older sandboxes and makes a new one.
pub(crate) async fn create_sandbox(
    ctx: &Context,
    pod: &Pod,
    attempt: u32,
    stop_first: &[String],
) -> Result<String, Error> {
    let about = keelson_client::reference(pod);
    if !stop_first.is_empty() {
        ctx.events.normal(&about, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
    }
    for id in stop_first {
        ctx.runtime.stop_pod_sandbox(id).await?;
    }
    let run = async {
        view::hostname_in_pod(pod, &ctx.config.cluster_domain).map_err(Error::Message)?;
        let handler = runtime_handler(ctx, pod).await?;
        if userns::wanted(pod) && !ctx.abilities.read().handler(&handler).user_namespaces {
            let why = format!("RuntimeClass handler {handler:?} does not support user namespaces");
            return Err(Error::message(why));
        }
        let config = sandbox_config(ctx, pod, attempt)?;
        let log_dir = PathBuf::from(&config.log_directory);
        fs::create_dir_all(&log_dir).map_err(Error::file("create", &log_dir))?;
        ctx.runtime.run_pod_sandbox(config, &handler).await
    };
    let made = run.await.inspect_err(|error| {
        ctx.events.warning(&about, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}"));
    });
    steps::reached("kubelet-sandbox");
    made
}

/// One container's start.
pub(crate) struct Start {
    pub pod: Arc<Pod>,
    pub observed: Arc<Observed>,
    pub mounted: Arc<Mounted>,
    pub name: String,
    pub restart_count: u32,
    /// A made but never started container that stands in the way.
    pub replaces: Option<String>,
    pub cancelled: CancellationToken,
}

/// Pulls, makes and starts a container and runs its postStart hook.
pub(crate) async fn start(ctx: &Arc<Context>, start: &Start) -> Result<(), Problem> {
    let pod = start.pod.as_ref();
    let about = events::about_container(pod, &start.name);
    let Some(container) = view::find_container(pod, &start.name) else { return Ok(()) };
    let Some(sandbox) = start.observed.sandbox() else {
        return Err(Problem::new("CreateContainerError", "the pod's sandbox is gone"));
    };
    if let Some(id) = &start.replaces {
        let removed = ctx.runtime.remove_container(id).await;
        removed.map_err(|error| Problem::new("CreateContainerError", error.to_string()))?;
    }
    let fail = |reason: &str, error: Error| {
        let words = error.words();
        ctx.events.warning(&about, "Failed", format!("Error: {words}"));
        Problem::new(reason, words)
    };
    let sandbox_config =
        sandbox_config(ctx, pod, sandbox.attempt).map_err(|error| fail("CreateContainerConfigError", error))?;
    let image = ctx.images.ensure(pod, &container, &sandbox_config, &start.cancelled).await.inspect_err(|problem| {
        ctx.events.warning(&about, "Failed", format!("Error: {}", problem.reason));
    })?;
    let mut restart_count = start.restart_count;
    if start.observed.newest(&start.name).is_none() {
        // The runtime knows of no earlier one, the logs may.
        let dir = PathBuf::from(&sandbox_config.log_directory).join(&start.name);
        restart_count = restart_count.max(logs::last_restart_count(&dir).map_or(0, |last| last + 1));
    }
    let addresses = addresses(ctx, pod, &sandbox.ips);
    let links = view::spec(pod).and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let services = ctx.services.list();
    let services = env::service_variables(services.iter().map(|service| service.as_ref()), view::namespace(pod), links);
    let facts = Facts { pod, container: &container, addresses: &addresses, allocatable: &ctx.allocatable, services };
    let sources = Sources { objects: &ctx.objects, namespace: view::namespace(pod), pod_uid: view::uid(pod) };
    let config_error = |error| fail("CreateContainerConfigError", error);
    let additions = ctx.devices.before_start(pod, &start.name).await.map_err(config_error)?;
    let mut env = additions.envs.clone();
    env.extend(env::environment(&facts, &sources).await.map_err(config_error)?);
    let mut images = BTreeMap::new();
    for volume in image_volumes(pod, &container) {
        let Some(source) = &volume.image else { continue };
        let present = ctx.images.ensure_volume(pod, source, &sandbox_config, &start.cancelled).await;
        images.insert(volume.name.clone(), present?.reference);
    }
    let work = {
        let (ctx, pod, container, mounted) = (ctx.clone(), pod.clone(), container.clone(), start.mounted.clone());
        let (env, addresses) = (env.clone(), addresses.clone());
        move || {
            let place = Place { mounted: &mounted, images: &images, env: &env, addresses: &addresses };
            mounts_of(&ctx, &pod, &container, &place)
        }
    };
    let made = tokio::task::spawn_blocking(work).await;
    let made = made.unwrap_or_else(|error| Err(Error::message(error.to_string())));
    let (mut mounts, sub_paths) = made.map_err(config_error)?;
    mounts.extend(additions.mounts.iter().cloned());
    let target = view::ephemeral_containers(pod)
        .iter()
        .find(|ephemeral| ephemeral.name == start.name)
        .and_then(|ephemeral| ephemeral.target_container_name.as_deref())
        .and_then(|name| start.observed.newest(name))
        .map(|record| record.id.clone());
    let runtime_name = ctx.runtime_name.read().clone();
    let mut config = container::config(
        pod,
        &container,
        container::Facts {
            restart_count,
            image_ref: &image.reference,
            image_uid: image.uid,
            image_username: &image.username,
            env,
            mounts,
            resources: container_resources(ctx, pod, &container),
            root_dir: &ctx.config.root_dir,
            runtime_name: &runtime_name,
            seccomp_default: ctx.config.seccomp_default,
            target_id: target,
        },
    )
    .map_err(config_error)?;
    config.devices.extend(additions.devices);
    config.annotations.extend(additions.annotations);
    config.annotations.extend(sub_paths);
    config.cdi_devices.extend(additions.cdi_devices);
    userns::apply(&sandbox_config, &mut config);
    if start.cancelled.is_cancelled() {
        return Ok(());
    }
    let log_path = PathBuf::from(&sandbox_config.log_directory).join(&config.log_path);
    let log_dir = log_path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(log_dir).map_err(|error| fail("CreateContainerError", Error::file("create", log_dir)(error)))?;
    let id = Box::pin(ctx.runtime.create_container(&sandbox.id, config, sandbox_config))
        .await
        .map_err(|error| fail("CreateContainerError", error))?;
    steps::reached("kubelet-created");
    ctx.events.normal(&about, "Created", "Container created");
    if start.cancelled.is_cancelled() {
        return Ok(());
    }
    ctx.runtime.start_container(&id).await.map_err(|error| fail("RunContainerError", error))?;
    steps::reached("kubelet-started");
    ctx.events.normal(&about, "Started", "Container started");
    let link = logs::link_name(view::name(pod), view::namespace(pod), &start.name, &id);
    let _ = symlink(&log_path, ctx.config.container_logs_dir.join(link));
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    if let Some(hook) = hook {
        let ip = addresses.pod_ips.first().map(String::as_str).unwrap_or_default();
        let run = hooks::run(&ctx.runtime, pod, &container, &id, ip, hook, POST_START_LIMIT);
        // A pod that is to end does not wait for its hooks: they end with their containers.
        if let Some(Err(message)) = start.cancelled.run_until_cancelled(run).await {
            ctx.events.warning(&about, "FailedPostStartHook", "PostStartHook failed");
            tracing::warn!(pod = view::format(pod), container = start.name, message, "postStart hook failed");
            let grace = Duration::from_secs(view::grace_seconds(pod) as u64);
            end::end(ctx, pod, &id, &start.name, grace, &Why::PostStart, ip, None).await.ok();
            return Err(Problem::new("PostStartHookError", message));
        }
    }
    Ok(())
}

/// What the container may use, and on which CPUs and NUMA nodes.
fn container_resources(ctx: &Context, pod: &Pod, container: &Container) -> cri::LinuxContainerResources {
    let mut own = resources::container_resources(pod, container, &ctx.limits);
    let uid = view::uid(pod);
    if own.cpu_quota > 0 && ctx.managers.has_exclusive_cpus(uid, Some(&container.name)) {
        own.cpu_quota = -1;
    }
    own.cpuset_cpus = ctx.managers.cpus_of(uid, &container.name).map(|cpus| cpus.to_string()).unwrap_or_default();
    own.cpuset_mems = ctx.managers.memory_nodes(uid, &container.name);
    own
}

/// The pod's and the node's addresses.
pub(crate) fn addresses(ctx: &Context, pod: &Pod, sandbox_ips: &[String]) -> Addresses {
    let pod_ips = if view::host_network(pod) { ctx.host_ips.clone() } else { sandbox_ips.to_vec() };
    Addresses { pod_ips, host_ips: ctx.host_ips.clone() }
}

/// The pod's volumes that are images and that the container mounts.
fn image_volumes<'a>(pod: &'a Pod, container: &'a Container) -> impl Iterator<Item = &'a Volume> {
    let volumes = view::spec(pod).and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let mounts = move |name: &str| container.volume_mounts.iter().flatten().any(|mount| mount.name == name);
    volumes.iter().filter(move |volume| volume.image.is_some() && mounts(&volume.name))
}

/// What a container's mounts depend on.
struct Place<'a> {
    mounted: &'a Mounted,
    /// References of the images that are volumes, by the volume's name.
    images: &'a BTreeMap<String, String>,
    env: &'a [(String, String)],
    addresses: &'a Addresses,
}

/// Mounts, and annotations that say more about them.
type Mounts = (Vec<cri::Mount>, Vec<(String, String)>);

/// The container's mounts.
fn mounts_of(ctx: &Context, pod: &Pod, container: &Container, place: &Place<'_>) -> Result<Mounts, Error> {
    let Place { mounted, images, env, addresses } = place;
    let pod_dir = ctx.volumes.pod_dir(view::uid(pod));
    let lookup = |name: &str| env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let (mut list, mut annotations) = (Vec::new(), Vec::new());
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let (path, image) = (mounted.paths.get(&mount.name), images.get(&mount.name));
        if path.is_none() && image.is_none() {
            return Err(Error::message(format!(
                "cannot find volume {:?} to mount into container {:?}",
                mount.name, container.name
            )));
        }
        let able = mounts_recursively(ctx, pod);
        let recursive_read_only = recursive_read_only(mount, able)?;
        let sub_path = match (mount.sub_path.as_deref(), mount.sub_path_expr.as_deref()) {
            (_, Some(expression)) if !expression.is_empty() => {
                expansion::expand_all(expression, lookup).map_err(|why| {
                    Error::message(format!(
                        "failed to expand subPath for volumeMount {:?} of container {:?}: {why}",
                        mount.name, container.name
                    ))
                })?
            }
            (Some(sub_path), _) => sub_path.to_string(),
            (None, _) => String::new(),
        };
        if let Some(reference) = image {
            if !sub_path.is_empty() {
                annotations.push(image_sub_path(ctx, mount, sub_path)?);
            }
            list.push(cri::Mount {
                container_path: absolute(&mount.mount_path),
                readonly: true,
                recursive_read_only,
                image: Some(image_spec(reference)),
                ..Default::default()
            });
            continue;
        }
        let path = path.cloned().unwrap_or_default();
        let host_path = if sub_path.is_empty() {
            path
        } else {
            let place = pod_dir.join("volume-subpaths").join(&mount.name).join(&container.name).join(index.to_string());
            subpath::mount(&path, &sub_path, &place).map_err(|error| {
                Error::message(format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}: {error}",
                    mount.name, container.name
                ))
            })?
        };
        list.push(cri::Mount {
            container_path: absolute(&mount.mount_path),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: mount.read_only == Some(true) || is_kubelets_own(pod, &mount.name),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer as i32,
                Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional as i32,
                _ => cri::MountPropagation::PropagationPrivate as i32,
            },
            recursive_read_only,
            ..Default::default()
        });
    }
    if !list.iter().any(|mount| mount.container_path == "/etc/hosts") {
        let path = pod_dir.join("etc-hosts");
        write_file(&path, hosts(pod, addresses, &ctx.config.cluster_domain).as_bytes(), 0o644)?;
        list.push(file_mount(&path, "/etc/hosts"));
    }
    let message_path = container.termination_message_path.as_deref().unwrap_or(container::TERMINATION_LOG);
    if !message_path.is_empty() {
        let unique: u32 = rand::random();
        let path = pod_dir.join("containers").join(&container.name).join(format!("{unique:08x}"));
        // Whoever the container runs as may write its last words.
        write_file(&path, b"", 0o666)?;
        list.push(file_mount(&path, message_path));
    }
    Ok((list, annotations))
}

/// How our own runtime is told of the path inside an image; the version of CRI that we speak to others has no field for it.
fn image_sub_path(ctx: &Context, mount: &VolumeMount, sub_path: String) -> Result<(String, String), Error> {
    let path = Path::new(&sub_path);
    if path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(Error::message(format!(
            "failed to prepare subPath for volumeMount {:?}: {sub_path:?} must be relative and must not contain \"..\"",
            mount.name
        )));
    }
    let runtime = ctx.runtime_name.read().clone();
    if runtime != keelson_cri::RUNTIME_NAME {
        return Err(Error::message(format!(
            "subPath of volumeMount {:?}: this kubelet cannot ask the runtime {runtime:?} for a path inside an image; mount \
             the whole image",
            mount.name
        )));
    }
    Ok((format!("{}{}", keelson_cri::IMAGE_SUB_PATH, absolute(&mount.mount_path)), sub_path))
}

/// Whether the runtime that the pod runs with can make all that is mounted below a mount read-only.
pub(crate) fn mounts_recursively(ctx: &Context, pod: &Pod) -> bool {
    let class = view::spec(pod).and_then(|spec| spec.runtime_class_name.as_deref()).filter(|name| !name.is_empty());
    let known = class.and_then(|name| ctx.runtime_classes.get(None, name)).map(|class| class.handler.clone());
    ctx.abilities.read().handler(&known.unwrap_or_default()).recursive_read_only_mounts
}

/// Whether all that is mounted below the mount is to be read-only, too. `able`: whether the runtime can do that.
pub(crate) fn recursive_read_only(mount: &VolumeMount, able: bool) -> Result<bool, Error> {
    let refuse = |why: String| Err(Error::message(format!("failed to resolve recursive read-only mode: {why}")));
    let mode = match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => return Ok(false),
        Some(mode) => mode,
    };
    if mount.read_only != Some(true) {
        return refuse(format!("volume {:?} requested recursive read-only mode, but it is not read-only", mount.name));
    }
    if !matches!(mount.mount_propagation.as_deref(), None | Some("None")) {
        return refuse(format!(
            "volume {:?} requested recursive read-only mode, but it is not compatible with propagation {:?}",
            mount.name,
            mount.mount_propagation.as_deref().unwrap_or_default()
        ));
    }
    match mode {
        "IfPossible" => Ok(able),
        "Enabled" if able => Ok(true),
        "Enabled" => refuse(format!(
            "volume {:?} requested recursive read-only mode, but it is not supported by the runtime",
            mount.name
        )),
        other => refuse(format!("unknown recursive read-only mode {other:?}")),
    }
}

/// Whether the kubelet itself writes the volume, again and again. Containers only read such a one, whatever their mounts
/// say: what they changed there, links above all, the next update would trip over on the node.
fn is_kubelets_own(pod: &Pod, volume: &str) -> bool {
    let volumes = view::spec(pod).and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter(|found| found.name == volume).any(|found| {
        found.config_map.is_some()
            || found.secret.is_some()
            || found.downward_api.is_some()
            || found.projected.is_some()
    })
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_string() } else { format!("/{path}") }
}

fn file_mount(host_path: &Path, container_path: &str) -> cri::Mount {
    cri::Mount {
        container_path: container_path.into(),
        host_path: host_path.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    }
    fs::write(path, content).map_err(Error::file("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::file("chmod", path))
}

/// The pod's /etc/hosts.
fn hosts(pod: &Pod, addresses: &Addresses, domain: &str) -> String {
    let mut text = String::from("# Kubernetes-managed hosts file");
    if view::host_network(pod) {
        text.push_str(" (host network).\n");
        text.push_str(&fs::read_to_string("/etc/hosts").unwrap_or_default());
    } else {
        text.push_str(
            ".\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let hostname = view::hostname(pod);
        let subdomain = view::spec(pod).and_then(|spec| spec.subdomain.as_deref()).filter(|name| !name.is_empty());
        for ip in &addresses.pod_ips {
            match subdomain {
                Some(subdomain) => {
                    let full = format!("{hostname}.{subdomain}.{}.svc.{domain}", view::namespace(pod));
                    text.push_str(&format!("{ip}\t{full}\t{hostname}\n"));
                }
                None => text.push_str(&format!("{ip}\t{hostname}\n")),
            }
        }
    }
    let aliases = view::spec(pod).and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

/// Removes a dead container, its logs and the link to them.
pub(crate) async fn remove_container(
    ctx: &Context,
    pod: &Pod,
    id: &str,
    name: &str,
    log_path: &str,
) -> Result<(), Error> {
    ctx.runtime.remove_container(id).await?;
    if !log_path.is_empty() {
        logs::remove(Path::new(log_path));
    }
    let link = logs::link_name(view::name(pod), view::namespace(pod), name, id);
    let _ = fs::remove_file(ctx.config.container_logs_dir.join(link));
    Ok(())
}

/// Takes away what a pod used. With `all`, also its containers, sandboxes and logs: nothing is left.
pub(crate) async fn tear_down(ctx: &Context, pod: &Pod, observed: &Observed, all: bool) -> Result<(), Error> {
    let uid = view::uid(pod);
    if all {
        steps::reached("kubelet-removing");
        let removals = observed.containers.iter().map(|record| ctx.runtime.remove_container(&record.id));
        futures::future::try_join_all(removals).await?;
        for sandbox in &observed.sandboxes {
            ctx.runtime.remove_pod_sandbox(&sandbox.id).await?;
        }
        steps::reached("kubelet-removed");
        for record in &observed.containers {
            let link = logs::link_name(view::name(pod), view::namespace(pod), &record.name, &record.id);
            let _ = fs::remove_file(ctx.config.container_logs_dir.join(link));
        }
        ctx.volumes.tear_down(uid).await?;
        let log_dir = logs::pod_directory(&ctx.config.pod_logs_dir, view::namespace(pod), view::name(pod), uid);
        match fs::remove_dir_all(&log_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("remove", &log_dir)(error));
            }
            _ => {}
        }
        steps::reached("kubelet-dismantled");
    } else {
        ctx.volumes.unmount(uid).await?;
        steps::reached("kubelet-unmounted");
    }
    ctx.managers.release(uid).await;
    remove_cgroup(ctx, uid).await
}

async fn remove_cgroup(ctx: &Context, uid: &str) -> Result<(), Error> {
    let mut last = ctx.cgroups.remove_pod(uid);
    for _ in 0..CGROUP_TRIES {
        if last.is_ok() {
            return Ok(());
        }
        // The kernel empties a group a moment after its last process is reaped; it has no event for that in v1.
        tokio::time::sleep(Duration::from_millis(20)).await;
        last = ctx.cgroups.remove_pod(uid);
    }
    last
}

/// Ends and removes everything the runtime has of a pod that the API server does not know.
pub(crate) async fn remove_orphan(ctx: &Context, uid: &str) -> Result<(), Error> {
    let observed = super::observed::observe(&ctx.runtime, uid, &Observed::default()).await?;
    let stops = observed.containers.iter().filter(|record| record.state == super::observed::State::Running);
    let default = view::DEFAULT_GRACE_SECONDS as u64;
    let grace = |record: &ContainerRecord| Duration::from_secs(record.grace_seconds.unwrap_or(default));
    futures::future::try_join_all(stops.map(|record| ctx.runtime.stop_container(&record.id, grace(record)))).await?;
    for record in &observed.containers {
        ctx.runtime.remove_container(&record.id).await?;
    }
    for sandbox in &observed.sandboxes {
        ctx.runtime.stop_pod_sandbox(&sandbox.id).await?;
        ctx.runtime.remove_pod_sandbox(&sandbox.id).await?;
    }
    let (root, id) = (ctx.config.pod_logs_dir.clone(), uid.to_string());
    let logs = move || {
        for (_, dir) in logs::pods(&root).into_iter().filter(|(uid, _)| *uid == id) {
            fs::remove_dir_all(&dir).map_err(Error::file("remove", &dir))?;
        }
        Ok::<_, Error>(())
    };
    tokio::task::spawn_blocking(logs).await.map_err(|error| Error::message(error.to_string()))??;
    ctx.volumes.tear_down(uid).await?;
    ctx.managers.release(uid).await;
    remove_cgroup(ctx, uid).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_volumes() {
        let pod: Pod =
            serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {"containers": [], "volumes": [
                {"name": "map", "configMap": {"name": "m"}}, {"name": "secret", "secret": {"secretName": "s"}},
                {"name": "down", "downwardAPI": {}}, {"name": "token", "projected": {"sources": []}},
                {"name": "own", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/x"}},
            ]}}))
            .unwrap();
        for (name, kubelets) in
            [("map", true), ("secret", true), ("down", true), ("token", true), ("own", false), ("host", false)]
        {
            assert_eq!(is_kubelets_own(&pod, name), kubelets, "{name}");
        }
    }
}
