//! MutatingAdmissionPolicyBinding

use serde_json::Value;

use super::mutating_admission_policy::GATE;
use super::validating_admission_policy_binding::{binding_columns, default_binding, validate_binding};
use super::{CATEGORY, GROUP};
use crate::kind::{Kind, Strategy, Write};
use crate::status::FieldError;

pub(crate) fn kind() -> Kind {
    Kind::cluster(
        GROUP,
        "v1beta1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        &MutatingAdmissionPolicyBinding,
    )
    .gate(GATE)
    .category(CATEGORY)
    .columns(binding_columns())
}

#[derive(Debug)]
struct MutatingAdmissionPolicyBinding;

impl Strategy for MutatingAdmissionPolicyBinding {
    fn default(&self, object: &mut Value) {
        default_binding(object);
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        validate_binding(object)
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}
