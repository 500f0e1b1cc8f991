//! `autoscaling`: the autoscaler in `v2` and `v1`, and the body of the scale subresource.

use crate::kind::Kind;

mod horizontal_pod_autoscaler;
mod scale;

pub(super) fn all() -> Vec<Kind> {
    horizontal_pod_autoscaler::kinds()
}

pub(super) fn bodies() -> Vec<Kind> {
    vec![scale::kind()]
}
