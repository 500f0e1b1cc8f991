//! A Deployment's status and conditions.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Sets, replicas};
use super::rollout;
use crate::common::objects::name;

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";

const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

fn condition<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

fn set(status: &mut DeploymentStatus, type_: &str, value: &str, reason: &str, message: String, now: Timestamp) {
    let known = condition(status, type_);
    if known.is_some_and(|known| known.status == value && known.reason.as_deref() == Some(reason)) {
        return;
    }
    let since = known.filter(|known| known.status == value).and_then(|known| known.last_transition_time.clone());
    remove(status, type_);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: type_.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(since.unwrap_or(Time(now))),
    });
}

/// Seconds; `None` when progress is not watched.
fn deadline(deployment: &Deployment) -> Option<i64> {
    let seconds = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600);
    (seconds != i32::MAX).then_some(seconds.into())
}

/// Pausing stops the clock of the deadline, resuming starts it anew.
pub(super) fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if deadline(deployment).is_none() {
        return;
    }
    let reason = condition(status, PROGRESSING).and_then(|condition| condition.reason.as_deref());
    if reason == Some(TIMED_OUT) {
        return;
    }
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false);
    match (paused, reason == Some(PAUSED)) {
        (true, false) => set(status, PROGRESSING, "Unknown", PAUSED, "Deployment is paused".into(), now),
        (false, true) => {
            set(status, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into(), now);
        }
        _ => {}
    }
}

/// The template has a ReplicaSet already and nothing was said of progress yet.
pub(super) fn note_found(deployment: &Deployment, status: &mut DeploymentStatus, set_name: &str, now: Timestamp) {
    if deadline(deployment).is_some() && condition(status, PROGRESSING).is_none() {
        set(status, PROGRESSING, "True", "FoundNewReplicaSet", format!("Found new replica set {set_name:?}"), now);
    }
}

/// The template's ReplicaSet is being made.
pub(super) fn note_created(deployment: &Deployment, status: &mut DeploymentStatus, set_name: &str, now: Timestamp) {
    if deadline(deployment).is_some() {
        set(status, PROGRESSING, "True", "NewReplicaSetCreated", format!("Created new replica set {set_name:?}"), now);
    }
}

/// The template's ReplicaSet could not be made.
pub(super) fn note_create_failed(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    message: &str,
    now: Timestamp,
) {
    if deadline(deployment).is_some() {
        set(status, PROGRESSING, "False", "ReplicaSetCreateError", message.into(), now);
    }
}

/// Counts, and whether enough is available.
pub(super) fn calculate(
    deployment: &Deployment,
    sets: &Sets,
    current: &DeploymentStatus,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |count: fn(&ReplicaSet) -> i32| sets.all().map(count).fold(0, i32::saturating_add);
    let status_replicas = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let replicas_now = sum(|set| set.status.as_ref().map_or(0, |status| status.replicas));
    let ready = sum(|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0));
    let available = sum(rollout::available);
    let updated = sets.new.as_ref().map_or(0, |set| status_replicas(&set.wanted));
    let terminating: Vec<i32> =
        sets.all().filter_map(|set| set.status.as_ref().and_then(|status| status.terminating_replicas)).collect();
    let shown = |count: i32| (count != 0).then_some(count);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: shown(replicas_now),
        updated_replicas: shown(updated),
        ready_replicas: shown(ready),
        available_replicas: shown(available),
        unavailable_replicas: shown((total(sets) - available).max(0)),
        terminating_replicas: (!terminating.is_empty()).then(|| terminating.iter().sum()),
        collision_count: current.collision_count,
        conditions: current.conditions.clone(),
    };
    let enough = available >= replicas(deployment) - rollout::max_unavailable(deployment);
    if enough {
        let message = "Deployment has minimum availability.".into();
        set(&mut status, AVAILABLE, "True", "MinimumReplicasAvailable", message, now);
    } else {
        let message = "Deployment does not have minimum availability.".into();
        set(&mut status, AVAILABLE, "False", "MinimumReplicasUnavailable", message, now);
    }
    status
}

