//! How many pods to make or which to delete, and the status that follows from the pods there are.

use std::cmp::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::common::objects::{annotation, created, uid};
use crate::common::pods;

/// Most creates or deletes of one sync.
pub const BURST: usize = 500;
/// `controller.kubernetes.io/pod-deletion-cost`: lower goes first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What to do about the number of pods.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    None,
    Create(usize),
    /// Indexes into the pods given, first to go first.
    Delete(Vec<usize>),
}

/// An active pod, and how many active pods of related owners share its node.
pub struct Candidate<'a> {
    pub pod: &'a Pod,
    pub colocated: usize,
}

/// Compares what is with what should be.
pub fn plan(replicas: i32, active: &[Candidate<'_>], now: Timestamp) -> Action {
    let wanted = usize::try_from(replicas).unwrap_or(0);
    match active.len().cmp(&wanted) {
        Ordering::Equal => Action::None,
        Ordering::Less => Action::Create((wanted - active.len()).min(BURST)),
        Ordering::Greater => {
            let surplus = (active.len() - wanted).min(BURST);
            let mut order: Vec<usize> = (0..active.len()).collect();
            if surplus < active.len() {
                order.sort_by(|a, b| deletion_order(&active[*a], &active[*b], now));
            }
            order.truncate(surplus);
            Action::Delete(order)
        }
    }
}

/// `Less` goes first. Upstream's order: not placed, not running, not ready, cheaper, on fuller nodes, ready for less
/// long, restarted more, younger. Ages compare by order of magnitude, so that equals fall anywhere.
fn deletion_order(a: &Candidate<'_>, b: &Candidate<'_>, now: Timestamp) -> Ordering {
    let (x, y) = (a.pod, b.pod);
    pods::node(x)
        .is_some()
        .cmp(&pods::node(y).is_some())
        .then_with(|| phase_rank(x).cmp(&phase_rank(y)))
        .then_with(|| pods::is_ready(x).cmp(&pods::is_ready(y)))
        .then_with(|| deletion_cost(x).cmp(&deletion_cost(y)))
        .then_with(|| b.colocated.cmp(&a.colocated))
        .then_with(|| {
            let age = |pod| pods::ready_since(pod).filter(|_| pods::is_ready(pod));
            match (age(x), age(y)) {
                (Some(left), Some(right)) => magnitude(left, now).cmp(&magnitude(right, now)),
                _ => Ordering::Equal,
            }
        })
        .then_with(|| restarts(y).cmp(&restarts(x)))
        .then_with(|| {
            let age = |pod: &Pod| created(&pod.metadata).map_or(0, |time| magnitude(time, now));
            age(x).cmp(&age(y))
        })
        .then_with(|| uid(&x.metadata).cmp(uid(&y.metadata)))
}

fn phase_rank(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    annotation(&pod.metadata, DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// The age's binary logarithm in nanoseconds; younger is less.
fn magnitude(since: Timestamp, now: Timestamp) -> u32 {
    if since == Timestamp::MIN {
        return u32::MAX;
    }
    let nanoseconds = now.duration_since(since).as_nanos();
    u128::try_from(nanoseconds).ok().and_then(u128::checked_ilog2).unwrap_or(0)
}

/// The most restarts of any container.
fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    statuses.map(|container: &ContainerStatus| container.restart_count).max().unwrap_or(0)
}

/// The status of a ReplicaSet or ReplicationController; the two have the same fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    /// ReplicaSets only.
    pub terminating: Option<i32>,
    pub observed_generation: Option<i64>,
    /// The `ReplicaFailure` condition.
    pub failure: Option<Failure>,
}

/// The one condition there is: pods could not be created or deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`
    pub reason: String,
    pub message: String,
    pub since: Option<Time>,
}

/// What status is computed from.
pub struct Observed<'a> {
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub generation: Option<i64>,
    pub status: &'a Status,
    /// The template's labels: pods that carry them all are fully labeled.
    pub template_labels: &'a std::collections::BTreeMap<String, String>,
    pub active: &'a [&'a Pod],
    pub terminating: usize,
    /// What went wrong this time: the error's text.
    pub error: Option<String>,
}

/// The status now, and when a ready pod will next become available.
pub fn status(observed: &Observed<'_>, now: Timestamp) -> (Status, Option<Duration>) {
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let labeled = observed.active.iter().filter(|pod| {
        observed.template_labels.iter().all(|(key, value)| {
            pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|label| label == value)
        })
    });
    let waits: Vec<Duration> =
        observed.active.iter().filter_map(|pod| pods::available_in(pod, observed.min_ready_seconds, now)).collect();
    let failure = observed.error.clone().map(|message| {
        let reason = if observed.active.len() < usize::try_from(observed.replicas).unwrap_or(0) {
            "FailedCreate"
        } else {
            "FailedDelete"
        };
        match &observed.status.failure {
            Some(known) if known.reason == reason => known.clone(),
            _ => Failure { reason: reason.into(), message, since: Some(Time(now)) },
        }
    });
    let status = Status {
        replicas: count(observed.active.len()),
        fully_labeled: count(labeled.count()),
        ready: count(waits.len()),
        available: count(waits.iter().filter(|wait| wait.is_zero()).count()),
        terminating: Some(count(observed.terminating)),
        observed_generation: observed.generation.max(observed.status.observed_generation),
        failure,
    };
    (status, waits.into_iter().filter(|wait| !wait.is_zero()).min())
}

#[cfg(test)]
mod tests;
