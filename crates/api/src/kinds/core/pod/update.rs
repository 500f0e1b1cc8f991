//! What may change in a pod once it exists, by its main resource and by each subresource.

use serde_json::{Value, json};

use crate::kinds::mutate::make;
use crate::kinds::print::items;
use crate::kinds::qos::qos_class;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, same};

const MUTABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update of the main resource.
pub(super) fn validate(spec: View, old_pod: &Value, errors: &mut Errors) {
    let old = &old_pod["spec"];
    for list in ["containers", "initContainers"] {
        if spec.get(list).len() != items(&old[list]).len() {
            errors.push(spec.get(list).forbidden("pod updates may not add or remove containers"));
            return;
        }
    }
    deadline(spec.get("activeDeadlineSeconds"), &old["activeDeadlineSeconds"], errors);
    tolerations(spec.get("tolerations"), &old["tolerations"], errors);
    for gate in spec.get("schedulingGates").items() {
        if !items(&old["schedulingGates"]).any(|g| g == gate.value) {
            let name = gate.get("name");
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", name.str());
            errors.push(gate.forbidden(&detail));
        }
    }
    if qos_class(old) != qos_class(spec.value) {
        let class = old_pod["status"]["qosClass"].clone();
        errors.push(FieldError::invalid("metadata", class, "Pod QoS is immutable"));
    }
    let gated = items(&old["schedulingGates"]).len() > 0;
    let munged = munged(spec.value, old, gated, errors);
    if !same(&munged, old) {
        let detail = format!("pod updates may not change fields other than {MUTABLE}\n{}", diff(&munged, old));
        errors.push(spec.forbidden(&detail));
    }
}

/// The new spec with everything that may change put back as it was.
fn munged(new: &Value, old: &Value, gated: bool, errors: &mut Errors) -> Value {
    let mut munged = new.clone();
    let Some(map) = munged.as_object_mut() else { return munged };
    let mut restore = |field: &str| match old.get(field) {
        Some(value) => drop(map.insert(field.into(), value.clone())),
        None => drop(map.remove(field)),
    };
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        restore(field);
    }
    let negative = old["terminationGracePeriodSeconds"].as_i64().is_some_and(|n| n < 0);
    if negative && new["terminationGracePeriodSeconds"] == 1 {
        restore("terminationGracePeriodSeconds");
    }
    if gated {
        let kept = |(key, value): (&String, &Value)| new["nodeSelector"].get(key) == Some(value);
        if !old["nodeSelector"].as_object().into_iter().flatten().all(kept) {
            let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid("spec.nodeSelector", new["nodeSelector"].clone(), detail));
        }
        restore("nodeSelector");
        // Until it has a node, a pod may be narrowed down from no node affinity to some.
        if !old["affinity"]["nodeAffinity"].is_object()
            && new["affinity"]["nodeAffinity"].is_object()
            && let Some(affinity) = make(map, "affinity")
        {
            affinity.remove("nodeAffinity");
        }
    }
    for list in ["containers", "initContainers"] {
        let new = map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, old) in new.zip(items(&old[list])) {
            if let Some(container) = container.as_object_mut() {
                container.insert("image".into(), old["image"].clone());
            }
        }
    }
    munged
}

/// Top-level fields that differ, old and new. Upstream prints a Go diff here, whose text it does not promise.
fn diff(new: &Value, old: &Value) -> String {
    let empty = serde_json::Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let mut lines = vec!["  core.PodSpec{".to_string()];
    let mut keys: Vec<_> = new.keys().chain(old.keys().filter(|key| !new.contains_key(*key))).collect();
    keys.sort();
    for key in keys {
        let (new, old) = (new.get(key).unwrap_or(&Value::Null), old.get(key).unwrap_or(&Value::Null));
        if !same(new, old) {
            lines.push(format!("- \t{key}: {old},"));
            lines.push(format!("+ \t{key}: {new},"));
        }
    }
    lines.push("  }\n".into());
    lines.join("\n")
}

fn deadline(new: View, old: &Value, errors: &mut Errors) {
    match (new.int(), old.as_i64()) {
        (Some(new_seconds), Some(old)) if new_seconds > old => {
            errors.push(new.invalid("must be less than or equal to previous value"));
        }
        (None, Some(_)) => errors.push(new.invalid("must not update from a positive integer to nil value")),
        _ => {}
    }
}

fn tolerations(new: View, old: &Value, errors: &mut Errors) {
    let bare = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    let kept = |old: &Value| new.items().any(|new| same(&bare(new.value), &bare(old)));
    if !items(old).all(kept) {
        errors.push(new.forbidden("existing toleration can not be modified except its tolerationSeconds"));
    }
}

