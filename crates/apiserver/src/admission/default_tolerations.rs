//! DefaultTolerationSeconds: a pod stays for five minutes on a node that is not ready or not reachable, unless it says
//! something else about that.

use serde_json::{Value, json};

use super::{Operation, Request};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) fn mutate(request: &Request<'_>, object: &mut Value) {
    if request.is("", "pods") && request.operation != Operation::Delete {
        add(object);
    }
}

pub(super) fn add(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let have = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let missing = TAINTS.iter().filter(|taint| !have.iter().any(|toleration| covers(toleration, taint)));
    let new: Vec<Value> = missing
        .map(|taint| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}))
        .collect();
    if !new.is_empty() {
        spec.insert("tolerations".into(), have.into_iter().chain(new).collect());
    }
}

fn covers(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
    let (key, effect) = (text("key"), text("effect"));
    (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
}
