//! The Node's status from what is known. Pure; reasons and messages are upstream's.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_cri::v1 as cri;

use super::machine::Machine;
use crate::config::Config;
use crate::context::RuntimeHealth;
use crate::eviction::signal::Pressure;
use crate::node_shutdown::SHUTTING_DOWN;
use crate::quantity::ResourceList;
use crate::security::Abilities;

/// Names per image.
const MAX_NAMES: usize = 5;

/// All a status depends on.
pub(crate) struct Input<'a> {
    pub config: &'a Config,
    pub machine: &'a Machine,
    pub allocatable: &'a ResourceList,
    pub health: &'a RuntimeHealth,
    /// What the eviction manager says.
    pub pressure: &'a BTreeSet<Pressure>,
    /// Whether the machine goes down.
    pub shutting_down: bool,
    pub images: &'a [cri::Image],
    pub abilities: &'a Abilities,
    pub version: Option<&'a cri::VersionResponse>,
    pub port: u16,
    pub old: &'a NodeStatus,
    pub now: Timestamp,
}

/// The whole status.
pub(crate) fn status(input: &Input<'_>) -> NodeStatus {
    let mut info = input.machine.info.clone();
    match input.version {
        Some(version) => {
            info.container_runtime_version = format!("{}://{}", version.runtime_name, version.runtime_version);
        }
        None => {
            let known = input.old.node_info.as_ref().map(|info| info.container_runtime_version.clone());
            info.container_runtime_version = known.unwrap_or_default();
        }
    }
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    NodeStatus {
        capacity: Some(input.machine.capacity.clone()),
        allocatable: Some(input.allocatable.clone()),
        addresses: Some(vec![
            address("InternalIP", input.config.node_ip.to_string()),
            address("Hostname", input.config.hostname().into()),
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: input.port.into() }),
        }),
        node_info: Some(info),
        images: Some(images(input.images, input.config.node_status_max_images)).filter(|images| !images.is_empty()),
        runtime_handlers: Some(handlers(input.abilities)).filter(|handlers| !handlers.is_empty()),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(input.abilities.strict_groups) }),
        conditions: Some(conditions(input)),
        ..Default::default()
    }
}

fn handlers(abilities: &Abilities) -> Vec<NodeRuntimeHandler> {
    let of = |handler: &cri::RuntimeHandler| NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: handler.features.map(|features| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    };
    let mut handlers: Vec<_> = abilities.handlers.iter().map(of).collect();
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    handlers
}

/// At most `most` of them; all when that is negative.
fn images(images: &[cri::Image], most: i32) -> Vec<ContainerImage> {
    let mut sorted: Vec<&cri::Image> = images.iter().collect();
    sorted.sort_by_key(|image| (std::cmp::Reverse(image.size), &image.id));
    sorted
        .into_iter()
        .take(usize::try_from(most).unwrap_or(usize::MAX))
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.iter().chain(&image.repo_tags).take(MAX_NAMES).cloned().collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect()
}

fn conditions(input: &Input<'_>) -> Vec<NodeCondition> {
    let either = |is: bool, yes: [&'static str; 2], no: [&'static str; 2]| {
        let [reason, message] = if is { yes } else { no };
        (is, reason, message.to_string())
    };
    let pressure = input.pressure;
    let memory = either(
        pressure.contains(&Pressure::Memory),
        ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
        ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
    );
    let disk = either(
        pressure.contains(&Pressure::Disk),
        ["KubeletHasDiskPressure", "kubelet has disk pressure"],
        ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
    );
    let pid = either(
        pressure.contains(&Pressure::Pid),
        ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
        ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
    );
    let mut errors: Vec<String> = input.health.runtime_error.iter().cloned().collect();
    errors
        .extend(input.health.network_error.iter().map(|error| format!("container runtime network not ready: {error}")));
    errors.extend(input.shutting_down.then(|| SHUTTING_DOWN.to_string()));
    let ready = match errors.as_slice() {
        [] => (true, "KubeletReady", "kubelet is posting ready status".to_string()),
        [one] => (false, "KubeletNotReady", one.clone()),
        many => (false, "KubeletNotReady", format!("[{}]", many.join(", "))),
    };
    [("MemoryPressure", memory), ("DiskPressure", disk), ("PIDPressure", pid), ("Ready", ready)]
        .into_iter()
        .map(|(kind, (is, reason, message))| {
            let value = if is { "True" } else { "False" };
            let before = input.old.conditions.iter().flatten().find(|condition| condition.type_ == kind);
            let since =
                before.filter(|before| before.status == value).and_then(|before| before.last_transition_time.clone());
            NodeCondition {
                type_: kind.into(),
                status: value.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_heartbeat_time: Some(Time(input.now)),
                last_transition_time: since.or(Some(Time(input.now))),
            }
        })
        .collect()
}

