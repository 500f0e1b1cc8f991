//! ValidatingAdmissionPolicyBinding

use std::collections::HashSet;

use serde_json::Value;

use super::{CATEGORY, GROUP, matching};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::child;
use crate::kinds::print::{age, or};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, labels, names, one_of};

const EITHER: &str = "name and selector are mutually exclusive";

pub(crate) fn kind() -> Kind {
    Kind::cluster(
        GROUP,
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        &ValidatingAdmissionPolicyBinding,
    )
    .category(CATEGORY)
    .columns(binding_columns())
}

/// Columns of both kinds of bindings.
pub(super) fn binding_columns() -> Vec<Column> {
    vec![
        Column::string("PolicyName", "The policy it puts to work.", |object, _| or(&object["spec"]["policyName"], "")),
        Column::string("ParamRef", "The policy's parameters.", |object, _| {
            matching::param_text(&object["spec"]["paramRef"]).into()
        }),
        age(),
    ]
}

#[derive(Debug)]
struct ValidatingAdmissionPolicyBinding;

impl Strategy for ValidatingAdmissionPolicyBinding {
    fn default(&self, object: &mut Value) {
        default_binding(object);
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = validate_binding(object);
        let root = View::root(object);
        validate_actions(root.get("spec").get("validationActions"), &mut errors);
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

/// Defaults of both kinds of bindings.
pub(super) fn default_binding(object: &mut Value) {
    let spec = object.as_object_mut().and_then(|object| child(object, "spec"));
    if let Some(resources) = spec.and_then(|spec| child(spec, "matchResources")) {
        matching::default_resources(resources);
    }
}

/// What both kinds of bindings must say.
pub(super) fn validate_binding(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let root = View::root(object);
    let spec = root.get("spec");
    let policy = spec.get("policyName");
    if policy.is_empty() {
        errors.push(policy.required(""));
    } else {
        checked(policy, names::subdomain, &mut errors);
    }
    let reference = spec.get("paramRef");
    if reference.is_set() {
        validate_reference(reference, &mut errors);
    }
    if spec.get("matchResources").is_set() {
        // Upstream leaves out a letter.
        let resources = View::at("spec.matchResouces", &object["spec"]["matchResources"]);
        matching::resources(resources, &mut errors);
    }
    errors
}

fn validate_reference(reference: View, errors: &mut Errors) {
    let (name, selector) = (reference.get("name"), reference.get("selector"));
    if !name.is_empty() {
        checked(name, names::path_segment, errors);
        if selector.is_set() {
            errors.push(name.forbidden(EITHER));
        }
    }
    if selector.is_set() {
        labels::validate_selector(selector, errors);
        if !name.is_empty() {
            errors.push(selector.forbidden(EITHER));
        }
    }
    if name.is_empty() && !selector.is_set() {
        errors.push(reference.required("one of name or selector must be specified"));
    }
    let action = reference.get("parameterNotFoundAction");
    if action.is_empty() {
        errors.push(action.required(""));
    } else {
        one_of(action, &["Deny", "Allow"], errors);
    }
}

fn validate_actions(actions: View, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for action in actions.items() {
        one_of(action, &["Audit", "Deny", "Warn"], errors);
        if !seen.insert(action.str()) {
            errors.push(action.duplicate());
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        errors.push(actions.invalid("must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"));
    }
    if seen.is_empty() {
        errors.push(actions.required("at least one validation action is required"));
    }
}
