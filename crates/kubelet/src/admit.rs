//! Whether a pod that comes to this node may run here. The scheduler has looked already; this catches pods that were bound
//! without it, or against what it knew too late. Pure; reasons and messages are upstream's.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerPort, Node, Pod};
use keelson_api::placement;

use crate::pod::status::Ended;
use crate::pod::view;
use crate::quantity::{self, ResourceList};
use crate::resources;

/// Why `pod` is refused, given the other pods that are active here and the Node as the API server has it.
pub(crate) fn refuse(pod: &Pod, others: &[Arc<Pod>], allocatable: &ResourceList, node: Option<&Node>) -> Option<Ended> {
    let others: Vec<&Pod> = others.iter().map(Arc::as_ref).filter(|other| is_active(other)).collect();
    wrong_os(pod)
        .or_else(|| no_room(pod, &others, allocatable))
        .or_else(|| node.filter(|node| !selected(pod, node)).map(|_| predicate("NodeAffinity", NOT_SELECTED)))
        .or_else(|| taken_ports(pod, &others).then(|| predicate("NodePorts", NO_PORTS)))
        .or_else(|| node.filter(|node| !tolerated(pod, node)).map(|_| predicate("TaintToleration", TAINTED)))
}

const NOT_SELECTED: &str = "node(s) didn't match Pod's node affinity/selector";
const NO_PORTS: &str = "node(s) didn't have free ports for the requested pod ports";
const TAINTED: &str = "node(s) had taints that the pod didn't tolerate";

fn is_active(pod: &Pod) -> bool {
    !matches!(view::phase(pod), "Succeeded" | "Failed")
}

fn predicate(name: &str, why: &str) -> Ended {
    Ended::rejection(name, format!("Predicate {name} failed: {why}"))
}

fn wrong_os(pod: &Pod) -> Option<Ended> {
    let os = view::spec(pod)?.os.as_ref()?;
    (os.name != "linux")
        .then(|| Ended::rejection("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"))
}

fn no_room(pod: &Pod, others: &[&Pod], allocatable: &ResourceList) -> Option<Ended> {
    let (mut cpu, mut memory, mut count) = (0i64, 0i64, 0i64);
    for other in others {
        let (own_cpu, own_memory) = resources::pod_requests(other);
        cpu = cpu.saturating_add(own_cpu);
        memory = memory.saturating_add(own_memory);
        count += 1;
    }
    let (own_cpu, own_memory) = resources::pod_requests(pod);
    let of = |name: &str| allocatable.get(name);
    let wants = [
        ("pods", 1, count, of("pods").map(quantity::value)),
        ("cpu", own_cpu, cpu, of("cpu").map(quantity::milli)),
        ("memory", own_memory, memory, of("memory").map(quantity::value)),
    ];
    wants.into_iter().find_map(|(name, requested, used, capacity)| {
        let capacity = capacity?;
        // What asks for nothing fits always.
        (requested > 0 && requested > capacity.saturating_sub(used)).then(|| {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            Ended::rejection(&format!("OutOf{name}"), message)
        })
    })
}

fn selected(pod: &Pod, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    view::spec(pod).is_none_or(|spec| placement::selects(spec, name, |key| labels?.get(key).map(String::as_str)))
}

/// Whether nothing that evicts pods from the node evicts this one. Static pods run wherever they are.
fn tolerated(pod: &Pod, node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = view::spec(pod).and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut evicting = taints.iter().filter(|taint| taint.effect == "NoExecute");
    view::is_static(pod)
        || evicting.all(|taint| tolerations.iter().any(|toleration| placement::tolerates(toleration, taint)))
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let sidecars = view::init_containers(pod).iter().filter(|container| view::is_sidecar(container));
    let ports = sidecars.chain(view::containers(pod)).flat_map(|container| container.ports.iter().flatten());
    ports.filter(|port| port.host_port.is_some_and(|number| number > 0))
}

fn taken_ports(pod: &Pod, others: &[&Pod]) -> bool {
    let protocol = |port: &ContainerPort| port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
    let ip = |port: &ContainerPort| port.host_ip.clone().unwrap_or_default();
    host_ports(pod).any(|own| {
        others.iter().flat_map(|other| host_ports(other)).any(|theirs| {
            let (one, two) = (ip(own), ip(theirs));
            own.host_port == theirs.host_port
                && protocol(own) == protocol(theirs)
                && (any(&one) || any(&two) || one == two)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    #[test]
    fn room() {
        let pod = |cpu: &str, phase: &str| -> Pod {
            let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
            serde_json::from_value(
                json!({"metadata": {}, "spec": {"containers": [container]}, "status": {"phase": phase}}),
            )
            .unwrap()
        };
        let allocatable = [("cpu", "2"), ("pods", "3")].map(|(k, v)| (k.to_string(), Quantity(v.into()))).into();
        let running = Arc::new(pod("1500m", "Running"));
        let done = Arc::new(pod("1500m", "Succeeded"));
        for (new, others, expected) in [
            ("500m", vec![running.clone()], None),
            ("501m", vec![running.clone()], Some("OutOfcpu")),
            ("501m", vec![done], None),
            ("0", vec![running.clone(), running.clone()], None),
            ("0", vec![running.clone(), running.clone(), running], Some("OutOfpods")),
        ] {
            let refused = refuse(&pod(new, "Pending"), &others, &allocatable, None);
            assert_eq!(refused.as_ref().map(|refused| refused.reason.as_str()), expected, "{new} {}", others.len());
        }
    }

    #[test]
    fn placed() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}},
            "spec": {"taints": [{"key": "out", "effect": "NoExecute"}, {"key": "full", "effect": "NoSchedule"}]}}))
        .unwrap();
        let pod = |spec: serde_json::Value| -> Pod {
            let mut pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": []}})).unwrap();
            let mut full = json!({"containers": [], "tolerations": [{"operator": "Exists"}]});
            full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            pod.spec = Some(serde_json::from_value(full).unwrap());
            pod
        };
        let port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]});
        let other = Arc::new(pod(port("127.0.0.1")));
        for (spec, expected) in [
            (json!({}), None),
            (json!({"nodeSelector": {"disk": "ssd"}}), None),
            (json!({"nodeSelector": {"disk": "tape"}}), Some("NodeAffinity")),
            (json!({"tolerations": []}), Some("TaintToleration")),
            (json!({"tolerations": [{"key": "out", "operator": "Exists"}]}), None),
            (port("127.0.0.2"), None),
            (port("127.0.0.1"), Some("NodePorts")),
            (port(""), Some("NodePorts")),
            (json!({"os": {"name": "windows"}}), Some("PodOSNotSupported")),
        ] {
            let refused = refuse(&pod(spec.clone()), std::slice::from_ref(&other), &ResourceList::new(), Some(&node));
            assert_eq!(refused.as_ref().map(|refused| refused.reason.as_str()), expected, "{spec}");
        }
    }
}
