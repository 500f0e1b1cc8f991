//! What to do next for one pod. Pure: the pod, what the runtime says, what is under way, what the probes say and the time
//! go in; actions and the next moment to look again come out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::backoff::Backoff;
use super::observed::{ContainerRecord, Observed, State};
use super::view;

/// Dead containers of one name that are kept besides the newest, for `logs --previous` and `lastState`.
const DEAD_KEPT: usize = 1;
/// The least grace that a container gets when its pod ends, seconds.
const LEAST_GRACE_SECONDS: i64 = 2;

/// One step for the executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Stop the old sandboxes, then run a new one.
    CreateSandbox { attempt: u32, stop_first: Vec<String> },
    /// Stop a sandbox.
    StopSandbox { id: String },
    /// Remove a stopped sandbox that nothing refers to.
    RemoveSandbox { id: String },
    /// Pull, make and start a container.
    Start { name: String, restart_count: u32, replaces: Option<String> },
    /// End a container within `grace_seconds`; it is told to only when those of `after` (ids) have ended or the grace is used
    /// up, but its preStop hook runs at once.
    Kill { id: String, name: String, grace_seconds: i64, why: Why, after: Vec<String> },
    /// Remove a dead container and its logs.
    Remove { id: String },
}

/// Why a container is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The pod ends.
    Pod,
    /// Name or image in the spec differ from what it was made from.
    DefinitionChanged,
    /// Its liveness probe failed.
    Liveness,
    /// Its startup probe failed.
    Startup,
    /// Its sandbox died.
    SandboxChanged,
    /// Its postStart hook failed.
    PostStart,
    /// The runtime does not know whether it runs.
    Unknown,
    /// Its resources changed, and its policy is to be restarted for that.
    Resized,
}

/// What the probes of a running container say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probed {
    /// The startup probe passed, or there is none.
    pub started: bool,
    /// The readiness probe passed, or there is none and it started.
    pub ready: bool,
    /// A probe wants it ended, with that probe's own grace.
    pub failed: Option<(Why, Option<i64>)>,
}

/// Operations under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy {
    /// A sandbox is being made or stopped.
    pub sandbox: bool,
    /// Names of containers being started.
    pub starting: BTreeSet<String>,
    /// Ids of containers being ended, and until when.
    pub killing: BTreeMap<String, Timestamp>,
    /// Ids being removed.
    pub removing: BTreeSet<String>,
}

impl Busy {
    fn idle(&self) -> bool {
        !self.sandbox && self.starting.is_empty() && self.killing.is_empty()
    }
}

/// The order to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// When the grace is over.
    pub deadline: Timestamp,
}

/// All a plan depends on.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub busy: &'a Busy,
    /// By container id; containers that were never probed are absent.
    pub probed: &'a BTreeMap<String, Probed>,
    /// By container name: a failed start is not tried again before this.
    pub retry_at: &'a BTreeMap<String, Timestamp>,
    /// By container name.
    pub crashes: &'a BTreeMap<String, Backoff>,
    /// Sandboxes that were stopped for good by this kubelet.
    pub stopped: &'a BTreeSet<String>,
    pub max_backoff: Duration,
    pub stop: Option<&'a Stop>,
    pub now: Timestamp,
}

/// What comes out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub actions: Vec<Action>,
    /// When to plan again although nothing happened.
    pub wake_at: Option<Timestamp>,
    /// The pod is to end and nothing of it is left running.
    pub stopped: bool,
}

/// How a pod ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
}

/// First eight hex digits of a hash over what may not change in a running container: its name and image.
pub(crate) fn container_hash(container: &Container) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(container.name.as_bytes());
    hash.update([0]);
    hash.update(container.image.as_deref().unwrap_or_default().as_bytes());
    hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a container that ended with `exit_code` is started again: its own rules, its own policy, the pod's policy.
