//! `scheduling.k8s.io/v1`

use crate::kind::Kind;

mod priority_class;

pub(super) fn all() -> Vec<Kind> {
    vec![priority_class::kind()]
}
