//! A pod's status and events as few words as hold everything that a test can know in advance: times, addresses and ids are
//! left out or replaced.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod, PodCondition};

use crate::e2e::BUSYBOX;

const ORDER: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// The whole status: a line for the pod, one for its conditions, one for each container.
pub(super) fn status(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let mut lines = vec![with_reason(status.phase.unwrap_or_default(), &status.reason, &status.message)];
    let mut conditions = status.conditions.unwrap_or_default();
    conditions.sort_by_key(|condition| ORDER.iter().position(|known| *known == condition.type_));
    lines.push(conditions.iter().map(condition).collect::<Vec<_>>().join(" "));
    for list in [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses] {
        lines.extend(list.iter().flatten().map(container));
    }
    plain(pod, lines.join("\n"))
}

/// Without what differs from run to run.
pub(super) fn plain(pod: &Pod, text: String) -> String {
    let mut text = text;
    let status = pod.status.as_ref();
    let full = format!(
        "{}_default({})",
        pod.metadata.name.as_deref().unwrap_or_default(),
        pod.metadata.uid.as_deref().unwrap_or_default()
    );
    text = text.replace(&full, "POD");
    for (value, name) in [
        (status.and_then(|s| s.pod_ip.clone()), "IP"),
        (status.and_then(|s| s.host_ip.clone()), "HOST"),
        (pod.spec.as_ref().and_then(|s| s.node_name.clone()), "NODE"),
        (pod.metadata.name.clone(), "NAME"),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text = text.replace(&value, name);
        }
    }
    text
}

fn with_reason(what: String, reason: &Option<String>, message: &Option<String>) -> String {
    match (reason, message.as_deref().filter(|message| !message.is_empty())) {
        (None, None) => what,
        (reason, None) => format!("{what}({})", reason.clone().unwrap_or_default()),
        (reason, Some(message)) => format!("{what}({}: {message})", reason.clone().unwrap_or_default()),
    }
}

fn condition(condition: &PodCondition) -> String {
    let sign = match condition.status.as_str() {
        "True" => "",
        "False" => "!",
        _ => "?",
    };
    with_reason(format!("{sign}{}", condition.type_), &condition.reason, &condition.message)
}

fn container(status: &ContainerStatus) -> String {
    let mut words = vec![format!("{}: {}", status.name, state(status.state.as_ref()))];
    if status.ready {
        words.push("ready".into());
    }
    if status.started == Some(true) {
        words.push("started".into());
    }
    if status.restart_count > 0 {
        words.push(format!("restarts={}", status.restart_count));
    }
    if status.last_state.as_ref().is_some_and(|last| *last != ContainerState::default()) {
        words.push(format!("last={}", state(status.last_state.as_ref())));
    }
    words.join(" ")
}

fn state(state: Option<&ContainerState>) -> String {
    let Some(state) = state else { return "nothing".into() };
    if let Some(waiting) = &state.waiting {
        return format!("waiting {}", with_reason(String::new(), &waiting.reason, &waiting.message));
    }
    if let Some(end) = &state.terminated {
        let message = end.message.as_ref().map(|message| format!(" {message:?}")).unwrap_or_default();
        return format!("{} {}{message}", end.reason.as_deref().unwrap_or_default(), end.exit_code);
    }
    if state.running.is_some() { "running".into() } else { "nothing".into() }
}

/// The kubelet's events about a pod: a line for each thing in it, in the order in which they first happened. Those that
/// every container has are one word.
pub(super) fn events(pod: &Pod, events: &[Event]) -> String {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for event in events {
        let path = event.involved_object.field_path.clone().unwrap_or_default();
        let name = path.split_once('{').map_or("pod", |(_, name)| name.trim_end_matches('}')).to_string();
        let (reason, message) = (event.reason.clone().unwrap_or_default(), event.message.clone().unwrap_or_default());
        let usual = match reason.as_str() {
            "Pulled" => {
                format!("Container image {BUSYBOX:?} already present on machine and can be accessed by the pod")
            }
            "Created" => "Container created".into(),
            "Started" => "Container started".into(),
            "Killing" => format!("Stopping container {name}"),
            _ => String::new(),
        };
        let sign = if event.type_.as_deref() == Some("Warning") { "!" } else { "" };
        let said = if message == usual { format!("{sign}{reason}") } else { format!("{sign}{reason}({message})") };
        match lines.iter_mut().find(|(known, _)| *known == name) {
            Some((_, said_before)) => said_before.push(said),
            None => lines.push((name, vec![said])),
        }
    }
    lines.sort();
    let text: Vec<String> = lines.into_iter().map(|(name, said)| format!("{name}: {}", said.join(" "))).collect();
    plain(pod, text.join("\n"))
}

/// What no status of a kubelet may get wrong, whatever the pod.
pub(super) fn faults(pod: &Pod, runtime: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(status) = pod.status.as_ref().filter(|status| status.start_time.is_some()) else { return faults };
    let generation = pod.metadata.generation;
    if status.observed_generation.is_none() || status.observed_generation > generation {
        faults.push(format!("observedGeneration {:?} of {generation:?}", status.observed_generation));
    }
    for condition in status.conditions.iter().flatten().filter(|c| ORDER.contains(&c.type_.as_str())) {
        if condition.observed_generation.is_none() || condition.last_transition_time.is_none() {
            faults.push(format!("condition {} lacks a generation or time", condition.type_));
        }
    }
    if status.pod_ip != status.pod_ips.iter().flatten().next().map(|ip| ip.ip.clone()) {
        faults.push(format!("podIP {:?} of {:?}", status.pod_ip, status.pod_ips));
    }
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    for container in lists.into_iter().flatten().flatten() {
        for state in [&container.state, &container.last_state].into_iter().flatten() {
            let Some(end) = &state.terminated else { continue };
            let unseen = end.reason.as_deref() == Some("ContainerStatusUnknown");
            let id = end.container_id.as_deref().unwrap_or_default();
            // containerd notes a start after it, so short lives end before they begin there.
            let order = end.started_at <= end.finished_at || runtime == "containerd";
            if !unseen && (!id.starts_with(&format!("{runtime}://")) || !order) {
                faults.push(format!("{}: {end:?}", container.name));
            }
        }
    }
    faults
}

/// Conditions of a pod of which everything is ready.
pub(super) const UP: &str = "PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled";
/// Conditions of a pod that has succeeded.
pub(super) const DONE: &str = "!PodReadyToStartContainers Initialized(PodCompleted) !Ready(PodCompleted) !ContainersReady(PodCompleted) PodScheduled";
/// Conditions of a pod that has failed.
pub(super) const FAILED: &str =
    "!PodReadyToStartContainers Initialized !Ready(PodFailed) !ContainersReady(PodFailed) PodScheduled";

/// Conditions of a pod whose app containers `names` are not ready.
pub(super) fn unready(names: &str) -> String {
    let why = format!("ContainersNotReady: containers with unready status: [{names}]");
    format!("PodReadyToStartContainers Initialized !Ready({why}) !ContainersReady({why}) PodScheduled")
}

/// Conditions of a pod that waits for its init containers `init`, and so for `names`.
pub(super) fn uninitialized(init: &str, names: &str) -> String {
    unready(names).replace(
        " Initialized",
        &format!(" !Initialized(ContainersNotInitialized: containers with incomplete status: [{init}])"),
    )
}
