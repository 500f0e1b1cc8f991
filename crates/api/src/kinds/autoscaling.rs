//! `autoscaling/v1`: only the body of the scale subresource as yet.

use crate::kind::Kind;

mod scale;

pub(super) fn bodies() -> Vec<Kind> {
    vec![scale::kind()]
}
