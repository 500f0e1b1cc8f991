//! CEL expressions of webhooks and policies. All of them come through [`check`].

use std::collections::HashSet;

use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names};

const MAX_CONDITIONS: usize = 64;

/// An expression that must be there. `missing` is upstream's detail when it is not.
pub(super) fn check(expression: View, missing: &str, errors: &mut Errors) {
    if expression.str().trim().is_empty() {
        errors.push(expression.required(missing));
    }
}

/// `matchConditions`
pub(super) fn conditions(conditions: View, errors: &mut Errors) {
    if conditions.len() > MAX_CONDITIONS {
        errors.push(conditions.too_many(MAX_CONDITIONS));
    }
    let mut seen = HashSet::new();
    for condition in conditions.items() {
        check(condition.get("expression"), "", errors);
        let name = condition.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
            continue;
        }
        checked(name, names::qualified, errors);
        if !seen.insert(name.str()) {
            errors.push(FieldError::duplicate(name.path(), name.str()));
        }
    }
}

/// A name that expressions can use: an identifier of CEL that is not reserved.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !names::RESERVED_IN_EXPRESSIONS.contains(&name)
}
