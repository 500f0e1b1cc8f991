//! Labels, annotations and label selectors: validation, matching and text.

use serde_json::{Map, Value};

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
        let values = requirement.get("values");
        match requirement.get("operator").str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(requirement.get("operator").invalid_str("not a valid selector operator")),
        }
        let key = requirement.get("key");
        errors.extend(names::qualified(key.str()).iter().map(|complaint| key.invalid_str(complaint)));
        for value in values.items() {
            errors.extend(names::label_value(value.str()).iter().map(|complaint| value.invalid_str(complaint)));
        }
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

fn is_empty(selector: &Value) -> bool {
    let none = |key| View::root(selector).get(key).is_empty();
    none("matchLabels") && none("matchExpressions")
}

/// Whether a `LabelSelector` selects `labels`. An empty one selects everything; a missing one nothing.
pub fn matches(selector: &Value, labels: &Value) -> bool {
    if selector.is_null() {
        return false;
    }
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    exact.into_iter().all(|(key, value)| label(key) == value.as_str())
        && expressions.into_iter().all(|expression| {
            let value = label(expression["key"].as_str().unwrap_or_default());
            let among = || {
                let values = expression["values"].as_array().into_iter().flatten();
                value.is_some_and(|value| values.into_iter().any(|v| v.as_str() == Some(value)))
            };
            match expression["operator"].as_str() {
                Some("In") => among(),
                Some("NotIn") => !among(),
                Some("Exists") => value.is_some(),
                Some("DoesNotExist") => value.is_none(),
                _ => false,
            }
        })
}

/// A plain label map as text: `app=web,tier=front`.
pub fn format_map(labels: Option<&Map<String, Value>>) -> String {
    let pairs = labels.into_iter().flatten();
    pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",")
}

/// A `LabelSelector` as text (`app=web,tier in (a,b)`), with requirements sorted by key as upstream prints them.
pub fn format_selector(selector: &Value) -> String {
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let mut terms: Vec<(&str, String)> =
        exact.map(|(key, value)| (key.as_str(), format!("{key}={}", value.as_str().unwrap_or_default()))).collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        terms.push((
            key,
            match expression["operator"].as_str() {
                Some("In") => format!("{key} in ({values})"),
                Some("NotIn") => format!("{key} notin ({values})"),
                Some("DoesNotExist") => format!("!{key}"),
                _ => key.to_string(),
            },
        ));
    }
    terms.sort_by_key(|(key, _)| *key);
    terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().join(",")
}
