//! Resource names and amounts: requests and limits of containers and pods.

use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::validation::{Errors, View, names};

/// `resources` of a container.
pub(crate) fn requirements(resources: View, errors: &mut Errors) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let mut huge_pages = false;
    for (name, amount) in limits.entries() {
        resource(name, amount, errors);
        huge_pages |= name.starts_with("hugepages-");
    }
    for (name, amount) in requests.entries() {
        resource(name, amount, errors);
        huge_pages |= name.starts_with("hugepages-");
        against_limit(name, limits, requests, amount, errors);
    }
    let has = |name| limits.get(name).is_set() || requests.get(name).is_set();
    if huge_pages && !has("cpu") && !has("memory") {
        errors.push(resources.forbidden("HugePages require cpu or memory"));
    }
}

/// `resources` of a pod: only cpu, memory and huge pages.
pub(crate) fn pod_level(resources: View, errors: &mut Errors) {
    requirements(resources, errors);
    for list in ["limits", "requests"] {
        let list = resources.get(list);
        for (name, _) in list.entries() {
            if name != "cpu" && name != "memory" && !name.starts_with("hugepages-") {
                errors.push(FieldError::not_supported(
                    format!("{}[{name}]", list.path()),
                    name,
                    &["cpu", "hugepages-", "memory"],
                ));
            }
        }
    }
}

/// A plain resource list.
pub(crate) fn list(list: View, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        resource(name, amount, errors);
    }
}

fn against_limit(name: &str, limits: View, requests: View, amount: View, errors: &mut Errors) {
    let Ok(request) = Quantity::from_value(amount.value) else { return };
    let overcommit = !name.starts_with("hugepages-") && (!name.contains('/') || name.contains("kubernetes.io/"));
    match Quantity::lookup(limits.value, name) {
        Some(limit) if !overcommit && request != limit => {
            let detail = format!("must be equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(requests.path(), request.to_string(), &detail));
        }
        Some(limit) if overcommit && request > limit => {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(requests.path(), request.to_string(), &detail));
        }
        None if !overcommit => {
            errors.push(limits.required("Limit must be set for non overcommitable resources"));
        }
        _ => {}
    }
}

fn resource(name: &str, amount: View, errors: &mut Errors) {
    let complaints = names::qualified(name);
    errors.extend(complaints.iter().map(|c| FieldError::invalid(amount.path(), name, c)));
    if !name.contains('/') && complaints.is_empty() {
        let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if !standard {
            let known = matches!(
                name,
                "storage"
                    | "pods"
                    | "services"
                    | "secrets"
                    | "configmaps"
                    | "replicationcontrollers"
                    | "resourcequotas"
            );
            if !known {
                let detail = "must be a standard resource type or fully qualified";
                errors.push(FieldError::invalid(amount.path(), name, detail));
            }
            errors.push(FieldError::invalid(amount.path(), name, "must be a standard resource for containers"));
        }
    }
    if let Some(amount_value) = quantity(amount, errors) {
        let extended = name.contains('/') || name.starts_with("hugepages-") || name == "pods";
        if extended && !amount_value.is_integer() {
            errors.push(FieldError::invalid(amount.path(), amount_value.to_string(), "must be an integer"));
        }
    }
}

/// A quantity that is not negative.
pub(crate) fn quantity(view: View, errors: &mut Errors) -> Option<Quantity> {
    match Quantity::from_value(view.value) {
        Ok(amount) if amount.is_negative() => {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(view.path(), amount.to_string(), detail));
            None
        }
        Ok(amount) => Some(amount),
        Err(error) => {
            errors.push(view.invalid(&error.to_string()));
            None
        }
    }
}