/// Event reasons for conditions that changed.
pub(crate) fn transitions(before: &NodeStatus, now: &NodeStatus) -> Vec<&'static str> {
    let value = |status: &NodeStatus, kind: &str| {
        let conditions = status.conditions.iter().flatten();
        conditions.into_iter().find(|condition| condition.type_ == kind).map(|condition| condition.status == "True")
    };
    [
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("Ready", "NodeReady", "NodeNotReady"),
    ]
    .into_iter()
    .filter_map(|(kind, yes, no)| {
        let is = value(now, kind)?;
        // A node that was never ready does not become unready.
        let first_unready = kind == "Ready" && !is && value(before, kind).is_none();
        (value(before, kind) != Some(is) && !first_unready).then_some(if is { yes } else { no })
    })
    .collect()
}

/// The strategic merge patch from `old` to `new`, `None` when nothing but heartbeats differ and no report is `due`.
pub(crate) fn patch(old: &NodeStatus, new: &NodeStatus, due: bool) -> Option<serde_json::Value> {
    let without_heartbeat = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        // Conditions of others (NetworkUnavailable) are not ours to compare.
        let own = |condition: &NodeCondition| {
            matches!(condition.type_.as_str(), "MemoryPressure" | "DiskPressure" | "PIDPressure" | "Ready")
        };
        if let Some(conditions) = &mut status.conditions {
            conditions.retain(own);
        }
        serde_json::to_value(status).ok()
    };
    let (Some(serde_json::Value::Object(before)), Some(serde_json::Value::Object(after))) =
        (without_heartbeat(old), without_heartbeat(new))
    else {
        return None;
    };
    let full = serde_json::to_value(new).ok()?;
    let mut changes = serde_json::Map::new();
    for (key, value) in &after {
        if before.get(key) != Some(value) || (due && key == "conditions") {
            changes.insert(key.clone(), full.get(key).cloned().unwrap_or_default());
        }
    }
    // Only what this kubelet says can be withdrawn by it.
    for key in ["images"].into_iter().filter(|key| before.contains_key(*key) && !after.contains_key(*key)) {
        changes.insert(key.into(), serde_json::Value::Null);
    }
    if changes.is_empty() { None } else { Some(serde_json::json!({ "status": changes })) }
}

#[cfg(test)]
mod tests {
    use super::*;

    static ABILITIES: Abilities =
        Abilities { apparmor: false, selinux: false, strict_groups: true, kernel: (6, 1), handlers: Vec::new() };

    fn input<'a>(
        config: &'a Config,
        machine: &'a Machine,
        health: &'a RuntimeHealth,
        pressure: &'a BTreeSet<Pressure>,
        old: &'a NodeStatus,
        now: i64,
    ) -> Input<'a> {
        Input {
            config,
            machine,
            allocatable: &machine.capacity,
            health,
            pressure,
            shutting_down: false,
            images: &[],
            abilities: &ABILITIES,
            version: None,
            port: 10250,
            old,
            now: Timestamp::from_second(now).unwrap(),
        }
    }

    #[test]
    fn readiness_heartbeats_and_patches() {
        let mut config = Config::new("n", "10.0.0.1".parse().unwrap());
        config.root_dir = "/".into();
        let machine = Machine::read(&config);
        let (good, pressure) = (RuntimeHealth::default(), BTreeSet::new());
        let nothing = NodeStatus::default();
        let first = status(&input(&config, &machine, &good, &pressure, &nothing, 100));
        assert_eq!(
            transitions(&nothing, &first),
            ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"]
        );
        let same = status(&input(&config, &machine, &good, &pressure, &first, 200));
        assert_eq!(patch(&first, &same, false), None, "a heartbeat alone is not sent");
        assert!(patch(&first, &same, true).unwrap()["status"]["conditions"].is_array());
        let down = RuntimeHealth { runtime_error: Some("container runtime is down".into()), network_error: None };
        let broken = status(&input(&config, &machine, &down, &pressure, &same, 300));
        let ready = broken.conditions.as_ref().unwrap().iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.message.as_deref()), ("False", Some("container runtime is down")));
        assert_eq!(ready.last_transition_time.as_ref().unwrap().0.as_second(), 300);
        assert_eq!(transitions(&same, &broken), ["NodeNotReady"]);
        let keys = patch(&same, &broken, false).unwrap();
        assert_eq!(keys["status"].as_object().unwrap().keys().collect::<Vec<_>>(), ["conditions"]);
    }
}
