//! `node.k8s.io/v1`

use crate::kind::Kind;

mod runtime_class;
#[cfg(test)]
mod tests;

pub(super) fn all() -> Vec<Kind> {
    vec![runtime_class::kind()]
}