fn total(sets: &Sets) -> i32 {
    sets.all().map(rollout::size).fold(0, i32::saturating_add)
}

/// Whether all that was asked for is there, updated and available, and nothing else.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = replicas(deployment);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// The status with the `Progressing` and `ReplicaFailure` conditions, and when to look at the deadline again.
pub(super) fn progress(
    deployment: &Deployment,
    sets: &Sets,
    current: &DeploymentStatus,
    now: Timestamp,
    again: &mut Option<Duration>,
) -> DeploymentStatus {
    let mut status = calculate(deployment, sets, current, now);
    let subject = match &sets.new {
        Some(set) => format!("ReplicaSet {:?}", name(&set.wanted.metadata)),
        None => format!("Deployment {:?}", name(&deployment.metadata)),
    };
    match deadline(deployment) {
        None => remove(&mut status, PROGRESSING),
        Some(seconds) => {
            let known = condition(current, PROGRESSING).cloned();
            let was_complete = current.replicas.unwrap_or(0) == current.updated_replicas.unwrap_or(0)
                && known.as_ref().is_some_and(|known| known.reason.as_deref() == Some(NEW_AVAILABLE));
            if was_complete {
            } else if is_complete(deployment, &status) {
                let message = format!("{subject} has successfully progressed.");
                set(&mut status, PROGRESSING, "True", NEW_AVAILABLE, message, now);
            } else if has_progressed(current, &status) {
                // Each step moves the time from which the deadline counts.
                let since = known.filter(|known| known.status == "True").and_then(|known| known.last_transition_time);
                remove(&mut status, PROGRESSING);
                status.conditions.get_or_insert_default().push(DeploymentCondition {
                    type_: PROGRESSING.into(),
                    status: "True".into(),
                    reason: Some("ReplicaSetUpdated".into()),
                    message: Some(format!("{subject} is progressing.")),
                    last_update_time: Some(Time(now)),
                    last_transition_time: Some(since.unwrap_or(Time(now))),
                });
            } else if has_timed_out(&status, seconds, now) {
                let message = format!("{subject} has timed out progressing.");
                set(&mut status, PROGRESSING, "False", TIMED_OUT, message, now);
            }
            *again = next_look(deployment, &status, seconds, now);
        }
    }
    let failure = sets.new.iter().chain(&sets.old).find_map(|set| {
        let conditions = set.wanted.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == FAILURE)
    });
    match failure {
        Some(failure) => {
            let (reason, message) = (failure.reason.as_deref(), failure.message.clone());
            set(&mut status, FAILURE, &failure.status, reason.unwrap_or_default(), message.unwrap_or_default(), now);
        }
        None => remove(&mut status, FAILURE),
    }
    status
}

/// Whether more is updated, ready or available, or less is old, than before.
fn has_progressed(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let old = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    now.updated_replicas.unwrap_or(0) > before.updated_replicas.unwrap_or(0)
        || old(now) < old(before)
        || now.ready_replicas.unwrap_or(0) > before.ready_replicas.unwrap_or(0)
        || now.available_replicas.unwrap_or(0) > before.available_replicas.unwrap_or(0)
}

/// Whether nothing has happened for too long.
fn has_timed_out(status: &DeploymentStatus, seconds: i64, now: Timestamp) -> bool {
    let Some(known) = condition(status, PROGRESSING) else { return false };
    match known.reason.as_deref() {
        Some(NEW_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => known.last_update_time.as_ref().is_some_and(|time| now.duration_since(time.0).as_secs() > seconds),
    }
}

fn next_look(deployment: &Deployment, status: &DeploymentStatus, seconds: i64, now: Timestamp) -> Option<Duration> {
    let known = condition(status, PROGRESSING)?;
    if matches!(known.reason.as_deref(), Some(NEW_AVAILABLE | TIMED_OUT | PAUSED)) || is_complete(deployment, status) {
        return None;
    }
    let left = seconds - now.duration_since(known.last_update_time.as_ref()?.0).as_secs();
    // One second more, as times in conditions are cut to seconds.
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0) + 1))
}
