//! The pod's task and resizes of its pod in place: judged, carried out, and told.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use keelson_cri::v1 as cri;

use super::{Done, Wake, Worker, after};
use crate::context::Context;
use crate::error::Error;
use crate::pod::observed::{Observed, State};
use crate::pod::plan::{Action, Why};
use crate::pod::resize::{self, Pending, Verdict};
use crate::pod::view;
use crate::resources;
use crate::stats::group::Group;
use crate::volumes::Mounted;

/// A deferred resize is looked at again when a pod goes; and after so long, for what was missed.
const DEFERRED_RETRY: Duration = Duration::from_secs(30);
/// After a try that failed.
const ERROR_RETRY: Duration = Duration::from_secs(5);

impl Worker {
    /// Looks whether what the API server wants is what the pod has.
    pub(super) fn resize(&mut self, now: Timestamp, wake: &mut Wake) {
        if self.resizing {
            return;
        }
        if resize::is_same(&self.desired, &self.pod) {
            self.resize = resize::Progress::default();
            self.resize_at = None;
            return;
        }
        let again = self.judge_again && self.resize.pending.is_some();
        if let Some(at) = self.resize_at.filter(|at| *at > now && !again) {
            return wake.at(at);
        }
        self.judge_again = false;
        let others: Vec<_> = self
            .ctx
            .pods
            .all()
            .into_iter()
            .filter(|(uid, _)| *uid != self.uid)
            .map(|(_, handle)| handle.as_allocated())
            .collect();
        let about = keelson_client::reference(self.pod.as_ref());
        let verdict = match self.fixed_by_a_manager() {
            Some(why) => Verdict::Infeasible(why),
            None => resize::judge(&self.desired, &others, &self.ctx.allocatable),
        };
        let pending = match verdict {
            Verdict::Fits => None,
            Verdict::Deferred(message) => Some(Pending { reason: "Deferred", message }),
            Verdict::Infeasible(message) => Some(Pending { reason: "Infeasible", message }),
        };
        if let Some(pending) = pending {
            let retry = after(now, DEFERRED_RETRY);
            self.resize_at = Some(retry);
            wake.at(retry);
            if self.resize.pending.as_ref() != Some(&pending) {
                let message = format!("Pod resize {}: {}", pending.reason, pending.message);
                self.ctx.events.warning(&about, &format!("Resize{}", pending.reason), message);
            }
            self.handle.waits_for_room.store(pending.reason == "Deferred", std::sync::atomic::Ordering::Relaxed);
            self.resize = resize::Progress { pending: Some(pending), under_way: None };
            return;
        }
        self.handle.waits_for_room.store(false, std::sync::atomic::Ordering::Relaxed);
        if self.resize.under_way.is_none() {
            self.ctx.events.normal(&about, "ResizeStarted", "Pod resize started");
        }
        self.resize = resize::Progress { pending: None, under_way: Some(self.resize.under_way.take().flatten()) };
        self.resizing = true;
        let (ctx, before, wanted, observed) =
            (self.ctx.clone(), self.pod.clone(), self.desired.clone(), self.observed.clone());
        // What is granted counts from now on.
        *self.handle.allocated.write() = Some(wanted.clone());
        self.ops.spawn(async move {
            let result = carry_out(&ctx, &before, &wanted, &observed).await;
            Done::Resized(wanted, result)
        });
    }

    /// Why the pod must stay as it is, on a node that gives such pods CPUs or memory of their own.
    fn fixed_by_a_manager(&self) -> Option<String> {
        let config = &self.ctx.config;
        let manager = match (config.cpu_manager_policy.as_str(), config.memory_manager_policy.as_str()) {
            _ if resources::qos_class(&self.desired) != resources::QosClass::Guaranteed => return None,
            ("static", _) => "CPU",
            (_, "Static") => "Memory",
            _ => return None,
        };
        Some(format!("Resize is infeasible for Guaranteed Pods alongside {manager} Manager static policy"))
    }

    /// A try ended. Containers that want it are restarted.
    pub(super) fn resized(&mut self, wanted: &Arc<Pod>, result: Result<(), Error>, now: Timestamp) {
        self.resizing = false;
        let about = keelson_client::reference(self.pod.as_ref());
        match result {
            Ok(()) => {
                let (restarted, _) = resize::changed(&self.pod, wanted);
                self.pod = resize::with_resources_of(&self.desired, wanted);
                self.resize = resize::Progress::default();
                self.resize_at = None;
                self.ctx.events.normal(&about, "ResizeCompleted", "Pod resize completed");
                let grace_seconds = view::grace_seconds(&self.pod);
                for name in restarted {
                    let Some(record) = self.observed.newest(&name).filter(|record| record.state == State::Running)
                    else {
                        continue;
                    };
                    let id = record.id.clone();
                    let kill = Action::Kill { id, name, grace_seconds, why: Why::Resized, after: Vec::new() };
                    self.carry_out(kill, &Arc::<Mounted>::default(), now);
                }
            }
            Err(error) => {
                let message = error.to_string();
                if self.resize.under_way != Some(Some(message.clone())) {
                    self.ctx.events.warning(&about, "ResizeError", format!("Pod resize error: {message}"));
                }
                self.resize.under_way = Some(Some(message));
                self.resize_at = Some(after(now, ERROR_RETRY));
            }
        }
    }
}

/// Brings the pod's group and its running containers to what `wanted` says. Can be done again.
async fn carry_out(ctx: &Arc<Context>, before: &Arc<Pod>, wanted: &Arc<Pod>, observed: &Observed) -> Result<(), Error> {
    let (uid, class) = (view::uid(wanted).to_string(), resources::qos_class(wanted));
    let quota = ctx.config.cpu_cfs_quota;
    let (old, new) = (resources::pod_cgroup(before, quota), resources::pod_cgroup(wanted, quota));
    let shrinks = new.memory_limit_bytes.zip(old.memory_limit_bytes).filter(|(new, old)| new < old);
    if let Some((limit, _)) = shrinks {
        let group = Group::read(&ctx.cgroups, &ctx.cgroups.pod(class, &uid));
        let used = group.and_then(|group| group.memory).map_or(0, |memory| memory.usage);
        if used > limit.max(0) as u64 {
            return Err(Error::message(format!(
                "attempting to set pod memory limit ({limit}) below current usage ({used})"
            )));
        }
    }
    let pids = ctx.config.pod_pids_limit;
    ctx.cgroups.set_up_pod(class, &uid, &resize::roomier(old, new), pids)?;
    let (restarted, updated) = resize::changed(before, wanted);
    for name in restarted.iter().chain(&updated) {
        let (Some(record), Some(container)) = (observed.newest(name), view::find_container(wanted, name)) else {
            continue;
        };
        if record.state == State::Running {
            let own = resources::container_resources(wanted, &container, &ctx.limits);
            // A running container's other properties are not to be touched.
            let linux = cri::LinuxContainerResources {
                cpu_period: own.cpu_period,
                cpu_quota: own.cpu_quota,
                cpu_shares: own.cpu_shares,
                // Who is to be restarted keeps its memory until then; its CPU must fit into the pod's at once.
                memory_limit_in_bytes: if restarted.contains(name) { 0 } else { own.memory_limit_in_bytes },
                memory_swap_limit_in_bytes: if restarted.contains(name) { 0 } else { own.memory_swap_limit_in_bytes },
                unified: own.unified.into_iter().filter(|(file, _)| file == "memory.swap.max").collect(),
                ..Default::default()
            };
            ctx.runtime.update_container(&record.id, linux).await?;
        }
    }
    ctx.cgroups.set_up_pod(class, &uid, &new, pids)
}
