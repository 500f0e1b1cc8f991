//! `apiextensions.k8s.io/v1`

use crate::kind::Kind;

mod custom_resource_definition;

pub use custom_resource_definition::{FINALIZER, accept, condition, set_condition};

pub(super) fn all() -> Vec<Kind> {
    vec![custom_resource_definition::kind()]
}
