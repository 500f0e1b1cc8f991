//! The pod's status from what is observed. Pure; the reasons and messages are upstream's.

mod phase;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, Pod, PodCondition, PodIP, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observed::{ContainerRecord, Observed, State};
use super::plan::Probed;
use super::resize;
use super::{start, view};
use crate::{preempt, resources};

/// Why a container waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub reason: String,
    pub message: String,
}

/// Why the pod as a whole ended, when not by itself (`DeadlineExceeded`, `Evicted`, …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub reason: String,
    pub message: String,
    /// It was never taken: nothing is said of its containers and conditions.
    pub rejected: bool,
    /// The node took it away from work it had: the condition DisruptionTarget says so.
    pub disrupted: bool,
}

impl Ended {
    /// Why a pod may not run here.
    pub(crate) fn rejection(reason: &str, message: impl Into<String>) -> Ended {
        Ended { reason: reason.into(), message: message.into(), rejected: true, disrupted: false }
    }

    /// A rejection as the status tells it; the event has the bare message.
    pub(crate) fn in_status(self) -> Ended {
        Ended { message: format!("Pod was rejected: {}", self.message), ..self }
    }
}

/// All a status depends on.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a> {
    pub pod: &'a Pod,
    /// What was said last.
    pub old: &'a PodStatus,
    pub observed: &'a Observed,
    pub probed: &'a BTreeMap<String, Probed>,
    /// By container name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// The pod ends (or ended) because of this.
    pub ended: Option<&'a Ended>,
    /// Where a resize in place is.
    pub resize: &'a resize::Progress,
    /// Nothing of the pod runs any more, nor will.
    pub stopped: bool,
    pub host_ips: &'a [String],
    /// Whether the pod's runtime can make mounts read-only with all that is mounted below.
    pub mounts_recursively: bool,
    /// Such as `containerd`.
    pub runtime_name: &'a str,
    pub now: Timestamp,
}

