//! `authorization.k8s.io/v1`, and the rules its reviews share.

use serde_json::Value;

use crate::kind::{Kind, Strategy, Write};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, labels, names};

mod local_subject_access_review;
mod self_subject_access_review;
mod self_subject_rules_review;
mod subject_access_review;

pub(super) fn all() -> Vec<Kind> {
    vec![
        local_subject_access_review::kind(),
        self_subject_access_review::kind(),
        self_subject_rules_review::kind(),
        subject_access_review::kind(),
    ]
}

/// What a review may say about whose access is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// The spec names a user or groups.
    Named,
    /// As `Named`, about one namespace only.
    NamedInNamespace,
    /// Whoever asks.
    Asker,
}

impl Strategy for Subject {
    fn prepare(&self, object: &mut Value, _write: Write<'_>) {
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        let (resource, path) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
        let fault = |view: View, detail: &str| FieldError::invalid(view.path(), "", detail);
        match (resource.is_set(), path.is_set()) {
            (true, true) => errors.push(fault(path, "cannot be specified in combination with resourceAttributes")),
            (false, false) => errors
                .push(fault(resource, "exactly one of nonResourceAttributes or resourceAttributes must be specified")),
            _ => {}
        }
        if *self != Self::Asker && spec.get("user").is_empty() && spec.get("groups").is_empty() {
            errors.push(fault(spec.get("user"), "at least one of user or group must be specified"));
        }
        for selector in ["fieldSelector", "labelSelector"] {
            validate_selector(resource.get(selector), selector == "labelSelector", &mut errors);
        }
        if *self == Self::NamedInNamespace {
            let namespace = resource.get("namespace");
            if resource.is_set() && object["metadata"]["namespace"].as_str().unwrap_or_default() != namespace.str() {
                errors.push(namespace.invalid_str("must match metadata.namespace"));
            }
            if path.is_set() {
                errors.push(path.invalid("disallowed on this kind of request"));
            }
        }
        no_metadata(root, *self == Self::NamedInNamespace, &mut errors);
        errors
    }
}

/// What a list, watch or delete of many is narrowed to. Operators of newer clients are let through.
fn validate_selector(selector: View, of_labels: bool, errors: &mut Errors) {
    if !selector.is_set() {
        return;
    }
    let (raw, requirements) = (selector.get("rawSelector"), selector.get("requirements"));
    if !raw.is_empty() && !requirements.is_empty() {
        errors.push(raw.invalid("may not specified at the same time as requirements"));
    }
    if raw.is_empty() && requirements.is_empty() {
        let detail = format!("when {selector} is specified, requirements or rawSelector is required");
        errors.push(requirements.required(&detail));
    }
    for requirement in requirements.items() {
        let key = requirement.get("key");
        if !of_labels && key.is_empty() {
            errors.push(key.required("must be specified"));
        }
        labels::validate_values(requirement, errors);
        if of_labels {
            checked(key, names::qualified, errors);
            requirement.get("values").items().for_each(|value| checked(value, names::label_value, errors));
        }
    }
}

/// Reviews are nobody's objects: they have no name, labels, …
fn no_metadata(root: View, namespaced: bool, errors: &mut Errors) {
    let metadata = root.get("metadata");
    let named = |(key, value): (&str, View)| {
        let allowed = key == "managedFields" || key == "creationTimestamp" || (namespaced && key == "namespace");
        !allowed && !value.is_empty()
    };
    if metadata.entries().any(named) {
        let detail = if namespaced { "must be empty except for namespace" } else { "must be empty" };
        errors.push(metadata.invalid(detail));
    }
}
