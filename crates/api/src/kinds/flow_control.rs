//! `flowcontrol.apiserver.k8s.io/v1`

use std::collections::HashSet;

use crate::kind::Kind;
use crate::status::FieldError;
use crate::validation::{Errors, View};

mod defaults;
mod flow_schema;
mod policy_rule;
mod priority_level_configuration;
#[cfg(test)]
mod tests;

pub use defaults::{AUTO_UPDATE, mandatory, suggested};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

pub(super) fn all() -> Vec<Kind> {
    vec![flow_schema::kind(), priority_level_configuration::kind()]
}

/// `status.conditions` of both kinds.
fn validate_conditions(conditions: View, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for condition in conditions.items() {
        let kind = condition.get("type");
        if !seen.insert(kind.str()) {
            errors.push(FieldError::duplicate(kind.path(), kind.str()));
        }
        if kind.is_empty() {
            errors.push(kind.required("must not be empty"));
        }
    }
}
