//! Conditions and taints of one node.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::common::objects::created;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that the kubelet owns and that are unknown when it is silent.
const WATCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// `True`, `False` or `Unknown`; `Unknown` too when the kubelet never said.
pub fn readiness(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |condition| condition.status.as_str())
}

/// One of the node's conditions.
pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// The node's conditions once it has been silent for too long.
pub fn silenced(node: &Node, now: Timestamp) -> Node {
    let mut node = node.clone();
    let born = created(&node.metadata).unwrap_or(now);
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    for type_ in WATCHED {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            None => conditions.push(NodeCondition {
                type_: type_.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: Some(Time(born)),
                last_transition_time: Some(Time(now)),
            }),
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(Time(now));
            }
            Some(_) => {}
        }
    }
    node
}

/// Taints that follow from the node's conditions, as (key, effect).
fn wanted_taints(node: &Node, evict: bool) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let is = |type_: &str, status: &str| condition(node, type_).is_some_and(|condition| condition.status == status);
    let reason = match condition(node, "Ready").map(|condition| condition.status.as_str()) {
        Some("True") => None,
        // A node that has yet to report keeps the taint it was admitted with.
        Some("False") | None => Some(NOT_READY),
        Some(_) => Some(UNREACHABLE),
    };
    if let Some(key) = reason {
        wanted.push((key, "NoSchedule"));
        if evict {
            wanted.push((key, "NoExecute"));
        }
    }
    for (type_, key) in [
        ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
        ("DiskPressure", "node.kubernetes.io/disk-pressure"),
        ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
        ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ] {
        if is(type_, "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

/// Taint keys this controller answers for.
const OWNED: [&str; 7] = [
    NOT_READY,
    UNREACHABLE,
    UNSCHEDULABLE,
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/network-unavailable",
    "node.kubernetes.io/pid-pressure",
];

/// The node with the taints it should have. `evict` says whether its pods may be moved now; a `NoExecute` taint that is
/// there already for the same reason stays either way, unless `evict` is `None`: then all of them go.
pub fn tainted(node: &Node, evict: Option<bool>, now: Timestamp) -> Node {
    let mut after = node.clone();
    let spec = after.spec.get_or_insert_default();
    let mut taints = spec.taints.take().unwrap_or_default();
    let evicted = |key: &str| taints.iter().any(|taint| taint.effect == "NoExecute" && taint.key == key);
    // From one reason to the other, the node stays under eviction.
    let already = evicted(NOT_READY) || evicted(UNREACHABLE);
    let wanted = wanted_taints(node, evict.is_some_and(|evict| evict || already));
    let is_wanted = |taint: &Taint| wanted.iter().any(|(key, effect)| taint.key == *key && taint.effect == *effect);
    let is_owned = |taint: &Taint| {
        OWNED.contains(&taint.key.as_str())
            && (taint.effect == "NoSchedule"
                || taint.effect == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()))
    };
    let since = taints
        .iter()
        .filter(|taint| taint.effect == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()))
        .find_map(|taint| taint.time_added.clone());
    taints.retain(|taint| !is_owned(taint) || is_wanted(taint));
    for (key, effect) in &wanted {
        if !taints.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            let added = if *effect == "NoExecute" { since.clone() } else { None };
            taints.push(Taint {
                key: (*key).into(),
                effect: (*effect).into(),
                value: None,
                time_added: Some(added.unwrap_or(Time(now))),
            });
        }
    }
    spec.taints = (!taints.is_empty()).then_some(taints);
    after
}

/// Whether the node's pods are under eviction.
pub fn is_evicted(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints
        .into_iter()
        .any(|taint| taint.effect == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()))
}

#[cfg(test)]
mod tests;
