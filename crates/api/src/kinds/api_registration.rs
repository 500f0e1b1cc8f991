//! `apiregistration.k8s.io/v1`

use crate::kind::Kind;

mod api_service;
#[cfg(test)]
mod tests;

pub use api_service::{local_priority, local_services};

pub(super) fn all() -> Vec<Kind> {
    vec![api_service::kind()]
}