pub(crate) fn restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
        let matches = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if matches && rule.action == "Restart" {
            return true;
        }
    }
    match container.restart_policy.as_deref().unwrap_or_else(|| view::restart_policy(pod)) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// The same for an init container, where success is never repeated.
fn init_restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    view::is_sidecar(container) || (exit_code != 0 && restarts(pod, container, exit_code))
}

/// Whether a container that has ended is started again, by what sort of container it is.
pub(crate) fn starts_again(pod: &Pod, container: &Container, record: &ContainerRecord) -> bool {
    if view::ephemeral_containers(pod).iter().any(|ephemeral| ephemeral.name == container.name) {
        false
    } else if view::init_containers(pod).iter().any(|init| init.name == container.name) {
        init_restarts(pod, container, record.exit_code)
    } else {
        restarts(pod, container, record.exit_code)
    }
}

/// Whether and how the pod has ended by itself.
pub(crate) fn outcome(pod: &Pod, observed: &Observed) -> Option<Outcome> {
    match view::phase(pod) {
        "Succeeded" => return Some(Outcome::Succeeded),
        "Failed" => return Some(Outcome::Failed),
        _ => {}
    }
    for container in view::init_containers(pod) {
        if let Some(record) = observed.newest(&container.name) {
            let over = record.state == State::Exited && record.exit_code != 0;
            if over && !init_restarts(pod, container, record.exit_code) {
                return Some(Outcome::Failed);
            }
        }
    }
    let mut all_good = true;
    for container in view::containers(pod) {
        let record = observed.newest(&container.name)?;
        if record.state != State::Exited || restarts(pod, container, record.exit_code) {
            return None;
        }
        if record.hash != container_hash(container) && !record.hash.is_empty() {
            return None;
        }
        all_good &= record.exit_code == 0;
    }
    if view::containers(pod).is_empty() {
        return None;
    }
    Some(if all_good { Outcome::Succeeded } else { Outcome::Failed })
}

/// Plans.
pub(crate) fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let over = outcome(input.pod, input.observed).is_some();
    if let Some(stop) = input.stop {
        plan_stop(input, stop.deadline, &mut plan);
        return plan;
    }
    if over {
        let grace = SignedDuration::from_secs(view::grace_seconds(input.pod));
        plan_stop(input, input.now.saturating_add(grace).unwrap_or(input.now), &mut plan);
        return plan;
    }
    let Some(sandbox) = input.observed.sandbox() else {
        plan_sandbox(input, &mut plan);
        return plan;
    };
    if !input.busy.sandbox {
        plan_containers(input, &sandbox.id, &mut plan);
        collect_garbage(input, &mut plan);
    }
    plan
}

fn plan_sandbox(input: &Input<'_>, plan: &mut Plan) {
    if input.busy.sandbox {
        return;
    }
    let running: Vec<_> =
        input.observed.containers.iter().filter(|container| container.state == State::Running).collect();
    for container in &running {
        kill(input, container, view::grace_seconds(input.pod), Why::SandboxChanged, plan);
    }
    if !running.is_empty() || !input.busy.idle() {
        return;
    }
    if wait_for(input, SANDBOX_RETRY, plan) {
        return;
    }
    let stop_first = input.observed.sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect();
    plan.actions.push(Action::CreateSandbox { attempt: input.observed.next_attempt(), stop_first });
}

/// Key of the sandbox in `retry_at`; no container is called so.
pub(crate) const SANDBOX_RETRY: &str = "";

