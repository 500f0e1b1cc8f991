//! The CRI configuration of a container. Pure: environment, mounts and resources come from outside.

use std::collections::HashMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, SeccompProfile};
use keelson_cri::v1 as cri;

use super::{plan, sandbox, view};
use crate::error::Error;
use crate::expansion::expand;
use crate::logs;
use crate::runtime::{image_spec, labels};

/// Where a container's last words go when it does not say.
pub(crate) const TERMINATION_LOG: &str = "/dev/termination-log";

/// What every container may not see or write in /proc and /sys unless it is privileged (upstream's lists).
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a container depends on besides its pod.
pub(crate) struct Facts<'a> {
    pub restart_count: u32,
    /// The image to run, by the reference the runtime gave for it.
    pub image_ref: &'a str,
    /// The image's own user: number or name.
    pub image_uid: Option<i64>,
    pub image_username: &'a str,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<cri::Mount>,
    pub resources: cri::LinuxContainerResources,
    pub root_dir: &'a Path,
    /// What the runtime calls itself.
    pub runtime_name: &'a str,
    /// Whether a container that names no seccomp profile gets the runtime's.
    pub seccomp_default: bool,
    /// Container whose PID namespace an ephemeral container joins.
    pub target_id: Option<String>,
}

/// The container's configuration, or why it may not run so.
pub(crate) fn config(pod: &Pod, container: &Container, facts: Facts<'_>) -> Result<cri::ContainerConfig, Error> {
    may_run_as_root(pod, container, &facts)?;
    let stop_signal = stop_signal(container, facts.runtime_name)?;
    let lookup = |name: &str| facts.env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expand(word, lookup)).collect()
    };
    let path = container.termination_message_path.clone().unwrap_or_else(|| TERMINATION_LOG.into());
    let policy = container.termination_message_policy.clone().unwrap_or_else(|| "File".into());
    let grace = view::spec(pod).and_then(|spec| spec.termination_grace_period_seconds);
    let annotations: HashMap<String, String> = [
        (labels::CONTAINER_HASH, plan::container_hash(container)),
        (labels::RESTART_COUNT, facts.restart_count.to_string()),
        (labels::TERMINATION_MESSAGE_PATH, path),
        (labels::TERMINATION_MESSAGE_POLICY, policy),
        (labels::GRACE_PERIOD, grace.unwrap_or(view::DEFAULT_GRACE_SECONDS).to_string()),
    ]
    .into_iter()
    .chain(stop_signal.map(|signal| (keelson_cri::STOP_SIGNAL, signal)))
    .map(|(name, value)| (name.to_string(), value))
    .collect();
    let own_labels = [
        (labels::POD_NAME, view::name(pod)),
        (labels::POD_NAMESPACE, view::namespace(pod)),
        (labels::POD_UID, view::uid(pod)),
        (labels::CONTAINER_NAME, container.name.as_str()),
    ];
    let mut image = image_spec(facts.image_ref);
    image.user_specified_image = container.image.clone().unwrap_or_default();
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: facts.restart_count }),
        image: Some(image),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: facts.env.iter().map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: facts.mounts,
        labels: own_labels.map(|(name, value)| (name.to_string(), value.to_string())).into(),
        annotations,
        log_path: logs::relative_path(&container.name, facts.restart_count),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(facts.resources),
            security_context: Some(security(pod, container, facts.root_dir, facts.seccomp_default, facts.target_id)),
        }),
        ..Default::default()
    })
}

/// The signal that asks the container to end, when it names one. CRI has a field for it from v0.33 on, which neither the
/// CRI types nor Debian's containerd have yet.
fn stop_signal(container: &Container, runtime_name: &str) -> Result<Option<String>, Error> {
    let Some(signal) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()) else {
        return Ok(None);
    };
    if runtime_name != keelson_cri::RUNTIME_NAME {
        return Err(Error::message(format!(
            "lifecycle.stopSignal of container {:?} is not supported by the container runtime {runtime_name}",
            container.name
        )));
    }
    Ok(Some(signal))
}

/// The container's own setting, else the pod's.
fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
    own.or_else(|| view::spec(pod)?.security_context.as_ref()?.run_as_user)
}

fn may_run_as_root(pod: &Pod, container: &Container, facts: &Facts<'_>) -> Result<(), Error> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_non_root);
    let pod_wide = view::spec(pod).and_then(|spec| spec.security_context.as_ref()).and_then(|c| c.run_as_non_root);
    if own.or(pod_wide) != Some(true) {
        return Ok(());
    }
    let shown = format!("(pod: {:?}, container: {})", view::format(pod), container.name);
    match run_as_user(pod, container) {
        Some(0) => Err(Error::message(format!("container's runAsUser breaks non-root policy {shown}"))),
        Some(_) => Ok(()),
        None if facts.image_uid.is_some_and(|uid| uid != 0) => Ok(()),
        None if facts.image_uid == Some(0) || facts.image_username.is_empty() => {
            Err(Error::message(format!("container has runAsNonRoot and image will run as root {shown}")))
        }
        None => Err(Error::message(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {shown}",
            facts.image_username
        ))),
    }
}

