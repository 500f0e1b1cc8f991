//! `admissionregistration.k8s.io`: webhooks and policies, and what they match.

use crate::kind::Kind;

mod expression;
mod matching;
mod mutating_admission_policy;
mod mutating_admission_policy_binding;
mod mutating_webhook_configuration;
#[cfg(test)]
mod tests;
mod validating_admission_policy;
mod validating_admission_policy_binding;
mod validating_webhook_configuration;
mod webhook;

const GROUP: &str = "admissionregistration.k8s.io";
const CATEGORY: &str = "api-extensions";

pub(super) fn all() -> Vec<Kind> {
    vec![
        mutating_webhook_configuration::kind(),
        validating_admission_policy::kind(),
        validating_admission_policy_binding::kind(),
        validating_webhook_configuration::kind(),
        mutating_admission_policy::kind(),
        mutating_admission_policy_binding::kind(),
    ]
}
