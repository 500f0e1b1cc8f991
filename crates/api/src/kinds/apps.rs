//! `apps/v1`

use crate::kind::Kind;
use crate::validation::{Errors, View};

mod controller_revision;
mod deployment;
mod replica_set;

pub(super) fn all() -> Vec<Kind> {
    vec![controller_revision::kind(), deployment::kind(), replica_set::kind()]
}

/// Status counts that cannot exceed `status.replicas`, and available pods that are all ready.
pub(super) fn within_replicas(status: View, fields: &[&'static str], errors: &mut Errors) {
    let replicas = status.get("replicas").int().unwrap_or(0);
    for field in fields {
        if status.get(field).int().unwrap_or(0) > replicas {
            errors.push(status.get(field).invalid("cannot be greater than status.replicas"));
        }
    }
    let (available, ready) = (status.get("availableReplicas"), status.get("readyReplicas"));
    if available.int().unwrap_or(0) > ready.int().unwrap_or(0) {
        errors.push(available.invalid("cannot be greater than readyReplicas"));
    }
}
