//! `certificates.k8s.io/v1`

use crate::kind::Kind;

mod certificate_signing_request;
mod pem;
mod rules;
#[cfg(test)]
mod tests;

pub use pem::{SubjectNames, parse_request, request_der, requested_groups, subject_names};

pub(super) fn all() -> Vec<Kind> {
    vec![certificate_signing_request::kind()]
}
