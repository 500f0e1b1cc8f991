//! Rules of `metav1.Condition` lists.

use std::collections::HashSet;

use super::{Errors, View, names, one_of};

const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// Each type once; every field is as it must be.
pub fn validate(conditions: View, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for condition in conditions.items() {
        let kind = condition.get("type");
        if !seen.insert(kind.str().to_owned()) {
            errors.push(kind.duplicate());
        }
        errors.extend(names::qualified(kind.str()).iter().map(|complaint| kind.invalid_str(complaint)));
        one_of(condition.get("status"), &["False", "True", "Unknown"], errors);
        let generation = condition.get("observedGeneration");
        if generation.int().is_some_and(|n| n < 0) {
            errors.push(generation.invalid("must be greater than or equal to zero"));
        }
        if !condition.get("lastTransitionTime").is_set() {
            errors.push(condition.get("lastTransitionTime").required("must be set"));
        }
        let (reason, message) = (condition.get("reason"), condition.get("message"));
        if reason.is_empty() {
            errors.push(reason.required("must be set"));
        } else {
            if !is_reason(reason.str()) {
                errors.push(reason.invalid(REASON));
            }
            if reason.len() > 1024 {
                errors.push(reason.too_long(1024));
            }
        }
        if message.len() > 32 * 1024 {
            errors.push(message.too_long(32 * 1024));
        }
    }
}

fn is_reason(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| first.is_ascii_alphabetic() && (last.is_ascii_alphanumeric() || *last == b'_'))
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_,:".contains(b))
}
