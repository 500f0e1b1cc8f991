//! What an eviction takes from a budget. The budget's controller computes the rest of its status.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::mutate::{Object, child, make, set};
use crate::kinds::print::items;
use crate::status::{Cause, Status};

/// Evictions that the controller has not seen yet, at most.
const MAX_DISRUPTED: usize = 2000;
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Takes one disruption from the budget, for the pod called `pod`. The error is what upstream answers when it cannot.
pub fn disrupt(budget: &mut Value, pod: &str, now: Timestamp) -> Result<(), Status> {
    let name = budget["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let number = |part: &str, field: &str| budget[part][field].as_i64().unwrap_or(0);
    if number("status", "observedGeneration") < number("metadata", "generation") {
        return Err(unsettled(&name));
    }
    let forbidden = |why| Err(Status::forbidden("policy", "poddisruptionbudget", &name, why));
    let allowed = number("status", "disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if budget["status"]["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let (wanted, healthy) = (number("status", "desiredHealthy"), number("status", "currentHealthy"));
        let why = format!("The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently");
        return Err(too_many(0, why));
    }
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let Some(status) = budget.as_object_mut().and_then(|budget| make(budget, "status")) else { return Ok(()) };
    status.insert("disruptionsAllowed".into(), (allowed - 1).into());
    if allowed == 1 {
        none_allowed(status, &now);
    }
    if let Some(pods) = make(status, "disruptedPods") {
        pods.insert(pod.into(), now.into());
    }
    Ok(())
}

/// 429: the controller has not caught up with the budget, or somebody else changed the pod.
pub fn unsettled(name: &str) -> Status {
    too_many(10, format!("The disruption budget {name} is still being processed by the server."))
}

fn too_many(retry_after_seconds: u32, why: String) -> Status {
    let mut status = Status::too_many_requests(VIOLATES, retry_after_seconds);
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { reason: "DisruptionBudget".into(), message: why, ..Cause::default() });
    }
    status
}

/// The condition that the controller writes too.
fn none_allowed(status: &mut Object, now: &str) {
    let generation = status.get("observedGeneration").cloned().unwrap_or_else(|| 0.into());
    set(status, "conditions", json!([]));
    let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) else { return };
    let mut since = now.to_owned();
    if let Some(old) = conditions.iter().find(|c| c["type"] == "DisruptionAllowed" && c["status"] == "False") {
        since = old["lastTransitionTime"].as_str().unwrap_or(now).to_owned();
    }
    conditions.retain(|condition| condition["type"] != "DisruptionAllowed");
    conditions.push(json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "lastTransitionTime": since, "observedGeneration": generation,
    }));
}

/// Whether a pod's eviction needs no budget: it is not running, or is on its way out already.
pub fn is_free(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
        || pod["metadata"]["deletionTimestamp"].is_string()
}

/// Whether the pod, which is not ready, may go without being counted: it was no use to the budget.
pub fn spares_unhealthy(budget: &Value) -> bool {
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || (count("desiredHealthy") > 0 && count("currentHealthy") >= count("desiredHealthy"))
}

/// Whether the pod's `Ready` condition is true.
pub fn is_ready(pod: &Value) -> bool {
    items(&pod["status"]["conditions"]).any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Marks the pod as evicted.
pub fn mark(pod: &mut Value, now: Timestamp) {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let Some(pod) = pod.as_object_mut() else { return };
    let generation = child(pod, "metadata").and_then(|meta| meta.get("generation").cloned());
    let Some(status) = make(pod, "status") else { return };
    set(status, "conditions", json!([]));
    let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) else { return };
    let was = conditions.iter().find(|c| c["type"] == "DisruptionTarget" && c["status"] == "True");
    let since = was.map_or_else(|| Value::from(now), |was| was["lastTransitionTime"].clone());
    conditions.retain(|condition| condition["type"] != "DisruptionTarget");
    let mut condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": since,
    });
    if let (Some(condition), Some(generation)) = (condition.as_object_mut(), generation) {
        condition.insert("observedGeneration".into(), generation);
    }
    conditions.push(condition);
}