/// A status update.
pub(super) fn validate_status(status: View, errors: &mut Errors) {
    let nominated = status.get("nominatedNodeName");
    if !nominated.is_empty() {
        checked(nominated, names::subdomain, errors);
    }
    for condition in status.get("conditions").items() {
        checked(condition.get("type"), names::qualified, errors);
    }
    let mut seen = std::collections::HashSet::new();
    for entry in status.get("podIPs").items() {
        let ip = entry.get("ip");
        checked(ip, names::ip, errors);
        if !seen.insert(ip.str().to_string()) {
            errors.push(FieldError::duplicate(entry.path(), entry.value.clone()));
        }
    }
}

/// `ephemeralcontainers`: the stored pod with the new list of ephemeral containers.
pub(super) fn keep_ephemeral_containers(pod: &mut Value, old: &Value) {
    let new = pod["spec"].get("ephemeralContainers").cloned();
    replace_spec(pod, old, |spec| match new {
        Some(new) => drop(spec.insert("ephemeralContainers".into(), new)),
        None => drop(spec.remove("ephemeralContainers")),
    });
}

/// `resize`: the stored pod with the new resources of its containers.
pub(super) fn keep_resources(pod: &mut Value, old: &Value) {
    let new = pod["spec"].clone();
    replace_spec(pod, old, |spec| {
        for list in ["containers", "initContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
            for container in containers.filter_map(Value::as_object_mut) {
                let name = container.get("name");
                let changed = items(&new[list]).find(|c| c.get("name") == name);
                for field in ["resources", "resizePolicy"] {
                    if let Some(value) = changed.and_then(|c| c.get(field)) {
                        container.insert(field.into(), value.clone());
                    }
                }
            }
        }
    });
}

/// `pod` becomes `old` with its own metadata version and a changed spec.
fn replace_spec(pod: &mut Value, old: &Value, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let resource_version = pod["metadata"].get("resourceVersion").cloned();
    let managed_fields = pod["metadata"].get("managedFields").cloned();
    let mut merged = old.clone();
    if let Some(map) = merged.as_object_mut() {
        if let Some(spec) = make(map, "spec") {
            change(spec);
        }
        let grew = map.get("spec").is_some_and(|spec| !same(spec, &old["spec"]));
        if let Some(meta) = make(map, "metadata") {
            if let Some(version) = resource_version {
                meta.insert("resourceVersion".into(), version);
            }
            if let Some(fields) = managed_fields {
                meta.insert("managedFields".into(), fields);
            }
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            if grew {
                meta.insert("generation".into(), json!(generation.saturating_add(1)));
            }
        }
    }
    *pod = merged;
}

/// Ephemeral containers only ever come.
pub(super) fn validate_ephemeral_containers(spec: View, old: &Value, errors: &mut Errors) {
    let new = spec.get("ephemeralContainers");
    for old in items(&old["ephemeralContainers"]) {
        let name = old["name"].as_str().unwrap_or_default();
        match new.items().find(|c| c.get("name").str() == name) {
            None => errors.push(new.forbidden(&format!("existing ephemeral containers {name:?} may not be removed\n"))),
            Some(changed) if !same(changed.value, old) => {
                let detail =
                    format!("existing ephemeral containers {name:?} may not be changed\n{}", diff(changed.value, old));
                errors.push(new.forbidden(&detail));
            }
            Some(_) => {}
        }
    }
}

/// A resize may not change the class, nor anything but cpu and memory.
pub(super) fn validate_resize(spec: View, old: &Value, errors: &mut Errors) {
    let old_spec = &old["spec"];
    let (before, after) = (qos_class(old_spec), qos_class(spec.value));
    if before != after {
        errors.push(FieldError::invalid(spec.path(), after, "Pod QOS Class may not change as a result of resizing"));
    }
    for list in ["containers", "initContainers"] {
        let containers = spec.get(list);
        for (container, old) in containers.items().zip(items(&old_spec[list])) {
            let resources = container.get("resources");
            for field in ["limits", "requests"] {
                let amounts = resources.get(field);
                let old = &old["resources"][field];
                let other = |name: &str| name != "cpu" && name != "memory";
                let names = amounts.entries().map(|(name, _)| name);
                let gone = old.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
                if names.chain(gone).any(|name| other(name) && amounts.value.get(name) != old.get(name)) {
                    errors.push(spec.forbidden("only cpu and memory resources are mutable"));
                }
                let removed = |name: &&str| old.get(*name).is_some() && amounts.value.get(*name).is_none();
                if ["cpu", "memory"].iter().any(removed) {
                    errors.push(resources.forbidden(&format!("resource {field} cannot be removed")));
                }
            }
        }
    }
}