fn plan_containers(input: &Input<'_>, sandbox_id: &str, plan: &mut Plan) {
    let pod = input.pod;
    let here = |name: &str| input.observed.newest(name).filter(|record| record.sandbox_id == sandbox_id);
    let mut initialized =
        view::containers(pod).iter().any(|container| here(&container.name).is_some_and(|r| r.state != State::Created));
    let mut go_on = true;
    for container in view::init_containers(pod) {
        let record = here(&container.name);
        if view::is_sidecar(container) {
            if go_on {
                keep_running(input, container, record, plan);
            }
            let started = record.is_some_and(|record| {
                record.state == State::Running
                    && !input.busy.starting.contains(&container.name)
                    && input
                        .probed
                        .get(&record.id)
                        .map(|probed| probed.started)
                        .unwrap_or(container.startup_probe.is_none())
            });
            go_on &= started || initialized;
        } else if go_on && !initialized {
            match record {
                Some(record) if record.state == State::Exited && record.exit_code == 0 => {}
                _ => {
                    keep_running(input, container, record, plan);
                    go_on = false;
                }
            }
        }
    }
    initialized |= go_on;
    if initialized {
        for container in view::containers(pod) {
            keep_running(input, container, here(&container.name), plan);
        }
    }
    for ephemeral in view::ephemeral_containers(pod) {
        // Once only, and never again: not even after a failure.
        let known = input.observed.newest(&ephemeral.name).is_some() || input.busy.starting.contains(&ephemeral.name);
        if !known && !wait_for(input, &ephemeral.name, plan) {
            plan.actions.push(Action::Start { name: ephemeral.name.clone(), restart_count: 0, replaces: None });
        }
    }
}

/// Starts a container that should run and does not; ends one that may not go on.
fn keep_running(input: &Input<'_>, container: &Container, record: Option<&ContainerRecord>, plan: &mut Plan) {
    if input.busy.starting.contains(&container.name) {
        return;
    }
    let any = input.observed.newest(&container.name);
    let next = any.map(|record| record.restart_count + 1).unwrap_or_else(|| {
        // The runtime forgot the container (or never had it): the API server remembers how often it was started.
        view::last_status(input.pod, &container.name)
            .filter(|status| status.container_id.as_deref().is_some_and(|id| !id.is_empty()))
            .map(|status| u32::try_from(status.restart_count).unwrap_or(0) + 1)
            .unwrap_or(0)
    });
    let start = |restart_count, replaces| Action::Start { name: container.name.clone(), restart_count, replaces };
    match record {
        None => {
            // A container of an earlier sandbox that must not run twice stays dead.
            let is_init = view::init_containers(input.pod).iter().any(|init| init.name == container.name);
            if let Some(old) = any.filter(|old| old.state == State::Exited && !is_init)
                && !restarts(input.pod, container, old.exit_code)
            {
                return;
            }
            if !wait_for(input, &container.name, plan) {
                plan.actions.push(start(next, None));
            }
        }
        Some(record) => match record.state {
            State::Running => {
                let grace = view::grace_seconds(input.pod);
                if record.hash != container_hash(container) && !record.hash.is_empty() {
                    kill(input, record, grace, Why::DefinitionChanged, plan);
                } else if let Some((why, own)) = input.probed.get(&record.id).and_then(|probed| probed.failed.clone()) {
                    kill(input, record, own.unwrap_or(grace), why, plan);
                }
            }
            State::Created => {
                // Made, never started: the kubelet died in between. The same start is done again.
                if !wait_for(input, &container.name, plan) {
                    plan.actions.push(start(record.restart_count, Some(record.id.clone())));
                }
            }
            // Whether it runs is not known: it must not run twice.
            State::Unknown => kill(input, record, view::grace_seconds(input.pod), Why::Unknown, plan),
            State::Exited => {
                if input.busy.killing.contains_key(&record.id) {
                    return;
                }
                let changed = record.hash != container_hash(container) && !record.hash.is_empty();
                if !(changed || starts_again(input.pod, container, record)) {
                    return;
                }
                if !changed && let Some(until) = crash_wait(input, record) {
                    plan.wake(until);
                    return;
                }
                if !wait_for(input, &container.name, plan) {
                    plan.actions.push(start(next, None));
                }
            }
        },
    }
}

/// Until when CrashLoopBackOff holds this ended container.
pub(crate) fn crash_wait(input: &Input<'_>, record: &ContainerRecord) -> Option<Timestamp> {
    let backoff = input.crashes.get(&record.name)?;
    backoff.waits_until(record.finished_at?, input.now, input.max_backoff)
}

