//! `discovery.k8s.io/v1`

use crate::kind::Kind;

mod endpoint_slice;

pub(super) fn all() -> Vec<Kind> {
    vec![endpoint_slice::kind()]
}
