//! What a Binding does to a pod: `pods/binding`, the scheduler's one write.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::mutate::{make, set};
use crate::kinds::print::items;
use crate::status::Status;

/// Puts `pod` onto the binding's target and marks it scheduled. The error is the conflict that upstream answers.
pub fn bind(pod: &mut Value, binding: &Value, now: Timestamp) -> Result<(), Status> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_string();
    let conflict = |why: String| Err(Status::conflict("", "pods/binding", &name, &why));
    for (field, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let (wanted, actual) = (&binding["metadata"][field], &pod["metadata"][field]);
        if wanted.as_str().is_some_and(|w| !w.is_empty()) && wanted != actual {
            let (wanted, actual) = (wanted.as_str().unwrap_or_default(), actual.as_str().unwrap_or_default());
            return conflict(format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}"
            ));
        }
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !node.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {node:?}"));
    }
    if items(&pod["spec"]["schedulingGates"]).len() > 0 {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let Some(map) = pod.as_object_mut() else { return Err(Status::internal("pod is not an object")) };
    if let Some(spec) = make(map, "spec") {
        spec.insert("nodeName".into(), binding["target"]["name"].clone());
    }
    if let Some(meta) = make(map, "metadata") {
        for field in ["annotations", "labels"] {
            let Some(extra) = binding["metadata"][field].as_object().filter(|m| !m.is_empty()) else { continue };
            if let Some(own) = make(meta, field) {
                own.extend(extra.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
        }
    }
    let condition = json!({
        "type": "PodScheduled", "status": "True",
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    if let Some(status) = make(map, "status") {
        set(status, "conditions", json!([]));
        if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
            conditions.retain(|c| c["type"] != "PodScheduled");
            conditions.push(condition);
        }
    }
    Ok(())
}
