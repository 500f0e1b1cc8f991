//! Nodes and pods for tests, from a few words of JSON.

use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use crate::pod::PodInfo;

/// A node with 8 CPUs, 8 GiB and room for 110 pods, unless `extra` says otherwise.
pub(crate) fn node(name: &str, extra: Value) -> core::Node {
    let mut node = json!({
        "metadata": {"name": name},
        "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}},
    });
    merge(&mut node, extra);
    serde_json::from_value(node).unwrap()
}

/// A pod with one container that asks for `requests`.
pub(crate) fn pod(name: &str, requests: Value) -> PodInfo {
    pod_with(name, json!({"containers": [{"name": "c", "resources": {"requests": requests}}]}))
}

/// A pod with that spec; its UID is its name.
pub(crate) fn pod_with(name: &str, mut spec: Value) -> PodInfo {
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    let pod = json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec});
    PodInfo::new(&serde_json::from_value(pod).unwrap()).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
