//! ResourceQuota

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{child, set_status};
use crate::kinds::pod_spec::{defaults::resource_list, resources};
use crate::kinds::prepare_plain;
use crate::kinds::print::age;
use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::validation::{Errors, View};

#[cfg(test)]
mod tests;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "ResourceQuota", "resourcequotas", &ResourceQuota)
        .short("quota")
        .with_status()
        .returns_deleted()
        .columns(vec![
            Column::string("Request", "What is used of what may be requested.", |object, _| usage(object, false)),
            Column::string("Limit", "What is used of what limits may add up to.", |object, _| usage(object, true)),
            age(),
        ])
}

/// `pods: 1/10, requests.cpu: 500m/2`
fn usage(object: &Value, limits: bool) -> Value {
    let status = &object["status"];
    let mut names: Vec<_> = status["hard"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let amount = |list: &str, name: &str| Quantity::lookup(&status[list], name).unwrap_or_default();
    let texts = names.into_iter().filter(|name| name.starts_with("limits.") == limits);
    let texts = texts.map(|name| format!("{name}: {}/{}", amount("used", name), amount("hard", name)));
    texts.collect::<Vec<_>>().join(", ").into()
}

#[derive(Debug)]
struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        for (part, list) in [("spec", "hard"), ("status", "hard"), ("status", "used")] {
            if let Some(list) = child(object, part).and_then(|part| child(part, list)) {
                resource_list(list);
            }
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
        if write == Write::Create {
            set_status(object, json!({}));
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let (spec, status) = (root.get("spec"), root.get("status"));
        if matches!(write, Write::Subresource(..)) {
            amounts(status.get("hard"), &mut errors);
            amounts(status.get("used"), &mut errors);
            return errors;
        }
        amounts(spec.get("hard"), &mut errors);
        scopes(spec, &mut errors);
        scope_selector(spec, &mut errors);
        if let Write::Update(old) = write {
            let set = |scopes: &Value| -> BTreeSet<String> {
                let scopes = scopes.as_array().into_iter().flatten();
                scopes.filter_map(Value::as_str).map(str::to_owned).collect()
            };
            let scopes = spec.get("scopes");
            if set(scopes.value) != set(&old["spec"]["scopes"]) {
                errors.push(scopes.invalid("field is immutable"));
            }
        }
        errors
    }
}

fn amounts(list: View, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        resources::quota_name(name, &amount.path(), errors);
        let Some(quantity) = resources::quantity(amount, errors) else { continue };
        if resources::is_counted(name) && !quantity.is_integer() {
            errors.push(FieldError::invalid(amount.path(), quantity.to_string(), "must be an integer"));
        }
    }
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
const COMPUTE: [&str; 6] = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

/// Whether what is counted under `resource` has the property that the scope asks for.
fn applies(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => resource == "pods" || COMPUTE.contains(&resource),
        _ => true,
    }
}

/// Resources of `hard` that the scope cannot apply to.
fn misfits(spec: View, scope: &str) -> usize {
    let hard = spec.value["hard"].as_object().into_iter().flatten();
    hard.filter(|(name, _)| resources::is_standard_quota(name) && !applies(scope, name)).count()
}

fn conflicts(scopes: &BTreeSet<&str>) -> usize {
    let pairs = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
    pairs.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope))).count()
}

fn scopes(spec: View, errors: &mut Errors) {
    let scopes = spec.get("scopes");
    let mut seen = BTreeSet::new();
    for scope in scopes.items() {
        if !SCOPES.contains(&scope.str()) {
            errors.push(scopes.invalid("unsupported scope"));
        }
        for _ in 0..misfits(spec, scope.str()) {
            errors.push(scopes.invalid("unsupported scope applied to resource"));
        }
        seen.insert(scope.str());
    }
    for _ in 0..conflicts(&seen) {
        errors.push(scopes.invalid("conflicting scopes"));
    }
}

fn scope_selector(spec: View, errors: &mut Errors) {
    let selector = spec.get("scopeSelector");
    // Upstream reports everything at the list, without an index.
    let list = selector.get("matchExpressions");
    let mut seen = BTreeSet::new();
    for requirement in list.items() {
        let at = |field: &'static str| list.get(field).with(requirement.get(field).value).path();
        let (scope, operator) = (requirement.get("scopeName"), requirement.get("operator"));
        let values = requirement.get("values");
        if !SCOPES.contains(&scope.str()) {
            errors.push(FieldError::invalid(at("scopeName"), scope.str(), "unsupported scope"));
        }
        for _ in 0..misfits(spec, scope.str()) {
            errors.push(list.with(selector.value).invalid("unsupported scope applied to resource"));
        }
        let exists_only = !matches!(scope.str(), "PriorityClass" | "VolumeAttributesClass");
        if SCOPES.contains(&scope.str()) && exists_only && operator.str() != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(at("operator"), operator.str(), detail));
        }
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(at("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(at("values"), values.value.clone(), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(FieldError::invalid(at("operator"), operator.str(), "not a valid selector operator")),
        }
        seen.insert(scope.str());
    }
    for _ in 0..conflicts(&seen) {
        errors.push(FieldError::invalid(
            format!("{}.matchExpressions", selector.path()),
            spec.get("scopes").value.clone(),
            "conflicting scopes",
        ));
    }
}
