//! What may change in a pod once it exists, by its main resource and by each subresource.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::kinds::mutate::make;
use crate::kinds::print::items;
use crate::kinds::qos::qos_class;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, immutable, names, same, same_as};

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
    if !deadline(spec.get("activeDeadlineSeconds"), &old["activeDeadlineSeconds"], errors) {
        return;
    }
    tolerations(spec.get("tolerations"), &old["tolerations"], errors);
    for gate in spec.get("schedulingGates").items() {
        if !items(&old["schedulingGates"]).any(|g| g == gate.value) {
            let name = gate.get("name");
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", name.str());
            errors.push(gate.forbidden(&detail));
        }
    }
    let gated = items(&old["schedulingGates"]).len() > 0;
    let munged = munged(spec.value, old, gated, errors);
    if !same_as("api.core.v1.PodSpec", &munged, old) {
        let detail = format!("pod updates may not change fields other than {MUTABLE}\n{}", diff(&munged, old));
        errors.push(spec.forbidden(&detail));
    }
}

/// Annotations that stay as they were made.
pub(super) fn annotations(pod: &Value, old: &Value, errors: &mut Errors) {
    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
    let (new, old) = (&pod["metadata"]["annotations"], &old["metadata"]["annotations"]);
    let what = |key: &str| match key {
        super::MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with(APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    let mut forbid = |key: &str, verb: &str| {
        if let Some(what) = what(key) {
            let path = format!("metadata.annotations[{key}]");
            errors.push(FieldError::forbidden(path, &format!("may not {verb} {what}")));
        }
    };
    for (key, _) in old.as_object().into_iter().flatten().filter(|(key, value)| new.get(*key) != Some(*value)) {
        forbid(key, "remove or update");
    }
    for (key, _) in new.as_object().into_iter().flatten().filter(|(key, _)| old.get(*key).is_none()) {
        forbid(key, "add");
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
        let (node, old_node) = (&new["affinity"]["nodeAffinity"], &old["affinity"]["nodeAffinity"]);
        if node != old_node {
            node_affinity(node, old_node, errors);
            match (map.get_mut("affinity").and_then(Value::as_object_mut), old_node.is_null()) {
                (Some(affinity), true) => drop(affinity.remove("nodeAffinity")),
                (Some(affinity), false) => drop(affinity.insert("nodeAffinity".into(), old_node.clone())),
                (None, true) => {}
                (None, false) => drop(map.insert("affinity".into(), json!({"nodeAffinity": old_node}))),
            }
        }
    }
    let emptied = old["affinity"].is_null() && map.get("affinity") == Some(&json!({}));
    if gated && emptied && new["affinity"] != json!({}) {
        map.remove("affinity");
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

/// Until it has a node, a pod's choice of nodes may only be narrowed down.
fn node_affinity(new: &Value, old: &Value, errors: &mut Errors) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let old_terms = &old[REQUIRED]["nodeSelectorTerms"];
    // Where there was no rule, any may come.
    if items(old_terms).len() == 0 {
        return;
    }
    let path = format!("spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
    let terms = &new[REQUIRED]["nodeSelectorTerms"];
    if items(terms).len() != items(old_terms).len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(path, terms.clone(), detail));
        return;
    }
    for (index, (term, old)) in items(terms).zip(items(old_terms)).enumerate() {
        let count = |list: &str| items(&old[list]).len();
        let starts_with = |list: &str| items(&term[list]).zip(items(&old[list])).all(|(new, old)| same(new, old));
        let grown = ["matchExpressions", "matchFields"]
            .into_iter()
            .all(|list| items(&term[list]).len() >= count(list) && starts_with(list));
        // A term without conditions matches nothing; with some it would match more.
        let was_empty = count("matchExpressions") + count("matchFields") == 0;
        if !grown || (was_empty && !same(term, old)) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(format!("{path}[{index}]"), term.clone(), detail));
        }
    }
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
        if new != old {
            lines.push(format!("- \t{key}: {old},"));
            lines.push(format!("+ \t{key}: {new},"));
        }
    }
    lines.push("  }\n".into());
    lines.join("\n")
}

/// Whether the rest is worth looking at.
fn deadline(new: View, old: &Value, errors: &mut Errors) -> bool {
    match (new.int(), old.as_i64()) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            errors.push(new.invalid(&format!("must be between 0 and {}, inclusive", i32::MAX)));
            return false;
        }
        (Some(seconds), Some(old)) if seconds > old => {
            errors.push(new.invalid("must be less than or equal to previous value"));
            return false;
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(new.path(), Value::Null, detail));
        }
        _ => {}
    }
    true
}

fn tolerations(new: View, old: &Value, errors: &mut Errors) {
    fn bare(toleration: &Value) -> [&str; 4] {
        ["key", "operator", "value", "effect"].map(|field| toleration[field].as_str().unwrap_or_default())
    }
    let kept: HashSet<_> = items(new.value).map(bare).collect();
    if !items(old).all(|old| kept.contains(&bare(old))) {
        errors.push(new.forbidden("existing toleration can not be modified except its tolerationSeconds"));
    }
}

