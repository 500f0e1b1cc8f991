//! ValidatingAdmissionPolicy

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{CATEGORY, GROUP, expression, matching};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{child, make, set};
use crate::kinds::print::{age, size};
use crate::status::FieldError;
use crate::validation::{Errors, View, conditions, names, one_of};

const MAX_ANNOTATIONS: usize = 20;
const MAX_ANNOTATION_EXPRESSION_BYTES: usize = 5 * 1024;
const NOTHING_TO_DO: &str = "validations or auditAnnotations must contain at least one item";

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", &ValidatingAdmissionPolicy)
        .category(CATEGORY)
        .with_status()
        .columns(vec![
            Column::integer("Validations", "How many rules it has.", |object, _| {
                json!(size(&object["spec"]["validations"]))
            }),
            param_kind_column(),
            age(),
        ])
}

pub(super) fn param_kind_column() -> Column {
    Column::string("ParamKind", "The kind of its parameters.", |object, _| {
        let kind = &object["spec"]["paramKind"];
        let text = |field: &str| kind[field].as_str().unwrap_or_default();
        if kind.is_null() { "<unset>".into() } else { format!("{}/{}", text("apiVersion"), text("kind")).into() }
    })
}

#[derive(Debug)]
struct ValidatingAdmissionPolicy;

impl Strategy for ValidatingAdmissionPolicy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) else { return };
        set(spec, "failurePolicy", "Fail");
        if let Some(constraints) = child(spec, "matchConstraints") {
            matching::default_resources(constraints);
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        if let Write::Subresource("status", _) = write {
            validate_status(root.get("status"), &mut errors);
            return errors;
        }
        let spec = root.get("spec");
        validate_matching(spec, &mut errors);
        expression::conditions(spec.get("matchConditions"), &mut errors);
        for variable in spec.get("variables").items() {
            validate_variable(variable, &mut errors);
        }
        let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
        if validations.is_empty() && annotations.is_empty() {
            errors.push(validations.required(NOTHING_TO_DO));
            errors.push(annotations.required(NOTHING_TO_DO));
        }
        for validation in validations.items() {
            validate_validation(validation, &mut errors);
        }
        let metadata = root.get("metadata");
        validate_annotations(annotations, metadata.get("name").str(), &mut errors);
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

/// What both kinds of policies say of what they are about.
pub(super) fn validate_matching(spec: View, errors: &mut Errors) {
    matching::failure_policy(spec.get("failurePolicy"), errors);
    let kind = spec.get("paramKind");
    if kind.is_set() {
        matching::param_kind(kind, errors);
    }
    let constraints = spec.get("matchConstraints");
    if constraints.is_set() {
        matching::resources(constraints, errors);
        let rules = constraints.get("resourceRules");
        if rules.is_empty() {
            errors.push(rules.required(""));
        }
    } else {
        errors.push(constraints.required(""));
    }
}

pub(super) fn validate_variable(variable: View, errors: &mut Errors) {
    let name = variable.get("name");
    if name.str().trim().is_empty() {
        errors.push(name.required("name is not specified"));
    } else if !expression::is_identifier(name.str()) {
        errors.push(name.invalid("name is not a valid CEL identifier"));
    }
    expression::check(variable.get("expression"), "expression is not specified", errors);
}

fn validate_validation(validation: View, errors: &mut Errors) {
    expression::check(validation.get("expression"), "expression is not specified", errors);
    let computed = validation.get("messageExpression");
    if !computed.is_empty() {
        if computed.str().trim().is_empty() {
            errors.push(computed.invalid("must be non-empty if specified"));
        } else {
            expression::check(computed, "", errors);
        }
    }
    let message = validation.get("message");
    let trimmed = message.str().trim();
    if !message.is_empty() && trimmed.is_empty() {
        errors.push(message.invalid("message must be non-empty if specified"));
    } else if trimmed.contains(['\n', '\r']) {
        errors.push(message.invalid("message must not contain line breaks"));
    }
    let reason = validation.get("reason");
    if reason.is_set() {
        one_of(reason, &["Forbidden", "Invalid", "RequestEntityTooLarge"], errors);
    }
}

fn validate_annotations(annotations: View, policy: &str, errors: &mut Errors) {
    if annotations.len() > MAX_ANNOTATIONS {
        errors.push(annotations.invalid(&format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations")));
    }
    let mut seen = HashSet::new();
    for annotation in annotations.items() {
        let (key, value) = (annotation.get("key"), annotation.get("valueExpression"));
        if policy.is_empty() {
            errors.push(key.invalid_str("requires metadata.name be non-empty"));
        } else {
            let full = format!("{policy}/{}", key.str());
            let complaints = names::qualified(&full);
            errors.extend(complaints.iter().map(|why| FieldError::invalid(key.path(), full.as_str(), why)));
        }
        if value.str().trim().len() > MAX_ANNOTATION_EXPRESSION_BYTES {
            let detail = format!("must not exceed {MAX_ANNOTATION_EXPRESSION_BYTES} bytes in length");
            errors.push(value.required(&detail));
        } else {
            expression::check(value, "valueExpression is not specified", errors);
        }
        if !seen.insert(key.str()) {
            errors.push(FieldError::duplicate(key.path(), key.str()));
        }
    }
}

fn validate_status(status: View, errors: &mut Errors) {
    let checking = status.get("typeChecking");
    for warning in checking.get("expressionWarnings").items() {
        let (text, place) = (warning.get("warning"), warning.get("fieldRef"));
        if text.is_empty() {
            errors.push(text.required(""));
        }
        if place.str().trim().is_empty() {
            errors.push(place.required(""));
        }
    }
    conditions::validate(status.get("conditions"), errors);
}
