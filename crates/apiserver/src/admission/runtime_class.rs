//! RuntimeClass: a pod that names one gets its overhead, node selector and tolerations.

use keelson_api::quota::amounts;
use keelson_api::status::Status;
use keelson_api::validation::same;
use serde_json::{Map, Value, json};

use super::{Operation, Request};
use crate::registry::read::freshen;

pub(super) async fn mutate(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    if !(request.is("", "pods") && request.operation == Operation::Create) {
        return Ok(());
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let Some(name) = spec.get("runtimeClassName").and_then(Value::as_str).map(str::to_owned) else {
        return no_overhead(request, spec);
    };
    let classes = request.core.registry.known("node.k8s.io", "runtimeclasses")?.cache()?;
    let mut class = classes.get("", &name);
    if class.is_none() {
        freshen(request.core, None).await?;
        class = classes.get("", &name);
    }
    let class = class.ok_or_else(|| request.forbidden(&format!("pod rejected: RuntimeClass \"{name}\" not found")))?;
    apply(spec, &class.decode()?).map_err(|why| request.forbidden(&why))
}

fn no_overhead(request: &Request<'_>, spec: &Map<String, Value>) -> Result<(), Status> {
    if spec.get("overhead").and_then(Value::as_object).is_none_or(Map::is_empty) {
        return Ok(());
    }
    Err(request.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
}

/// Puts what the class says into a pod's spec; an error where the pod says something else.
pub(super) fn apply(spec: &mut Map<String, Value>, class: &Value) -> Result<(), String> {
    let fixed = class.pointer("/overhead/podFixed").unwrap_or(&Value::Null);
    let own = spec.get("overhead").filter(|own| own.as_object().is_some_and(|own| !own.is_empty()));
    match (own, class.get("overhead").is_some_and(Value::is_object)) {
        (Some(own), true) if amounts(own) != amounts(fixed) => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        (Some(_), false) => {
            return Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into());
        }
        (None, true) if fixed.is_object() => drop(spec.insert("overhead".into(), fixed.clone())),
        _ => {}
    }
    let scheduling = &class["scheduling"];
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let selector = spec.entry("nodeSelector").or_insert_with(|| json!({}));
        if selector.is_null() {
            *selector = json!({});
        }
        let Some(selector) = selector.as_object_mut() else { continue };
        if let Some(own) = selector.get(key).filter(|own| *own != value) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (theirs, own) = (text(value), text(own));
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {theirs}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        selector.insert(key.clone(), value.clone());
    }
    let more = scheduling["tolerations"].as_array().into_iter().flatten();
    let mut tolerations = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let before = tolerations.len();
    for toleration in more {
        if !tolerations.iter().any(|own| same(own, toleration)) {
            tolerations.push(toleration.clone());
        }
    }
    if tolerations.len() > before {
        spec.insert("tolerations".into(), tolerations.into());
    }
    Ok(())
}
