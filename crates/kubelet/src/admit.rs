//! Whether a pod that comes to this node fits on it. The scheduler has looked already; this catches pods that were bound
//! without it, or against what it knew too late. Pure; reasons and messages are upstream's.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::pod::status::Ended;
use crate::pod::view;
use crate::quantity::{self, ResourceList};
use crate::resources;

/// Why `pod` is refused, given the other pods that are active here.
pub(crate) fn refuse(pod: &Pod, others: &[Arc<Pod>], allocatable: &ResourceList) -> Option<Ended> {
    let (mut cpu, mut memory, mut count) = (0i64, 0i64, 0i64);
    for other in others.iter().filter(|other| !matches!(view::phase(other), "Succeeded" | "Failed")) {
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
        (requested > 0 && requested > capacity.saturating_sub(used)).then(|| Ended {
            reason: format!("OutOf{name}"),
            message: format!(
                "Pod was rejected: Node didn't have enough resource: {name}, requested: {requested}, used: {used}, \
                 capacity: {capacity}"
            ),
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
            let refused = refuse(&pod(new, "Pending"), &others, &allocatable);
            assert_eq!(refused.as_ref().map(|refused| refused.reason.as_str()), expected, "{new} {}", others.len());
        }
    }
}
