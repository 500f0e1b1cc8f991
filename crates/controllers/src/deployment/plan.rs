//! One look at a Deployment and its ReplicaSets, and everything to be done about them now.
//!
//! The plan works on copies: each ReplicaSet as it should be, to be written if it differs. What upstream does in several
//! writes (annotations, then scale) is thus one.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::{revision, rollout, status};
use crate::common::objects::{is_deleting, name, uid};

/// What the plan is made from.
pub struct Observed<'a> {
    pub deployment: &'a Deployment,
    /// The Deployment's own.
    pub replicasets: &'a [&'a ReplicaSet],
    /// Pods that have not finished, by the uid of their ReplicaSet; needed for strategy `Recreate` only.
    pub unfinished_pods: &'a HashMap<String, usize>,
    pub now: Timestamp,
}

/// What to do, in this order.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be made, complete; its name may be taken (then count a collision).
    pub create: Option<Box<ReplicaSet>>,
    /// As they should be; those that differ from what was observed are to be written.
    pub update: Vec<ReplicaSet>,
    /// `ScalingReplicaSet` messages, by ReplicaSet name, for the writes that succeed.
    pub scaled: Vec<(String, String)>,
    /// Superfluous history.
    pub delete: Vec<ReplicaSet>,
    /// The Deployment's revision annotation.
    pub revision: Option<String>,
    /// The status to be written if it differs.
    pub status: DeploymentStatus,
    /// Look again, because the progress deadline will have passed.
    pub again: Option<Duration>,
}

/// A ReplicaSet under consideration.
pub(super) struct Set {
    /// As it should be.
    pub wanted: ReplicaSet,
    /// Whether it has yet to be made.
    pub is_new: bool,
}

/// The ReplicaSet of the current template, and those of earlier ones (oldest first).
pub(super) struct Sets {
    pub new: Option<Set>,
    pub old: Vec<Set>,
    pub scaled: Vec<(String, String)>,
}

impl Sets {
    pub(super) fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.new.iter().chain(&self.old).map(|set| &set.wanted)
    }
}

pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Decides.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let deployment = observed.deployment;
    let Some(spec) = &deployment.spec else { return Plan::default() };
    let mut current = deployment.status.clone().unwrap_or_default();
    let mut sets = revision::sort(deployment, observed.replicasets);
    let paused = spec.paused.unwrap_or(false);
    let mut delete = Vec::new();
    let mut revision = None;
    let mut again = None;

    if is_deleting(&deployment.metadata) {
        let status = status::calculate(deployment, &sets, &current, observed.now);
        return Plan { status, ..Plan::default() };
    }
    status::note_pause(deployment, &mut current, observed.now);
    let only_scale = paused || rollout::is_scaling(deployment, &sets);
    if only_scale {
        revision::refresh(deployment, &mut sets, false, &mut current, &mut revision, observed.now);
        rollout::scale(deployment, &mut sets);
        if paused {
            delete = revision::surplus(deployment, &sets);
        }
        // As upstream, a change of scale says nothing of progress.
        let status = status::calculate(deployment, &sets, &current, observed.now);
        return finish(sets, delete, revision, status, None);
    }
    let recreate = rollout::is_recreate(deployment);
    let mut settled = true;
    if recreate {
        revision::refresh(deployment, &mut sets, false, &mut current, &mut revision, observed.now);
        settled = !rollout::stop_old(deployment, &mut sets);
        if settled && old_pods_running(&sets, observed) {
            settled = false;
        } else if settled {
            revision::refresh(deployment, &mut sets, true, &mut current, &mut revision, observed.now);
            settled = !rollout::scale_new(deployment, &mut sets);
        }
    } else {
        revision::refresh(deployment, &mut sets, true, &mut current, &mut revision, observed.now);
        if rollout::scale_new(deployment, &mut sets) || rollout::scale_old(deployment, &mut sets) {
            settled = false;
        }
    }
    if settled && status::is_complete(deployment, &status::calculate(deployment, &sets, &current, observed.now)) {
        delete = revision::surplus(deployment, &sets);
    }
    let status = status::progress(deployment, &sets, &current, observed.now, &mut again);
    finish(sets, delete, revision, status, again)
}

fn finish(
    sets: Sets,
    delete: Vec<ReplicaSet>,
    revision: Option<String>,
    status: DeploymentStatus,
    again: Option<Duration>,
) -> Plan {
    let mut plan = Plan { delete, revision, status, again, scaled: sets.scaled, ..Plan::default() };
    for set in sets.new.into_iter().chain(sets.old) {
        if set.is_new {
            plan.create = Some(Box::new(set.wanted));
        } else if !plan.delete.iter().any(|gone| name(&gone.metadata) == name(&set.wanted.metadata)) {
            plan.update.push(set.wanted);
        }
    }
    plan
}

/// Whether pods of earlier templates have yet to end: `Recreate` starts no new ones before.
fn old_pods_running(sets: &Sets, observed: &Observed<'_>) -> bool {
    let counted = sets.old.iter().any(|set| set.wanted.status.as_ref().is_some_and(|status| status.replicas > 0));
    let unfinished =
        |set: &Set| observed.unfinished_pods.get(uid(&set.wanted.metadata)).is_some_and(|count| *count > 0);
    counted || sets.old.iter().any(unfinished)
}

#[cfg(test)]
mod tests;
