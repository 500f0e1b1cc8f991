//! `maxUnavailable` and its like: a number, or a percentage of something. Missing is the number 0.

use serde_json::Value;

use crate::validation::{Errors, View, names, non_negative};

/// Not below zero, or a percentage.
pub(super) fn validate(view: View, errors: &mut Errors) {
    match view.value {
        Value::String(text) => errors.extend(names::percent(text).iter().map(|complaint| view.invalid(complaint))),
        _ => non_negative(view, errors),
    }
}

/// The number, or that of the percentage.
pub(super) fn amount(view: View) -> i64 {
    match view.value {
        Value::String(text) => text.trim_end_matches('%').parse().unwrap_or(0),
        _ => view.int().unwrap_or(0),
    }
}

/// Not above 100 %; numbers may be.
pub(super) fn at_most_all(view: View, errors: &mut Errors) {
    if names::percent(view.str()).is_empty() && amount(view) > 100 {
        errors.push(view.invalid("must not be greater than 100%"));
    }
}

/// As a column shows it.
pub(super) fn text(value: &Value, missing: &str) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => missing.into(),
    }
}
