//! A pod as the scheduler sees it: what decides where it can run, read once from the API object.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use keelson_client::Key;

use crate::resources::{self, Requests};

/// A pod. `uid` tells it from an earlier one of its name.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub key: Key,
    pub uid: String,
    /// The node it is bound to.
    pub node_name: Option<String>,
    pub scheduler_name: String,
    pub priority: i32,
    pub requests: Requests,
    /// Ports on the node: address (`0.0.0.0` for all), protocol, port.
    pub host_ports: Vec<HostPort>,
    pub tolerations: Vec<core::Toleration>,
    pub node_selector: Vec<(String, String)>,
    pub node_affinity: Option<Box<core::NodeAffinity>>,
    /// Normalized image names of all containers.
    pub images: Vec<String>,
    pub has_scheduling_gates: bool,
    /// The `PodScheduled` condition's reason and message, when it is False.
    pub unscheduled: Option<(String, String)>,
    /// For events.
    pub reference: Arc<core::ObjectReference>,
}

/// A port on the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY_ADDRESS || other.ip == ANY_ADDRESS)
    }
}

const ANY_ADDRESS: &str = "0.0.0.0";

impl PodInfo {
    /// Reads `pod`. `None` when it has no spec (which the API server does not let in).
    pub fn new(pod: &core::Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
        Some(Self {
            key: Key::of(pod),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            scheduler_name: spec.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".into()),
            priority: spec.priority.unwrap_or(0),
            requests: resources::of_pod(spec),
            host_ports: host_ports(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_selector: spec.node_selector.clone().unwrap_or_default().into_iter().collect(),
            node_affinity: spec.affinity.as_ref().and_then(|a| a.node_affinity.clone()).map(Box::new),
            images: containers().filter_map(|c| c.image.as_deref()).map(normalized_image).collect(),
            has_scheduling_gates: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            unscheduled: unscheduled(pod),
            reference: Arc::new(keelson_client::reference(pod)),
        })
    }

    /// Whether the same pod would be scheduled in the same way.
    pub fn same_demand(&self, other: &Self) -> bool {
        self.requests == other.requests
            && self.host_ports == other.host_ports
            && self.tolerations == other.tolerations
            && self.node_selector == other.node_selector
            && self.node_affinity == other.node_affinity
            && self.priority == other.priority
            && self.has_scheduling_gates == other.has_scheduling_gates
    }
}

/// Whether it will never use its node again.
pub fn is_terminal(pod: &core::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn unscheduled(pod: &core::Pod) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some((condition.reason.clone().unwrap_or_default(), condition.message.clone().unwrap_or_default()))
}

fn host_ports(spec: &core::PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            Some(HostPort {
                ip: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| ANY_ADDRESS.into()),
                protocol: port.protocol.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "TCP".into()),
                port: number,
            })
        })
        .collect()
}

/// With `:latest` where neither tag nor digest is given, as nodes report their images.
pub fn normalized_image(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || name.contains('@') { name.to_owned() } else { format!("{name}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names() {
        for (name, normal) in [("a", "a:latest"), ("r:5000/a", "r:5000/a:latest"), ("a:1", "a:1"), ("a@b:c", "a@b:c")] {
            assert_eq!(normalized_image(name), normal);
        }
    }

    #[test]
    fn host_ports_conflict_by_address_protocol_and_number() {
        let port = |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
        let a = port("0.0.0.0", "TCP", 80);
        assert!(a.conflicts(&port("127.0.0.1", "TCP", 80)));
        assert!(!a.conflicts(&port("0.0.0.0", "UDP", 80)));
        assert!(!a.conflicts(&port("0.0.0.0", "TCP", 81)));
        assert!(!port("127.0.0.1", "TCP", 80).conflicts(&port("127.0.0.2", "TCP", 80)));
    }
}
