//! `coordination.k8s.io/v1`

use crate::kind::Kind;

mod lease;

pub(super) fn all() -> Vec<Kind> {
    vec![lease::kind()]
}