/// The whole status.
pub(crate) fn status(input: &Input<'_>) -> PodStatus {
    let pod = input.pod;
    let old = input.old;
    if let Some(ended) = input.ended.filter(|ended| ended.rejected) {
        return rejected(input, ended);
    }
    let has_init = !view::init_containers(pod).is_empty();
    let default_reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let mut init: Vec<_> =
        view::init_containers(pod).iter().map(|c| container_status(input, c, Sort::Init, default_reason)).collect();
    let mut apps: Vec<_> =
        view::containers(pod).iter().map(|c| container_status(input, c, Sort::App, default_reason)).collect();
    let mut phase = phase::phase(input, &init, &apps);
    if input.stopped {
        phase = phase::settle(phase, &mut init, &mut apps);
    }
    let mut ephemeral: Vec<_> = view::ephemeral_containers(pod)
        .iter()
        .map(view::ephemeral_as_container)
        .filter(|c| input.observed.newest(&c.name).is_some() || input.waiting.contains_key(&c.name))
        .map(|c| container_status(input, &c, Sort::Ephemeral, default_reason))
        .collect();
    // Upstream's order: init containers as in the spec, the others by name.
    apps.sort_by(|a, b| a.name.cmp(&b.name));
    ephemeral.sort_by(|a, b| a.name.cmp(&b.name));
    let mut status = PodStatus {
        phase: Some(phase.to_string()),
        host_ip: input.host_ips.first().cloned(),
        host_ips: list(input.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        start_time: old.start_time.clone().or(Some(Time(input.now))),
        qos_class: Some(resources::qos_class(pod).as_str().into()),
        observed_generation: pod.metadata.generation,
        init_container_statuses: list(init),
        container_statuses: list(apps),
        ephemeral_container_statuses: list(ephemeral),
        nominated_node_name: old.nominated_node_name.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        ..Default::default()
    };
    let ips = pod_ips(input, old);
    status.pod_ip = ips.first().cloned();
    status.pod_ips = list(ips.into_iter().map(|ip| PodIP { ip }).collect());
    if let Some(ended) = input.ended.filter(|_| input.stopped) {
        status.reason = Some(ended.reason.clone());
        status.message = Some(ended.message.clone());
    } else {
        status.reason = old.reason.clone();
        status.message = old.message.clone();
    }
    status.conditions = Some(conditions(input, &status, old));
    status
}

fn list<T>(items: Vec<T>) -> Option<Vec<T>> {
    if items.is_empty() { None } else { Some(items) }
}

fn pod_ips(input: &Input<'_>, old: &PodStatus) -> Vec<String> {
    if view::host_network(input.pod) {
        if input.observed.sandboxes.is_empty() && old.pod_ip.is_none() { Vec::new() } else { input.host_ips.to_vec() }
    } else {
        let newest = input.observed.sandboxes.first().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
        if newest.is_empty() && input.observed.sandbox().is_none() {
            // A pod that is over keeps the address it had.
            return old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
        }
        newest
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Init,
    App,
    Ephemeral,
}

fn container_status(input: &Input<'_>, container: &Container, sort: Sort, default_reason: &str) -> ContainerStatus {
    let mut records = input.observed.named(&container.name);
    let newest = records.next();
    let previous = records.find(|record| record.state == State::Exited);
    let before = view::last_status(input.pod, &container.name);
    let waits = input.waiting.get(&container.name);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        // Nobody probes ephemeral containers, and upstream's prober is who fills this in.
        started: (sort != Sort::Ephemeral).then_some(false),
        // Never absent in upstream's objects.
        last_state: Some(ContainerState::default()),
        ..Default::default()
    };
    let Some(record) = newest else {
        if let Some(before) = before {
            status.restart_count = before.restart_count;
            let was_terminated = before.state.as_ref().is_some_and(|state| state.terminated.is_some());
            if was_terminated && (input.stopped || matches!(view::phase(input.pod), "Succeeded" | "Failed")) {
                return before.clone();
            }
            let last = before.state.clone().filter(|state| state.terminated.is_some()).or(before.last_state.clone());
            status.last_state = last.or(status.last_state);
            let ran = before.state.as_ref().is_some_and(|state| state.running.is_some());
            if ran && status.last_state.as_ref().is_none_or(|last| last.terminated.is_none()) {
                // It is known to have run, and the runtime does not know it any more.
                status.last_state = Some(phase::lost(
                    "The container could not be located when the pod was deleted.  The container used to be Running",
                ));
                status.restart_count += i32::from(input.pod.metadata.deletion_timestamp.is_none());
            }
        }
        status.state = Some(waiting(waits, default_reason));
        return status;
    };
    status.restart_count = i32::try_from(record.restart_count).unwrap_or(i32::MAX);
    status.container_id = Some(container_id(input, record));
    if !record.image.is_empty() && !record.image.starts_with("sha256:") {
        status.image = record.image.clone();
    }
    status.image_id = record.image_id.clone();
    status.user = record.user.clone().map(|linux| ContainerUser { linux: Some(linux) });
    status.last_state = previous
        .map(|record| terminated(input, record))
        .or(before.and_then(|before| before.last_state.clone()).filter(|_| record.restart_count > 0))
        .or(status.last_state);
    match record.state {
        State::Running => {
            status.state = Some(ContainerState {
                running: Some(ContainerStateRunning { started_at: record.started_at.map(Time) }),
                ..Default::default()
            });
            let probed = input.probed.get(&record.id);
            if sort != Sort::Ephemeral {
                status.started = Some(probed.map(|p| p.started).unwrap_or(container.startup_probe.is_none()));
            }
            status.ready = match sort {
                Sort::Init if !view::is_sidecar(container) => false,
                Sort::Ephemeral => false,
                _ => probed
                    .map(|p| p.ready)
                    .unwrap_or(container.startup_probe.is_none() && container.readiness_probe.is_none()),
            };
            fill_resources(container, &mut status);
        }
        State::Exited => {
            let state = terminated(input, record);
            status.ready = sort == Sort::Init && !view::is_sidecar(container) && record.exit_code == 0;
            match waits {
                Some(waits) if !input.stopped => {
                    status.last_state = Some(state);
                    status.state = Some(waiting(Some(waits), default_reason));
                }
                _ => status.state = Some(state),
            }
        }
        State::Created | State::Unknown => status.state = Some(waiting(waits, default_reason)),
    }
    status.volume_mounts = list(
        container
            .volume_mounts
            .iter()
            .flatten()
            .map(|mount| VolumeMountStatus {
                mount_path: mount.mount_path.clone(),
                name: mount.name.clone(),
                read_only: mount.read_only,
                recursive_read_only: mount.read_only.filter(|ro| *ro).map(|_| {
                    let recursive = start::recursive_read_only(mount, input.mounts_recursively).unwrap_or(false);
                    if recursive { "Enabled" } else { "Disabled" }.to_string()
                }),
            })
            .collect(),
    );
    status
}

fn fill_resources(container: &Container, status: &mut ContainerStatus) {
    let Some(resources) = &container.resources else { return };
    if resources.requests.is_some() || resources.limits.is_some() {
        status.resources = Some(ResourceRequirements {
            requests: resources.requests.clone(),
            limits: resources.limits.clone(),
            ..Default::default()
        });
        status.allocated_resources = resources.requests.clone();
    } else {
        status.resources = Some(ResourceRequirements::default());
    }
}

fn container_id(input: &Input<'_>, record: &ContainerRecord) -> String {
    format!("{}://{}", input.runtime_name, record.id)
}

fn waiting(waits: Option<&Waiting>, default_reason: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(waits.map(|waits| waits.reason.clone()).unwrap_or_else(|| default_reason.into())),
            message: waits.map(|waits| waits.message.clone()).filter(|message| !message.is_empty()),
        }),
        ..Default::default()
    }
}

