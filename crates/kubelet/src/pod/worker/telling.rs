//! What the pod's task tells the API server: the status, and why containers wait.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use keelson_cri::steps;
use kube::api::{Patch, PatchParams};

use super::{Done, SHOW_PULL_ERROR, WRITE, Wake, Worker};
use crate::pod::backoff::go_seconds;
use crate::pod::observed::State;
use crate::pod::plan::{self, SANDBOX_RETRY};
use crate::pod::status::{self, Waiting};
use crate::pod::{events, start, view};

impl Worker {
    /// Why containers wait, and when that changes.
    fn waiting(&mut self, now: Timestamp, wake: &mut Wake) -> BTreeMap<String, Waiting> {
        let mut waiting = BTreeMap::new();
        for (name, backoff) in &self.crashes {
            let dead = self.observed.newest(name).filter(|record| record.state == State::Exited);
            let Some(record) = dead.filter(|_| !self.busy.starting.contains(name)) else { continue };
            let limit = self.ctx.config.max_container_restart_period;
            let Some(until) = record.finished_at.and_then(|finished| backoff.waits_until(finished, now, limit)) else {
                continue;
            };
            let Some(container) = view::find_container(&self.pod, name) else { continue };
            if !plan::starts_again(&self.pod, &container, record) {
                continue;
            }
            wake.at(until);
            let message = format!(
                "back-off {} restarting failed container={name} pod={}",
                go_seconds(backoff.delay),
                view::format(&self.pod)
            );
            waiting.insert(name.clone(), Waiting { reason: "CrashLoopBackOff".into(), message });
        }
        for (name, failed) in self.failed.iter_mut().filter(|(name, _)| name.as_str() != SANDBOX_RETRY) {
            let Some(container) = view::find_container(&self.pod, name) else { continue };
            let dead = self.observed.newest(name).filter(|record| record.state == State::Exited);
            if waiting.contains_key(name)
                || dead.is_some_and(|record| !plan::starts_again(&self.pod, &container, record))
            {
                continue;
            }
            let image = container.image.unwrap_or_default();
            let shown_until = failed.at.saturating_add(SHOW_PULL_ERROR).unwrap_or(failed.at);
            let mut told = Waiting { reason: failed.problem.reason.clone(), message: failed.problem.message.clone() };
            if failed.backoff.is_some() {
                if now < shown_until {
                    wake.at(shown_until);
                } else {
                    told = Waiting {
                        reason: "ImagePullBackOff".into(),
                        message: format!("Back-off pulling image {image:?}: {}: {}", told.reason, told.message),
                    };
                    if !std::mem::replace(&mut failed.told, true) {
                        let about = events::about_container(&self.pod, name);
                        self.ctx.events.normal(&about, "BackOff", format!("Back-off pulling image {image:?}"));
                        self.ctx.events.warning(&about, "Failed", "Error: ImagePullBackOff");
                    }
                }
            }
            waiting.insert(name.clone(), told);
        }
        waiting
    }

    pub(super) fn compute_status(&mut self, now: Timestamp, stopped: bool) {
        let mut wake = Wake(None);
        self.compute_status_waking(now, stopped, &mut wake);
    }

    fn compute_status_waking(&mut self, now: Timestamp, stopped: bool, wake: &mut Wake) {
        let before: BTreeSet<String> = self.crash_looping();
        let waiting = self.waiting(now, wake);
        let status = status::status(&status::Input {
            pod: &self.pod,
            old: &self.status,
            mounts_recursively: start::mounts_recursively(&self.ctx, &self.pod),
            observed: &self.observed,
            probed: &self.probed,
            waiting: &waiting,
            ended: self.ended.as_ref(),
            resize: &self.resize,
            stopped,
            host_ips: &self.ctx.host_ips,
            runtime_name: &self.ctx.runtime_name.read(),
            now,
        });
        self.status = status;
        for name in self.crash_looping().difference(&before) {
            let about = events::about_container(&self.pod, name);
            let text = format!("Back-off restarting failed container {name} in pod {}", view::format(&self.pod));
            self.ctx.events.warning(&about, "BackOff", text);
        }
    }

    fn crash_looping(&self) -> BTreeSet<String> {
        let lists = [&self.status.init_container_statuses, &self.status.container_statuses];
        let all = lists.into_iter().flatten().flatten();
        all.filter(|status| {
            let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
            waiting.and_then(|waiting| waiting.reason.as_deref()) == Some("CrashLoopBackOff")
        })
        .map(|status| status.name.clone())
        .collect()
    }

    /// Takes notice of what somebody else has written over the status (a node that was thought dead has its pods marked),
    /// so that it is said again.
    pub(super) fn reconcile(&mut self) {
        let shown = if view::is_static(&self.pod) { self.mirror.as_ref() } else { Some(&self.desired) };
        let Some(shown) = shown.filter(|_| !self.patching && !self.removed) else { return };
        let version = view::version(shown);
        if version > self.told_at {
            self.told_at = version;
            self.sent = status::own_part(shown.status.as_ref(), &self.status);
        }
    }

    /// Tells the API server what changed.
    pub(super) fn tell(&mut self, now: Timestamp, wake: &mut Wake) {
        if !self.final_status {
            self.compute_status_waking(now, false, wake);
        }
        if self.patching || self.removed {
            return;
        }
        if let Some(at) = self.write_at.filter(|at| *at > now) {
            return wake.at(at);
        }
        let Some(patch) = self.news() else { return };
        self.patching = true;
        let status = Box::new(self.status.clone());
        let api = self.api();
        let name = view::name(&self.pod).to_string();
        self.ops.spawn(async move {
            let (patch, params) = (Patch::Strategic(&patch), PatchParams::default());
            let result = keelson_client::within(WRITE, api.patch_status(&name, &params, &patch)).await;
            steps::reached("kubelet-told");
            Done::Patched(status, result.map(|pod| view::version(&pod)))
        });
    }
}
