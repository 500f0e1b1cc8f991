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
    let no_room = || shortages(pod, others, allocatable).into_iter().next().map(|shortage| shortage.refusal());
    wrong_os(pod).or_else(no_room).or_else(|| misplaced(pod, others, node))
}

/// Why `pod` is refused whatever room there is.
pub(crate) fn misplaced(pod: &Pod, others: &[Arc<Pod>], node: Option<&Node>) -> Option<Ended> {
    let others: Vec<&Pod> = active(others).collect();
    let unselected = node.filter(|node| !selected(pod, node)).map(|_| predicate("NodeAffinity", NOT_SELECTED));
    unselected
        .or_else(|| taken_ports(pod, &others).then(|| predicate("NodePorts", NO_PORTS)))
        .or_else(|| node.filter(|node| !tolerated(pod, node)).map(|_| predicate("TaintToleration", TAINTED)))
}

fn active(pods: &[Arc<Pod>]) -> impl Iterator<Item = &Pod> {
    pods.iter().map(Arc::as_ref).filter(|pod| is_active(pod))
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
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != "linux") {
        return Some(Ended::rejection(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        ));
    }
    let os = view::spec(pod)?.os.as_ref()?;
    (os.name != "linux")
        .then(|| Ended::rejection("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"))
}

/// So much of a resource is missing: thousandths of a CPU, else whole units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    pub name: String,
    pub quantity: i64,
}

/// What the node has too little of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    name: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Shortage {
    pub(crate) fn lack(&self) -> Lack {
        let free = self.capacity.saturating_sub(self.used);
        Lack { name: self.name.clone(), quantity: self.requested.saturating_sub(free) }
    }

    fn refusal(&self) -> Ended {
        let Shortage { name, requested, used, capacity } = self;
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Ended::rejection(&format!("OutOf{name}"), message)
    }
}

/// What a pod asks for of a resource: thousandths of a CPU, else whole units.
pub(crate) fn amount(pod: &Pod, name: &str) -> i64 {
    match name {
        "pods" => 1,
        "cpu" => resources::pod_requests(pod).0,
        "memory" => resources::pod_requests(pod).1,
        other => resources::pod_request(pod, other),
    }
}

/// All that is too little for `pod`. Of extended resources (`vendor.example/gpu`) only those count that `allocatable` has.
pub(crate) fn shortages(pod: &Pod, others: &[Arc<Pod>], allocatable: &ResourceList) -> Vec<Shortage> {
    const FIRST: [&str; 4] = ["pods", "cpu", "memory", "ephemeral-storage"];
    let rest = resources::requested(pod).into_iter().filter(|name| !FIRST.contains(name));
    let short = |name: &str| {
        let capacity = allocatable.get(name).map(if name == "cpu" { quantity::milli } else { quantity::value });
        let capacity = capacity.or(name.starts_with("hugepages-").then_some(0))?;
        let requested = amount(pod, name);
        let used = active(others).map(|other| amount(other, name)).fold(0, i64::saturating_add);
        // What asks for nothing fits always.
        (requested > 0 && requested > capacity.saturating_sub(used)).then(|| Shortage {
            name: name.into(),
            requested,
            used,
            capacity,
        })
    };
    FIRST.into_iter().chain(rest).filter_map(short).collect()
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
    fn room_for_everything_that_is_counted() {
        let pod = |requests: serde_json::Value| -> Arc<Pod> {
            let container = json!({"name": "c", "resources": {"requests": requests}});
            Arc::new(serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [container]}})).unwrap())
        };
        let list = [("ephemeral-storage", "10Gi"), ("hugepages-2Mi", "8Mi"), ("example.com/dongle", "2"), ("cpu", "1")];
        let allocatable = list.map(|(k, v)| (k.to_string(), Quantity(v.into()))).into();
        let running = [pod(json!({"ephemeral-storage": "8Gi", "hugepages-2Mi": "6Mi", "example.com/dongle": "1"}))];
        for (requests, expected) in [
            (json!({"ephemeral-storage": "2Gi", "hugepages-2Mi": "2Mi", "example.com/dongle": "1"}), None),
            (
                json!({"ephemeral-storage": "3Gi"}),
                Some(
                    "Node didn't have enough resource: ephemeral-storage, requested: 3221225472, used: 8589934592, capacity: 10737418240",
                ),
            ),
            (
                json!({"hugepages-2Mi": "4Mi"}),
                Some(
                    "Node didn't have enough resource: hugepages-2Mi, requested: 4194304, used: 6291456, capacity: 8388608",
                ),
            ),
            (
                json!({"hugepages-1Gi": "1Gi"}),
                Some("Node didn't have enough resource: hugepages-1Gi, requested: 1073741824, used: 0, capacity: 0"),
            ),
            (
                json!({"example.com/dongle": "2"}),
                Some("Node didn't have enough resource: example.com/dongle, requested: 2, used: 1, capacity: 2"),
            ),
            (json!({"example.com/of-nobody": "2"}), None),
        ] {
            let refused = refuse(&pod(requests.clone()), &running, &allocatable, None);
            assert_eq!(refused.map(|refused| refused.message).as_deref(), expected, "{requests}");
        }
        let both = shortages(&pod(json!({"cpu": "3", "hugepages-2Mi": "4Mi"})), &running, &allocatable);
        let lacking: Vec<_> = both.iter().map(Shortage::lack).map(|lack| (lack.name, lack.quantity)).collect();
        assert_eq!(lacking, [("cpu".to_string(), 2000), ("hugepages-2Mi".to_string(), 2 << 20)]);
    }

    #[test]
    fn another_systems_label() {
        let pod = |os: &str| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"labels": {"kubernetes.io/os": os}}, "spec": {"containers": []}}),
            )
            .unwrap()
        };
        let refused = |os: &str| refuse(&pod(os), &[], &ResourceList::new(), None).map(|refused| refused.reason);
        assert_eq!(refused("windows").as_deref(), Some("PodOSSelectorNodeLabelDoesNotMatch"));
        assert_eq!(refused("linux"), None);
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
