//! The pod's phase from the statuses of its containers, and how those read when nothing of the pod will run again.

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod};

use super::Input;
use crate::pod::{plan, view};

/// Exit code of a container whose end nobody saw.
const UNSEEN_EXIT_CODE: i32 = 137;

pub(super) fn running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

pub(super) fn ended(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn ended_before(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.last_state.as_ref()?.terminated.as_ref()
}

/// How often what is counted.
#[derive(Default)]
struct Count {
    running: usize,
    /// Never ran.
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
}

/// The phase; `init` and `apps` are in the spec's order.
pub(super) fn phase(input: &Input<'_>, init: &[ContainerStatus], apps: &[ContainerStatus]) -> &'static str {
    let before = [input.old.phase.as_deref(), Some(view::phase(input.pod))];
    for known in before {
        match known {
            Some("Succeeded") => return "Succeeded",
            Some("Failed") => return "Failed",
            _ => {}
        }
    }
    let phase = if input.ended.is_some() { "Failed" } else { by_containers(input, init, apps) };
    // What still runs holds what the pod was given: until nothing does, the pod is not over.
    let runs = input.ended.is_some() || init.iter().chain(apps).any(running);
    if matches!(phase, "Succeeded" | "Failed") && runs && !input.stopped {
        return if before.contains(&Some("Running")) { "Running" } else { "Pending" };
    }
    phase
}

fn by_containers(input: &Input<'_>, init: &[ContainerStatus], apps: &[ContainerStatus]) -> &'static str {
    let pod = input.pod;
    let mut count = Count::default();
    let (mut init_pending, mut sidecar_pending) = (false, false);
    for (container, status) in view::init_containers(pod).iter().zip(init) {
        let end = ended(status).or(ended_before(status).filter(|_| !running(status)));
        if view::is_sidecar(container) {
            if running(status) {
                count.running += 1;
                sidecar_pending |= status.started != Some(true);
            } else if end.is_none() {
                count.waiting += 1;
                sidecar_pending = true;
            }
        } else {
            match end {
                Some(end) if end.exit_code != 0 && !restarts(pod, container, end) => return "Failed",
                Some(_) => {}
                None => init_pending = true,
            }
        }
    }
    for (container, status) in view::containers(pod).iter().zip(apps) {
        count_app(pod, container, status, &mut count);
    }
    // Restarting sidecars of a pod whose app containers have run do not bring it back to Pending.
    let initialized = view::containers(pod).iter().any(|container| input.observed.newest(&container.name).is_some());
    if init_pending || (sidecar_pending && !initialized) || count.waiting > 0 {
        return "Pending";
    }
    if count.running > 0 {
        return "Running";
    }
    match count {
        Count { stopped: 0, .. } => "Pending",
        Count { stopped, succeeded, .. } if input.stopped && stopped == succeeded => "Succeeded",
        _ if input.stopped => "Failed",
        Count { stopped, stopped_for_good, .. } if stopped != stopped_for_good => "Running",
        Count { stopped, succeeded, .. } if stopped == succeeded => "Succeeded",
        _ => "Failed",
    }
}

fn count_app(pod: &Pod, container: &Container, status: &ContainerStatus, count: &mut Count) {
    if running(status) {
        count.running += 1;
    } else if let Some(end) = ended(status).or(ended_before(status)) {
        count.stopped += 1;
        count.stopped_for_good += usize::from(!restarts(pod, container, end));
        count.succeeded += usize::from(ended(status).is_some_and(|end| end.exit_code == 0));
    } else {
        count.waiting += 1;
    }
}

fn restarts(pod: &Pod, container: &Container, end: &ContainerStateTerminated) -> bool {
    plan::restarts(pod, container, end.exit_code)
}

/// The last word on a pod that nothing will run of again: containers whose end nobody saw have failed, and so has a pod
/// that was in no terminal phase by then. Init containers after the last one that ever began, and app containers of a pod
/// that never got so far, stay waiting.
pub(super) fn settle(phase: &'static str, init: &mut [ContainerStatus], apps: &mut [ContainerStatus]) -> &'static str {
    let waits = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.waiting.is_some());
    let began = |status: &ContainerStatus| !waits(status) || ended_before(status).is_some();
    let last_good = init
        .last()
        .is_none_or(|last| [ended(last), ended_before(last)].into_iter().flatten().any(|end| end.exit_code == 0));
    if last_good || apps.iter().any(began) {
        apps.iter_mut().for_each(lose);
    }
    let begun = init.iter().rposition(began).map_or(1, |last| last + 1);
    init.iter_mut().take(begun).for_each(lose);
    if matches!(phase, "Succeeded" | "Failed") { phase } else { "Failed" }
}

fn lose(status: &mut ContainerStatus) {
    if ended(status).is_none() {
        status.state = Some(lost("The container could not be located when the pod was terminated"));
    }
}

/// The end of a container that nobody saw.
pub(super) fn lost(message: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: UNSEEN_EXIT_CODE,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some(message.into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}