/// Whether a failed start must wait; if so the plan wakes when the wait is over.
fn wait_for(input: &Input<'_>, name: &str, plan: &mut Plan) -> bool {
    match input.retry_at.get(name) {
        Some(until) if *until > input.now => {
            plan.wake(*until);
            true
        }
        _ => false,
    }
}

fn kill(input: &Input<'_>, record: &ContainerRecord, grace_seconds: i64, why: Why, plan: &mut Plan) {
    kill_after(input, record, grace_seconds, why, &[], plan);
}

fn kill_after(
    input: &Input<'_>,
    record: &ContainerRecord,
    grace_seconds: i64,
    why: Why,
    after: &[&ContainerRecord],
    plan: &mut Plan,
) {
    let deadline = input.now.saturating_add(SignedDuration::from_secs(grace_seconds)).unwrap_or(input.now);
    match input.busy.killing.get(&record.id) {
        // A shorter grace than the one under way is carried out besides it.
        Some(under_way) if why != Why::Pod || deadline.duration_since(*under_way) > SignedDuration::from_secs(-2) => {}
        _ => plan.actions.push(Action::Kill {
            id: record.id.clone(),
            name: record.name.clone(),
            grace_seconds,
            why,
            after: after.iter().map(|record| record.id.clone()).collect(),
        }),
    }
}

fn plan_stop(input: &Input<'_>, deadline: Timestamp, plan: &mut Plan) {
    let left_seconds = deadline.duration_since(input.now).as_secs().max(LEAST_GRACE_SECONDS);
    let sidecars: Vec<&str> = view::init_containers(input.pod)
        .iter()
        .filter(|container| view::is_sidecar(container))
        .map(|container| container.name.as_str())
        .collect();
    let alive = |record: &&ContainerRecord| matches!(record.state, State::Running | State::Unknown);
    // Sidecars end after the app containers, the last one first.
    let place = |record: &ContainerRecord| sidecars.iter().position(|name| *name == record.name);
    let mut alive: Vec<_> = input.observed.containers.iter().filter(alive).collect();
    alive.sort_by_key(|record| place(record).map(std::cmp::Reverse));
    for record in &alive {
        match place(record) {
            None => kill(input, record, left_seconds, Why::Pod, plan),
            // An app that is just being started is not among those to wait for yet.
            Some(_) if !input.busy.starting.is_empty() => {}
            Some(own) => {
                let first = |other: &&&ContainerRecord| place(other).is_none_or(|place| place > own);
                let after: Vec<_> = alive.iter().filter(first).copied().collect();
                kill_after(input, record, left_seconds, Why::Pod, &after, plan);
            }
        }
    }
    if !alive.is_empty() || !input.busy.starting.is_empty() || !input.busy.idle() {
        return;
    }
    let before = plan.actions.len();
    for sandbox in &input.observed.sandboxes {
        if !input.stopped.contains(&sandbox.id) {
            plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }
    plan.stopped = plan.actions.len() == before;
}

fn collect_garbage(input: &Input<'_>, plan: &mut Plan) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for record in &input.observed.containers {
        let rank = seen.entry(record.name.as_str()).or_default();
        let dead = record.state == State::Exited;
        if dead && *rank > DEAD_KEPT && !input.busy.removing.contains(&record.id) {
            plan.actions.push(Action::Remove { id: record.id.clone() });
        }
        *rank += 1;
    }
    for sandbox in input.observed.sandboxes.iter().skip(1) {
        let used = input.observed.containers.iter().any(|container| container.sandbox_id == sandbox.id);
        if !sandbox.ready && !used && !input.busy.removing.contains(&sandbox.id) {
            plan.actions.push(Action::RemoveSandbox { id: sandbox.id.clone() });
        }
    }
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

#[cfg(test)]
mod tests;
