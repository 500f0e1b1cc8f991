//! `events.k8s.io/v1`

use crate::kind::Kind;

mod event;

pub(super) fn all() -> Vec<Kind> {
    vec![event::kind()]
}
