//! TaintNodesByCondition: a new node takes no pods before its kubelet has reported that it is ready.

use serde_json::{Value, json};

use super::{Operation, Request};

pub(super) fn mutate(request: &Request<'_>, object: &mut Value) {
    if !(request.is("", "nodes") && request.operation == Operation::Create) {
        return;
    }
    let Some(map) = object.as_object_mut() else { return };
    let spec = map.entry("spec").or_insert_with(|| json!({}));
    let Some(spec) = spec.as_object_mut() else { return };
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    let Some(taints) = taints.as_array_mut() else { return };
    let (key, effect) = ("node.kubernetes.io/not-ready", "NoSchedule");
    let there =
        taints.iter().any(|t| t.get("key").is_some_and(|k| k == key) && t.get("effect").is_some_and(|e| e == effect));
    if !there {
        taints.push(json!({"key": key, "effect": effect}));
    }
}