fn terminated(input: &Input<'_>, record: &ContainerRecord) -> ContainerState {
    let reason = match record.reason.as_str() {
        "" if record.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: record.exit_code,
            reason: Some(reason.into()),
            message: Some(record.message.clone()).filter(|message| !message.is_empty()),
            started_at: record.started_at.or(Some(Timestamp::UNIX_EPOCH)).map(Time),
            finished_at: record.finished_at.or(Some(Timestamp::UNIX_EPOCH)).map(Time),
            container_id: Some(container_id(input, record)),
            signal: None,
        }),
        ..Default::default()
    }
}

fn rejected(input: &Input<'_>, ended: &Ended) -> PodStatus {
    PodStatus {
        phase: Some("Failed".into()),
        reason: Some(ended.reason.clone()),
        message: Some(ended.message.clone()),
        start_time: input.old.start_time.clone().or(Some(Time(input.now))),
        qos_class: Some(resources::qos_class(input.pod).as_str().into()),
        observed_generation: input.pod.metadata.generation,
        nominated_node_name: input.old.nominated_node_name.clone(),
        ..Default::default()
    }
}

/// Init containers that have not done their part.
fn incomplete_init(pod: &Pod, statuses: &[ContainerStatus]) -> Vec<String> {
    let init = view::init_containers(pod).iter().zip(statuses);
    let incomplete =
        init.filter(
            |(container, status)| {
                if view::is_sidecar(container) { status.started != Some(true) } else { !status.ready }
            },
        );
    incomplete.map(|(container, _)| container.name.clone()).collect()
}

