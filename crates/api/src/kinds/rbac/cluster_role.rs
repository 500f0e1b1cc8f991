//! ClusterRole

use serde_json::Value;

use super::{GROUP, validate_rules};
use crate::kind::{Kind, NameRule, Strategy, Write};
use crate::kinds::prepare_plain;
use crate::kinds::print::created_at;
use crate::status::FieldError;
use crate::validation::{View, labels};

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "ClusterRole", "clusterroles", &ClusterRole).columns(vec![created_at()])
}

#[derive(Debug)]
struct ClusterRole;

impl Strategy for ClusterRole {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        validate_rules(root.get("rules"), false, &mut errors);
        let aggregation = root.get("aggregationRule");
        if aggregation.is_set() {
            let selectors = aggregation.get("clusterRoleSelectors");
            if selectors.is_empty() {
                let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(selectors.required(detail));
            }
            for selector in selectors.items() {
                labels::validate_selector(selector, &mut errors);
            }
        }
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn create_on_update(&self) -> bool {
        true
    }
}
