//! `policy/v1`: disruption budgets, and the body of the eviction subresource.

use crate::kind::Kind;

mod eviction;
mod pod_disruption_budget;

pub use pod_disruption_budget::disrupt as eviction_rules;

pub(super) fn all() -> Vec<Kind> {
    vec![pod_disruption_budget::kind()]
}

pub(super) fn bodies() -> Vec<Kind> {
    vec![eviction::kind()]
}
