//! The quality-of-service class of a pod.

use serde_json::Value;

use super::print::items;
use crate::quantity::Quantity;

const COUNTED: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed`, `Burstable` or `BestEffort`, from a pod's spec.
pub fn qos_class(spec: &Value) -> &'static str {
    let mut guaranteed = true;
    let mut requests = [Quantity::ZERO; 2];
    let mut limits = [Quantity::ZERO; 2];
    let mut count = |resources: &Value| {
        for (index, name) in COUNTED.iter().enumerate() {
            let amount = |list: &str| Quantity::lookup(&resources[list], name).filter(|q| *q > Quantity::ZERO);
            if let (Some(total), Some(request)) = (requests.get_mut(index), amount("requests")) {
                *total += request;
            }
            match (limits.get_mut(index), amount("limits")) {
                (Some(total), Some(limit)) => *total += limit,
                _ => guaranteed = false,
            }
        }
    };
    // Resources of the whole pod, where given, stand for its containers'.
    let whole = &spec["resources"];
    if whole["requests"].is_object() || whole["limits"].is_object() {
        count(whole);
    } else {
        for container in items(&spec["containers"]).chain(items(&spec["initContainers"])) {
            count(&container["resources"]);
        }
    }
    let nothing = |list: &[Quantity; 2]| list.iter().all(|q| q.is_zero());
    if nothing(&requests) && nothing(&limits) {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