fn conditions(input: &Input<'_>, status: &PodStatus, old: &PodStatus) -> Vec<PodCondition> {
    let pod = input.pod;
    let phase = status.phase.as_deref().unwrap_or_default();
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let apps = status.container_statuses.as_deref().unwrap_or_default();
    let sandbox_up = input.observed.sandbox().is_some_and(|sandbox| view::host_network(pod) || !sandbox.ips.is_empty())
        && !input.stopped;
    let incomplete = incomplete_init(pod, init);
    let any_app_ran = apps.iter().any(|status| phase::running(status) || phase::ended(status).is_some());
    let (initialized, init_reason, init_message) = if phase == "Succeeded" {
        (true, "PodCompleted", String::new())
    } else if incomplete.is_empty() || any_app_ran {
        (true, "", String::new())
    } else {
        (false, "ContainersNotInitialized", format!("containers with incomplete status: [{}]", incomplete.join(" ")))
    };
    let unready: Vec<_> = view::init_containers(pod)
        .iter()
        .zip(init)
        .filter(|(container, _)| view::is_sidecar(container))
        .map(|(_, status)| status)
        .chain(apps)
        .filter(|status| !status.ready)
        .map(|status| status.name.clone())
        .collect();
    let (containers_ready, ready_reason, ready_message) = match phase {
        "Succeeded" => (false, "PodCompleted", String::new()),
        "Failed" => (false, "PodFailed", String::new()),
        _ if unready.is_empty() => (true, "", String::new()),
        _ => (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    };
    let mut ready = (containers_ready, ready_reason, ready_message.clone());
    if containers_ready {
        let closed = closed_gates(pod);
        if !closed.is_empty() {
            ready = (false, "ReadinessGatesNotReady", closed.join(", "));
        }
    }
    let make =
        |kind: &str, is_true: bool, reason: &str, message: &str| condition(input, old, kind, is_true, reason, message);
    let mut conditions = vec![
        make("PodReadyToStartContainers", sandbox_up, "", ""),
        make("Initialized", initialized, init_reason, &init_message),
        make("Ready", ready.0, ready.1, &ready.2),
        make("ContainersReady", containers_ready, ready_reason, &ready_message),
        make("PodScheduled", true, "", ""),
    ];
    if let Some(ended) = input.ended.filter(|ended| ended.disrupted && input.stopped) {
        let message = if ended.reason == preempt::REASON { preempt::CONDITION } else { &ended.message };
        conditions.push(make("DisruptionTarget", true, "TerminationByKubelet", message));
    }
    if let Some(pending) = &input.resize.pending {
        conditions.push(make("PodResizePending", true, pending.reason, &pending.message));
    }
    if let Some(error) = &input.resize.under_way {
        let reason = if error.is_some() { "Error" } else { "" };
        conditions.push(make("PodResizeInProgress", true, reason, error.as_deref().unwrap_or_default()));
    }
    // Conditions of others stay as they are.
    let foreign = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default().iter();
    let foreign: Vec<_> = foreign
        .filter(|other| {
            conditions.iter().all(|own| own.type_ != other.type_) && !PASSING.contains(&other.type_.as_str())
        })
        .cloned()
        .collect();
    conditions.extend(foreign);
    conditions
}

fn closed_gates(pod: &Pod) -> Vec<String> {
    let gates = view::spec(pod).and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    gates
        .iter()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            let conditions = pod.status.iter().filter_map(|status| status.conditions.as_deref()).flatten();
            match conditions.into_iter().find(|condition| &condition.type_ == kind) {
                None => Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
                Some(condition) if condition.status != "True" => {
                    Some(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", condition.status))
                }
                Some(_) => None,
            }
        })
        .collect()
}

fn condition(
    input: &Input<'_>,
    old: &PodStatus,
    kind: &str,
    is_true: bool,
    reason: &str,
    message: &str,
) -> PodCondition {
    let value = if is_true { "True" } else { "False" };
    let before = old.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let since = before
        .filter(|condition| condition.status == value)
        .and_then(|condition| condition.last_transition_time.clone());
    PodCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.to_string()).filter(|reason| !reason.is_empty()),
        message: Some(message.to_string()).filter(|message| !message.is_empty()),
        last_transition_time: since.or(Some(Time(input.now))),
        last_probe_time: None,
        observed_generation: input.pod.metadata.generation,
    }
}

