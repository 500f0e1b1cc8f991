//! Rules of labels, annotations and label selectors. What a selector matches is in [`crate::selector`].

use serde_json::Value;

use super::{Errors, View, names, required};
use crate::status::FieldError;

/// Total size of keys and values of an object's annotations.
pub const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// Keys and values of a label map.
pub fn validate(labels: View, errors: &mut Errors) {
    for (key, value) in labels.entries() {
        let complaints = names::qualified(key);
        errors.extend(complaints.iter().map(|complaint| FieldError::invalid(labels.path(), key, complaint)));
        let complaints = names::label_value(value.str());
        errors.extend(complaints.iter().map(|complaint| FieldError::invalid(labels.path(), value.str(), complaint)));
    }
}

/// Keys and total size of an annotation map.
pub fn validate_annotations(annotations: View, errors: &mut Errors) {
    let mut total = 0;
    for (key, value) in annotations.entries() {
        // Upper case is let through in annotation keys.
        let complaints = names::qualified(&key.to_ascii_lowercase());
        errors.extend(complaints.iter().map(|complaint| FieldError::invalid(annotations.path(), key, complaint)));
        total += key.len() + value.len();
    }
    if total > MAX_ANNOTATIONS_BYTES {
        errors.push(annotations.too_long(MAX_ANNOTATIONS_BYTES));
    }
}

/// A `LabelSelector`.
pub fn validate_selector(selector: View, errors: &mut Errors) {
    validate(selector.get("matchLabels"), errors);
    for requirement in selector.get("matchExpressions").items() {
        let operator = requirement.get("operator");
        if !matches!(operator.str(), "In" | "NotIn" | "Exists" | "DoesNotExist") {
            errors.push(operator.invalid_str("not a valid selector operator"));
        }
        validate_values(requirement, errors);
        let key = requirement.get("key");
        errors.extend(names::qualified(key.str()).iter().map(|complaint| key.invalid_str(complaint)));
        for value in requirement.get("values").items() {
            errors.extend(names::label_value(value.str()).iter().map(|complaint| value.invalid_str(complaint)));
        }
    }
}

/// Whether a requirement has values as its operator needs them; operators that nobody knows may have any.
pub fn validate_values(requirement: View, errors: &mut Errors) {
    let values = requirement.get("values");
    match requirement.get("operator").str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        _ => {}
    }
}

/// A selector that must select something: not missing, not empty.
pub fn validate_required_selector(selector: View, what: &str, errors: &mut Errors) {
    if !selector.is_set() {
        required(selector, errors);
        return;
    }
    validate_selector(selector, errors);
    if is_empty(selector.value) {
        errors.push(selector.invalid(&format!("empty selector is invalid for {what}")));
    }
}

/// Whether a `LabelSelector` has no terms.
pub fn is_empty(selector: &Value) -> bool {
    let none = |key| View::root(selector).get(key).is_empty();
    none("matchLabels") && none("matchExpressions")
}
