//! MutatingAdmissionPolicy: v1beta1, behind a feature gate, as in upstream's v1.35.

use serde_json::{Value, json};

use super::validating_admission_policy::{param_kind_column, validate_matching, validate_variable};
use super::{CATEGORY, GROUP, expression, matching};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{child, make, set};
use crate::kinds::print::{age, size};
use crate::status::FieldError;
use crate::validation::{Errors, View, one_of};

/// Upstream's name, also for the bindings.
pub(super) const GATE: &str = "MutatingAdmissionPolicy";

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1beta1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", &MutatingAdmissionPolicy)
        .gate(GATE)
        .category(CATEGORY)
        .columns(vec![
            Column::integer("Mutations", "How many changes it makes.", |object, _| {
                json!(size(&object["spec"]["mutations"]))
            }),
            param_kind_column(),
            age(),
        ])
}

#[derive(Debug)]
struct MutatingAdmissionPolicy;

impl Strategy for MutatingAdmissionPolicy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) else { return };
        set(spec, "failurePolicy", "Fail");
        if let Some(constraints) = child(spec, "matchConstraints") {
            matching::default_resources(constraints);
        }
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        validate_matching(spec, &mut errors);
        expression::conditions(spec.get("matchConditions"), &mut errors);
        for variable in spec.get("variables").items() {
            validate_variable(variable, &mut errors);
        }
        let mutations = spec.get("mutations");
        if mutations.is_empty() {
            errors.push(mutations.required("mutations must contain at least one item"));
        }
        for mutation in mutations.items() {
            validate_mutation(mutation, &mut errors);
        }
        let again = spec.get("reinvocationPolicy");
        if again.is_empty() {
            errors.push(again.required(""));
        } else {
            one_of(again, &["IfNeeded", "Never"], &mut errors);
        }
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

fn validate_mutation(mutation: View, errors: &mut Errors) {
    let patch_type = mutation.get("patchType");
    if patch_type.is_empty() {
        errors.push(patch_type.required(""));
        return;
    }
    for (name, field) in [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")] {
        let holder = mutation.get(field);
        match (patch_type.str() == name, holder.is_set()) {
            (true, true) => expression::check(holder.get("expression"), "expression is not specified", errors),
            (true, false) => {
                errors.push(holder.required(&format!("must be specified when patchType is {name}")));
            }
            (false, true) => {
                errors.push(holder.forbidden(&format!("must not be specified when patchType is {}", patch_type.str())));
            }
            (false, false) => {}
        }
    }
    one_of(patch_type, &["ApplyConfiguration", "JSONPatch"], errors);
}
