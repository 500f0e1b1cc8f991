//! Lease

use serde_json::Value;

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, or};
use crate::status::FieldError;
use crate::validation::{View, checked, names, non_negative, positive};

pub(crate) fn kind() -> Kind {
    Kind::namespaced("coordination.k8s.io", "v1", "Lease", "leases", &Lease).columns(vec![
        Column::string("Holder", "Who holds it.", |object, _| or(&object["spec"]["holderIdentity"], "")),
        age(),
    ])
}

#[derive(Debug)]
struct Lease;

impl Strategy for Lease {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        positive(spec.get("leaseDurationSeconds"), &mut errors);
        non_negative(spec.get("leaseTransitions"), &mut errors);
        let (strategy, preferred) = (spec.get("strategy"), spec.get("preferredHolder"));
        if strategy.is_set() {
            checked(strategy, names::qualified, &mut errors);
        }
        if !preferred.is_empty() && strategy.is_empty() {
            errors.push(preferred.forbidden("may only be specified if `strategy` is defined"));
        }
        errors
    }
}