/// The strategic merge patch from `old` to `new`: changed fields, `null` for those that are gone, and only the
/// conditions that changed. `None` when there is nothing to say.
pub(crate) fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<serde_json::Value> {
    let (Ok(serde_json::Value::Object(old)), Ok(serde_json::Value::Object(new))) =
        (serde_json::to_value(old), serde_json::to_value(new))
    else {
        return None;
    };
    let mut changes = serde_json::Map::new();
    for (key, value) in &new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        if key == "conditions" {
            let known = before.and_then(|before| before.as_array()).cloned().unwrap_or_default();
            let wanted = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let mut changed: Vec<_> = wanted
                .iter()
                .filter(|condition| is_own(condition) && !known.contains(condition))
                .map(|c| erase_missing(c, &known))
                .collect();
            let type_of = |condition: &serde_json::Value| condition["type"].as_str().unwrap_or_default().to_owned();
            let over = known.iter().map(type_of).filter(|kind| PASSING.contains(&kind.as_str()));
            let over = over.filter(|kind| !wanted.iter().any(|condition| type_of(condition) == *kind));
            changed.extend(over.map(|kind| serde_json::json!({ "type": kind, "$patch": "delete" })));
            if !changed.is_empty() {
                changes.insert(key.clone(), changed.into());
            }
            continue;
        }
        let mut value = value.clone();
        if let ("podIPs" | "hostIPs", Some(list), Some(before)) =
            (key.as_str(), value.as_array_mut(), before.and_then(|before| before.as_array()))
        {
            // These lists are merged by address: what is no longer true must be said to be gone.
            let gone: Vec<_> = before.iter().filter(|ip| !list.contains(ip)).cloned().collect();
            for mut ip in gone {
                if let Some(ip) = ip.as_object_mut() {
                    ip.insert("$patch".into(), "delete".into());
                }
                list.push(ip);
            }
        }
        changes.insert(key.clone(), value);
    }
    for (key, before) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
        let gone = match before.as_array().filter(|_| key == "conditions") {
            // Those of others stay.
            Some(known) => known.iter().filter(|condition| is_own(condition)).map(deletion).collect(),
            None => serde_json::Value::Null,
        };
        changes.insert(key.clone(), gone);
    }
    if changes.is_empty() {
        return None;
    }
    Some(serde_json::json!({ "metadata": { "uid": uid }, "status": changes }))
}

/// What is `shown` of this kubelet's own, with what is others' to say as it is in `own`: there is nothing to patch there.
pub(crate) fn own_part(shown: Option<&PodStatus>, own: &PodStatus) -> PodStatus {
    PodStatus {
        nominated_node_name: own.nominated_node_name.clone(),
        resource_claim_statuses: own.resource_claim_statuses.clone(),
        ..shown.cloned().unwrap_or_default()
    }
}

fn deletion(condition: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({ "$patch": "delete", "type": condition.get("type") })
}

/// Conditions that the kubelet answers for.
const OWN: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "DisruptionTarget",
    "PodResizePending",
    "PodResizeInProgress",
];
/// Conditions that are there only while they are true.
const PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

fn is_own(condition: &serde_json::Value) -> bool {
    condition.get("type").and_then(|kind| kind.as_str()).is_some_and(|kind| OWN.contains(&kind))
}

/// `condition`, with `null` for fields that its predecessor in `known` had and it has not.
fn erase_missing(condition: &serde_json::Value, known: &[serde_json::Value]) -> serde_json::Value {
    let mut condition = condition.clone();
    let before = known.iter().find(|before| before.get("type") == condition.get("type")).and_then(|c| c.as_object());
    if let (Some(fields), Some(before)) = (condition.as_object_mut(), before) {
        for field in before.keys() {
            fields.entry(field.clone()).or_insert(serde_json::Value::Null);
        }
    }
    condition
}

#[cfg(test)]
mod tests;
