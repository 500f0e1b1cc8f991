//! `authentication.k8s.io/v1`

use crate::kind::Kind;

mod self_subject_review;
mod token_request;
mod token_review;

pub(super) fn all() -> Vec<Kind> {
    vec![self_subject_review::kind(), token_review::kind()]
}

pub(super) fn bodies() -> Vec<Kind> {
    vec![token_request::kind()]
}
