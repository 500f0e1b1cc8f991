//! The pod's task and its probes: which run, and what their news mean.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Worker;
use crate::pod::observed::{ContainerRecord, State};
use crate::pod::plan::{Probed, Why};
use crate::pod::{events, view};
use crate::probe;

/// The probes of a container that runs.
pub(super) struct Prober {
    /// Cancelled when the container is told to end.
    pub(super) ending: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Worker {
    pub(super) fn take_probe(&mut self, news: probe::News) {
        let Some(probed) = self.probed.get_mut(&news.container_id) else { return };
        match (news.kind, news.good) {
            (probe::Kind::Startup, true) => {
                probed.started = true;
                let container = self.observed.containers.iter().find(|record| record.id == news.container_id);
                let has_readiness = container
                    .and_then(|record| view::find_container(&self.pod, &record.name))
                    .is_some_and(|container| container.readiness_probe.is_some());
                probed.ready = !has_readiness;
            }
            (probe::Kind::Startup, false) => probed.failed = Some((Why::Startup, news.grace_seconds)),
            (probe::Kind::Liveness, false) => probed.failed = Some((Why::Liveness, news.grace_seconds)),
            (probe::Kind::Liveness, true) => {}
            (probe::Kind::Readiness, good) => probed.ready = good,
        }
    }

    /// Starts probing what runs and stops probing what does not.
    pub(super) fn keep_probes(&mut self) {
        let running: Vec<ContainerRecord> =
            self.observed.containers.iter().filter(|record| record.state == State::Running).cloned().collect();
        let alive: BTreeSet<&String> = running.iter().map(|record| &record.id).collect();
        self.probes.retain(|id, _| alive.contains(id));
        self.probed.retain(|id, _| alive.contains(id));
        let ip = self.pod_ip();
        for record in &running {
            if self.probed.contains_key(&record.id) {
                continue;
            }
            let Some(container) = view::find_container(&self.pod, &record.name) else { continue };
            let before = view::last_status(&self.pod, &record.name)
                .filter(|status| status.container_id.as_deref().is_some_and(|id| id.ends_with(&record.id)));
            let was_started = before.is_some_and(|status| status.started == Some(true));
            let was_ready = before.is_some_and(|status| status.ready);
            let started = container.startup_probe.is_none() || was_started;
            let ready = started && (container.readiness_probe.is_none() || was_ready);
            self.probed.insert(record.id.clone(), Probed { started, ready, failed: None });
            let any = container.startup_probe.is_some()
                || container.liveness_probe.is_some()
                || container.readiness_probe.is_some();
            if !any {
                continue;
            }
            let target = probe::Target {
                runtime: self.ctx.runtime.clone(),
                events: self.ctx.events.clone(),
                about: events::about_container(&self.pod, &record.name),
                container,
                container_id: record.id.clone(),
                pod_ip: ip.clone(),
                started_at: record.started_at.unwrap_or_else(keelson_client::clock::now),
                was_ready,
                was_started,
            };
            let ending = CancellationToken::new();
            if self.stop.is_some() {
                ending.cancel();
            }
            let task = tokio::spawn(probe::run(target, self.probe_news.0.clone(), ending.clone()));
            self.probes.insert(record.id.clone(), Prober { ending, _task: AbortOnDropHandle::new(task) });
        }
    }
}