/// A status update of `old_pod`.
pub(super) fn validate_status(pod: View, old_pod: &Value, errors: &mut Errors) {
    let (status, old) = (pod.get("status"), &old_pod["status"]);
    for condition in status.get("conditions").items() {
        generation(condition.get("observedGeneration"), errors);
        let kind = condition.get("type");
        if !matches!(kind.str(), "PodScheduled" | "Ready" | "Initialized") {
            // Upstream writes it with a capital.
            checked(condition.get("Type").with(kind.value), names::qualified, errors);
        }
    }
    let nominated = status.get("nominatedNodeName");
    if !nominated.is_empty() && *nominated.value != old["nominatedNodeName"] {
        checked(nominated, names::subdomain, errors);
    }
    generation(status.get("observedGeneration"), errors);
    if old["qosClass"].is_string() {
        immutable(status.get("qosClass"), &old["qosClass"], errors);
    }
    let spec = &old_pod["spec"];
    let restarts = |list: &'static str| {
        move |name: &str, code: i64| items(&spec[list]).any(|c| c["name"] == name && may_restart(c, spec, code))
    };
    transitions(status, old, "containerStatuses", restarts("containers"), errors);
    transitions(status, old, "initContainerStatuses", restarts("initContainers"), errors);
    transitions(status, old, "ephemeralContainerStatuses", |_, _| false, errors);
    claim_statuses(status.get("resourceClaimStatuses"), pod.value, errors);
    addresses(status.get("podIPs"), &old["podIPs"], errors);
    let host_ips = status.get("hostIPs");
    if let Some(first) = host_ips.items().next() {
        if first.get("ip").str() != status.get("hostIP").str() {
            errors.push(first.get("ip").invalid("must be equal to `hostIP`"));
        }
        addresses(host_ips, &old["hostIPs"], errors);
    }
}

fn generation(view: View, errors: &mut Errors) {
    if view.int().is_some_and(|n| n < 0) {
        errors.push(view.invalid("must be a non-negative integer"));
    }
}

/// Whether a container that ended with `code` may run again.
fn may_restart(container: &Value, spec: &Value, code: i64) -> bool {
    // A rule of its own may say anything about any code.
    if items(&container["restartPolicyRules"]).len() > 0 {
        return true;
    }
    let policy = container["restartPolicy"].as_str().or(spec["restartPolicy"].as_str());
    match policy {
        Some("OnFailure") => code != 0,
        Some("Never") => false,
        _ => true,
    }
}

/// What has ended for good does not come back.
fn transitions(
    status: View,
    old: &Value,
    list: &'static str,
    may_restart: impl Fn(&str, i64) -> bool,
    errors: &mut Errors,
) {
    let new = status.get(list);
    for (index, old) in items(&old[list]).enumerate() {
        let ended = &old["state"]["terminated"];
        let name = old["name"].as_str().unwrap_or_default();
        if !ended.is_object() || may_restart(name, ended["exitCode"].as_i64().unwrap_or(0)) {
            continue;
        }
        for status in new.items().filter(|status| status.get("name").str() == name) {
            if !status.value["state"]["terminated"].is_object() {
                let path = format!("{}[{index}].state", new.path());
                errors.push(FieldError::forbidden(path, "may not be transitioned to non-terminated state"));
            }
        }
    }
}

fn claim_statuses(statuses: View, pod: &Value, errors: &mut Errors) {
    let mut seen = std::collections::HashSet::new();
    for status in statuses.items() {
        let (name, claim) = (status.get("name"), status.get("resourceClaimName"));
        if !items(&pod["spec"]["resourceClaims"]).any(|claim| claim["name"] == *name.value) {
            errors.push(name.invalid_str("must match the name of an entry in `spec.resourceClaims`"));
        }
        if !seen.insert(name.str()) {
            errors.push(name.duplicate());
        }
        if claim.is_set() {
            checked(name.with(claim.value), names::subdomain, errors);
        }
    }
}

