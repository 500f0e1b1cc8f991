//! Role

use serde_json::Value;

use super::{GROUP, validate_rules};
use crate::kind::{Kind, NameRule, Strategy, Write};
use crate::kinds::prepare_plain;
use crate::kinds::print::created_at;
use crate::status::FieldError;
use crate::validation::View;

pub(crate) fn kind() -> Kind {
    Kind::namespaced(GROUP, "v1", "Role", "roles", &Role).columns(vec![created_at()])
}

#[derive(Debug)]
struct Role;

impl Strategy for Role {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_rules(View::root(object).get("rules"), true, &mut errors);
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn create_on_update(&self) -> bool {
        true
    }
}
