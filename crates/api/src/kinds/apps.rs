//! `apps/v1`

use crate::kind::Kind;

mod controller_revision;
mod deployment;
mod replica_set;

pub(super) fn all() -> Vec<Kind> {
    vec![controller_revision::kind(), deployment::kind(), replica_set::kind()]
}