fn security(
    pod: &Pod,
    container: &Container,
    root_dir: &Path,
    seccomp_default: bool,
    target_id: Option<String>,
) -> cri::LinuxContainerSecurityContext {
    let own = container.security_context.clone().unwrap_or_default();
    let pod_wide = view::spec(pod).and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let int = |value: Option<i64>| value.map(|value| cri::Int64Value { value });
    let mut namespace_options = sandbox::namespaces(pod);
    if let Some(target_id) = target_id {
        namespace_options.pid = cri::NamespaceMode::Target as i32;
        namespace_options.target_id = target_id;
    }
    let mut supplemental_groups = pod_wide.supplemental_groups.clone().unwrap_or_default();
    supplemental_groups.extend(pod_wide.fs_group);
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked") || privileged;
    let paths = |paths: &[&str]| -> Vec<String> {
        if unmasked { Vec::new() } else { paths.iter().map(|path| path.to_string()).collect() }
    };
    let adds_admin = own.capabilities.as_ref().is_some_and(|capabilities| {
        capabilities.add.iter().flatten().any(|name| matches!(name.as_str(), "SYS_ADMIN" | "CAP_SYS_ADMIN"))
    });
    let profile = own.seccomp_profile.as_ref().or(pod_wide.seccomp_profile.as_ref());
    let runtimes_own = SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None };
    let profile = profile.or(seccomp_default.then_some(&runtimes_own));
    let seccomp = sandbox::seccomp(profile.filter(|_| !privileged), root_dir);
    let selinux = own.se_linux_options.as_ref().or(pod_wide.se_linux_options.as_ref());
    let apparmor = own.app_armor_profile.as_ref().or(pod_wide.app_armor_profile.as_ref());
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: own.capabilities.as_ref().and_then(|c| c.add.clone()).unwrap_or_default(),
            drop_capabilities: own.capabilities.as_ref().and_then(|c| c.drop.clone()).unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespace_options),
        run_as_user: int(own.run_as_user.or(pod_wide.run_as_user)),
        run_as_group: int(own.run_as_group.or(pod_wide.run_as_group)),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups,
        supplemental_groups_policy: match pod_wide.supplemental_groups_policy.as_deref() {
            Some("Strict") => cri::SupplementalGroupsPolicy::Strict as i32,
            _ => cri::SupplementalGroupsPolicy::Merge as i32,
        },
        // Upstream: never for privileged containers or those that get CAP_SYS_ADMIN.
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged && !adds_admin,
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp),
        selinux_options: selinux.map(sandbox::selinux),
        apparmor: apparmor.map(apparmor_profile),
        ..Default::default()
    }
}

/// An AppArmor profile for CRI; `Localhost` names one that the node has loaded.
fn apparmor_profile(profile: &AppArmorProfile) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let profile_type = match profile.type_.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    cri::SecurityProfile {
        profile_type: profile_type as i32,
        localhost_ref: profile.localhost_profile.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn make(spec: serde_json::Value, image_uid: Option<i64>, username: &str) -> Result<cri::ContainerConfig, String> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
                .unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        let facts = Facts {
            restart_count: 3,
            image_ref: "sha256:1",
            image_uid,
            image_username: username,
            env: vec![("A".into(), "1".into())],
            mounts: Vec::new(),
            resources: cri::LinuxContainerResources::default(),
            root_dir: Path::new("/root"),
            runtime_name: "keelson",
            seccomp_default: false,
            target_id: None,
        };
        config(&pod, &container, facts).map_err(|error| error.to_string())
    }

    #[test]
    fn commands_labels_and_log() {
        let config = make(
            json!({"containers": [{"name": "c", "image": "i", "command": ["x", "$(A)"], "args": ["$(B)"]}]}),
            None,
            "",
        )
        .unwrap();
        assert_eq!((config.command, config.args), (vec!["x".into(), "1".into()], vec!["$(B)".to_string()]));
        assert_eq!(config.log_path, "c/3.log");
        assert_eq!(config.annotations.get(labels::RESTART_COUNT).map(String::as_str), Some("3"));
        assert_eq!(config.labels.get(labels::CONTAINER_NAME).map(String::as_str), Some("c"));
    }

    #[test]
    fn non_root() {
        let spec = |own: serde_json::Value| json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c", "securityContext": own}]});
        for (own, uid, username, complaint) in [
            (json!({}), Some(1000), "", None),
            (json!({"runAsUser": 5}), Some(0), "", None),
            (json!({"runAsUser": 0}), Some(5), "", Some("container's runAsUser breaks non-root policy")),
            (json!({}), Some(0), "", Some("container has runAsNonRoot and image will run as root")),
            (json!({}), None, "", Some("container has runAsNonRoot and image will run as root")),
            (json!({}), None, "www", Some("container has runAsNonRoot and image has non-numeric user (www)")),
            (json!({"runAsNonRoot": false}), Some(0), "", None),
        ] {
            let got = make(spec(own.clone()), uid, username);
            match complaint {
                None => assert!(got.is_ok(), "{own} {got:?}"),
                Some(text) => assert!(got.clone().unwrap_err().starts_with(text), "{own} {got:?}"),
            }
        }
    }

    #[test]
    fn security_contexts() {
        let of = |spec| make(spec, None, "").unwrap().linux.unwrap().security_context.unwrap();
        let plain = of(json!({"containers": [{"name": "c"}]}));
        assert!(!plain.privileged && !plain.no_new_privs && plain.masked_paths.len() == MASKED.len());
        let tight = of(json!({"securityContext": {"runAsUser": 7, "fsGroup": 9, "supplementalGroups": [8]},
            "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "readOnlyRootFilesystem": true,
                "seccompProfile": {"type": "RuntimeDefault"}}}]}));
        assert!(tight.no_new_privs && tight.readonly_rootfs);
        assert_eq!(tight.supplemental_groups, [8, 9]);
        assert_eq!(tight.run_as_user.map(|user| user.value), Some(7));
        assert_eq!(tight.seccomp.unwrap().profile_type, 0);
        let privileged = of(json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]}));
        assert!(privileged.privileged && privileged.masked_paths.is_empty());
    }
}