/// At most one address of each family; those that were there before may be odd.
fn addresses(list: View, old: &Value, errors: &mut Errors) {
    for entry in list.items() {
        let ip = entry.get("ip");
        if !items(old).any(|old| old["ip"] == *ip.value) {
            checked(entry.with(ip.value), names::ip, errors);
        }
    }
    let count = |v6: bool| list.items().filter(|entry| entry.get("ip").str().contains(':') == v6).count();
    if count(true) > 1 || count(false) > 1 {
        let shown: Vec<_> = list.items().map(|entry| json!({"IP": entry.get("ip").str()})).collect();
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(list.path(), shown, detail));
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
            let Some(wanted) = new[list].as_array().filter(|wanted| !wanted.is_empty()) else { continue };
            // In the order that was asked for: validation refuses any other than the old.
            let containers = wanted.iter().map(|wanted| {
                let Some(old) = items(&old["spec"][list]).find(|old| old["name"] == wanted["name"]) else {
                    return wanted.clone();
                };
                let mut container = old.clone();
                for field in ["resources", "resizePolicy"] {
                    match (container.as_object_mut(), wanted.get(field)) {
                        (Some(container), Some(value)) => drop(container.insert(field.into(), value.clone())),
                        (Some(container), None) => drop(container.remove(field)),
                        (None, _) => {}
                    }
                }
                container
            });
            spec.insert(list.into(), containers.collect());
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
        let grew = map.get("spec").is_some_and(|spec| !same_as("api.core.v1.PodSpec", spec, &old["spec"]));
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
            Some(changed) if !same_as("api.core.v1.EphemeralContainer", changed.value, old) => {
                let detail =
                    format!("existing ephemeral containers {name:?} may not be changed\n{}", diff(changed.value, old));
                errors.push(new.forbidden(&detail));
            }
            Some(_) => {}
        }
    }
}

/// A resize changes cpu and memory of containers and sidecars, and not the class.
pub(super) fn validate_resize(spec: View, old: &Value, errors: &mut Errors) {
    let old_spec = &old["spec"];
    let whole = |spec: &Value| {
        ["limits", "requests"].iter().any(|l| spec["resources"][*l].as_object().is_some_and(|list| !list.is_empty()))
    };
    let refused = match () {
        () if whole(old_spec) || whole(spec.value) => "pods with pod-level resources cannot be resized",
        () if old["metadata"]["annotations"][super::MIRROR].is_string() => "static pods cannot be resized",
        () if old_spec["os"]["name"] == "windows" => "windows pods cannot be resized",
        () => "",
    };
    if !refused.is_empty() {
        *errors = vec![FieldError::forbidden("[]", refused)];
        return;
    }
    if qos_class(old_spec) != qos_class(spec.value) {
        let class = old["status"]["qosClass"].clone();
        errors.push(FieldError::invalid(spec.path(), class, "Pod QOS Class may not change as a result of resizing"));
    }
    let running = items(&old["status"]["containerStatuses"]).find(|status| status["state"]["running"].is_object());
    if running.is_some_and(|status| status["resources"].is_null()) {
        errors.push(spec.forbidden("Pod running on node without support for resize"));
    }
    if !same_containers(spec, old_spec, errors) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (container, old) in spec.get(list).items().zip(items(&old_spec[list])) {
            if list == "initContainers" && !is_sidecar(old) {
                continue;
            }
            let resources = container.get("resources");
            for field in ["requests", "limits"] {
                let amounts = resources.get(field);
                let gone = |(name, _): (&String, &Value)| amounts.value.get(name).is_none();
                if old["resources"][field].as_object().into_iter().flatten().any(gone) {
                    errors.push(amounts.forbidden(&format!("resource {field} cannot be removed")));
                }
            }
        }
    }
    for (container, old) in items(&spec.value["containers"]).zip(items(&old_spec["containers"])) {
        if !same_as("api.core.v1.Container", &without_compute(container, old), old) {
            errors.push(spec.forbidden("only cpu and memory resources are mutable"));
        }
    }
    for (container, old) in items(&spec.value["initContainers"]).zip(items(&old_spec["initContainers"])) {
        if !is_sidecar(old) {
            if !same_as("api.core.v1.Container", container, old) {
                errors.push(spec.forbidden("resources for non-sidecar init containers are immutable"));
            }
        } else if !same_as("api.core.v1.Container", &without_compute(container, old), old) {
            errors.push(spec.forbidden("only cpu and memory resources for sidecar containers are mutable"));
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// Whether the containers are the same, in the same order.
fn same_containers(spec: View, old: &Value, errors: &mut Errors) -> bool {
    let before = errors.len();
    for list in ["containers", "initContainers"] {
        let containers = spec.get(list);
        if containers.len() != items(&old[list]).len() {
            errors.push(containers.forbidden(&format!("{list} may not be added or removed on resize")));
            continue;
        }
        for (container, old) in containers.items().zip(items(&old[list])) {
            if *container.get("name").value != old["name"] {
                let detail = format!("{list} may not be renamed or reordered on resize");
                errors.push(container.get("name").forbidden(&detail));
            }
        }
    }
    errors.len() == before
}

/// The container with the old cpu and memory.
fn without_compute(container: &Value, old: &Value) -> Value {
    let mut container = container.clone();
    let Some(resources) = container.as_object_mut().and_then(|map| make(map, "resources")) else { return container };
    for list in ["limits", "requests"] {
        let old = &old["resources"][list];
        if old.is_null() {
            resources.remove(list);
            continue;
        }
        let Some(amounts) = make(resources, list) else { continue };
        for name in ["cpu", "memory"] {
            match old.get(name) {
                Some(amount) => drop(amounts.insert(name.into(), amount.clone())),
                None => drop(amounts.remove(name)),
            }
        }
    }
    container
}
