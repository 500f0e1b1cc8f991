//! `policy/v1`: only the body of the eviction subresource as yet.

use crate::kind::Kind;

mod eviction;

pub(super) fn bodies() -> Vec<Kind> {
    vec![eviction::kind()]
}
