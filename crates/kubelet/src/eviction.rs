//! The eviction manager: keeps the node from running out of memory, disk, inodes and process ids by giving up what nobody needs,
//! then pods; and ends pods that exceed their own limits of local storage. What is decided is pure ([`state`], [`rank`],
//! [`limits`]); this file looks and acts.

pub(crate) mod limits;
mod observe;
mod rank;
pub(crate) mod signal;
mod state;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Taint};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Evicted, PodHandle};
use crate::node::about;
use crate::pod::observed::State as ContainerState;
use crate::pod::status::Ended;
use crate::pod::{start, view};
use crate::resources::{QosClass, qos_class};
use observe::{ImageFs, Observer};
use rank::Candidate;
use signal::{Observations, Pressure, Resource, Signal, Threshold, thresholds};
use state::State;

/// Upstream's `Reason`, of pods and events.
pub(crate) const EVICTED: &str = "Evicted";
/// What pods get to end when it is urgent, seconds.
const HARD_GRACE_SECONDS: i64 = 1;
/// An evicted pod that has not ended by then is not waited for any longer.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Pods' limits of local storage are looked at at least as often: upstream's `volumeStatsAggPeriod`.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// From this priority on a pod is critical: system-cluster-critical.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Runs until `shutdown`.
pub(crate) async fn run(ctx: Arc<Context>, shutdown: CancellationToken) {
    let interval = ctx.config.eviction_monitoring_interval;
    let node = async {
        let mut manager = Manager {
            thresholds: thresholds(&ctx.config),
            observer: Observer::default(),
            state: State::default(),
            ctx: ctx.clone(),
        };
        loop {
            match manager.synchronize().await {
                // The next look comes when what was freed shows.
                Some(evicted) => wait_until_released(&evicted).await,
                None => tokio::time::sleep(interval).await,
            }
        }
    };
    // A walk through pods' directories, or a runtime that is silent, must not keep the node from seeing that its memory ends.
    let limits = async {
        let mut image_fs = None;
        loop {
            let began = tokio::time::Instant::now();
            match evict_over_limits(&ctx, &mut image_fs).await {
                Some(evicted) => wait_until_released(&evicted).await,
                None => tokio::time::sleep(rest_after(began.elapsed(), interval)).await,
            }
        }
    };
    let _ = shutdown.run_until_cancelled(Box::pin(async { tokio::join!(node, limits) })).await;
}

struct Manager {
    ctx: Arc<Context>,
    thresholds: Vec<Threshold>,
    observer: Observer,
    state: State,
}

/// A pod that is there and not over, with its handle.
type Active = (Arc<Pod>, String, Arc<PodHandle>);

impl Manager {
    /// One round; gives the pod that was evicted.
    async fn synchronize(&mut self) -> Option<Arc<PodHandle>> {
        let now = keelson_client::clock::now();
        let observations = self.observer.observe(&self.ctx).await;
        let hold = self.ctx.config.eviction_pressure_transition_period;
        let decision = self.state.update(&self.thresholds, &observations, hold, now);
        self.ctx.node_conditions.send_if_modified(|known| {
            let changed = *known != decision.conditions;
            known.clone_from(&decision.conditions);
            changed
        });
        let active = active(&self.ctx);
        let threshold = decision.reclaim?;
        let resource = threshold.signal.resource();
        tracing::warn!(signal = threshold.signal.name(), "the node runs out of {}", resource.name());
        let node = about(&self.ctx.config.node_name);
        let message = format!("Attempting to reclaim {}", resource.name());
        self.ctx.events.warning(&node, "EvictionThresholdMet", message);
        if matches!(resource, Resource::EphemeralStorage | Resource::Inodes) {
            self.reclaim(threshold.signal).await;
            let again = self.observer.observe(&self.ctx).await;
            if !State::is_met(threshold, &again, true) {
                tracing::info!("what nobody needed was enough: no pod is evicted");
                return None;
            }
        }
        self.evict_one(&active, threshold, &observations).await
    }

    /// Gives up dead containers of pods that are over, and images nobody uses where those take of the same filesystem.
    async fn reclaim(&self, signal: Signal) {
        for (_, handle) in self.ctx.pods.all() {
            let pod = handle.pod.borrow().pod.clone();
            if !matches!(view::phase(&pod), "Succeeded" | "Failed") {
                continue;
            }
            let observed = handle.observed.borrow().clone();
            for record in observed.containers.iter().filter(|record| record.state == ContainerState::Exited) {
                let removed =
                    start::remove_container(&self.ctx, &pod, &record.id, &record.name, &record.log_path).await;
                if let Err(error) = removed {
                    tracing::warn!(container = record.id, %error, "a dead container stays");
                }
            }
            handle.look.notify_one();
        }
        let of_images = matches!(signal, Signal::ImagefsAvailable | Signal::ImagefsInodesFree);
        if of_images || !self.observer.image_fs_is_dedicated() {
            self.ctx.image_gc.remove_unused(&self.ctx).await;
        }
    }

    async fn evict_one(
        &self,
        active: &[Active],
        threshold: &Threshold,
        observations: &Observations,
    ) -> Option<Arc<PodHandle>> {
        let signal = threshold.signal;
        let mut candidates = self.candidates(active, threshold).await;
        rank::rank(&mut candidates, signal.resource());
        let hard = threshold.grace.is_none();
        for candidate in candidates {
            let own = view::grace_seconds(&candidate.pod);
            let most = i64::try_from(self.ctx.config.eviction_max_pod_grace_period_seconds).unwrap_or(i64::MAX);
            let grace = if hard { HARD_GRACE_SECONDS } else { own.min(most) };
            let message = rank::message(&candidate, threshold, observations);
            let Some((_, _, handle)) = active.iter().find(|(_, uid, _)| *uid == candidate.uid) else { continue };
            if evict(&self.ctx, &candidate.pod, handle, message, grace, true) {
                self.ctx.metrics.evicted(signal.name());
                return Some(handle.clone());
            }
        }
        tracing::warn!("no pod is left to be evicted");
        None
    }

    /// What each pod uses of the resource.
    async fn candidates(&self, active: &[Active], threshold: &Threshold) -> Vec<Candidate> {
        let snapshot = self.ctx.stats.snapshot(&self.ctx).await;
        let resource = threshold.signal.resource();
        let disks = match resource {
            Resource::EphemeralStorage | Resource::Inodes => {
                Some(self.ctx.stats.disks(&self.ctx, Duration::ZERO).await)
            }
            Resource::Memory | Resource::Pids => None,
        };
        let part = |uid: &str| disks.as_ref().and_then(|disks| disks.pods.get(uid));
        let dedicated = self.observer.image_fs_is_dedicated();
        active
            .iter()
            .map(|(pod, uid, _)| {
                let sample = snapshot.pods.iter().find(|sample| sample.uid == *uid);
                rank::candidate(pod, uid, threshold.signal, sample, part(uid), dedicated)
            })
            .collect()
    }
}

/// Pods that are there and not over, and that nobody has told to go.
fn active(ctx: &Context) -> Vec<Active> {
    let all = ctx.pods.all().into_iter().map(|(uid, handle)| {
        let pod = handle.pod.borrow().pod.clone();
        (pod, uid, handle)
    });
    all.filter(|(pod, _, handle)| {
        !matches!(view::phase(pod), "Succeeded" | "Failed") && handle.pod.borrow().evicted.is_none()
    })
    .collect()
}

/// Ends a pod that has more on the disk than it may; gives that pod.
async fn evict_over_limits(ctx: &Arc<Context>, image_fs: &mut Option<ImageFs>) -> Option<Arc<PodHandle>> {
    let limited: Vec<_> = active(ctx).into_iter().filter(|(pod, ..)| limits::has_any(pod)).collect();
    if limited.is_empty() {
        return None;
    }
    if image_fs.is_none() {
        *image_fs = ImageFs::find(ctx).await;
    }
    let dedicated = image_fs.as_ref().is_some_and(|found| found.dedicated);
    for (pod, uid, handle) in limited {
        let disk = crate::stats::disk::of_pod(ctx, &pod, &uid).await;
        let Some((signal, message)) = limits::exceeded(&pod, &disk, dedicated) else { continue };
        if evict(ctx, &pod, &handle, message, HARD_GRACE_SECONDS, false) {
            ctx.metrics.evicted(signal);
            return Some(handle);
        }
    }
    None
}

/// How long to rest after a walk that took so long: walking takes no more than one part in twenty of the time, as long as
/// that makes nobody wait for more than a minute.
fn rest_after(took: Duration, interval: Duration) -> Duration {
    interval.max((took * 20).min(LONGEST_REST))
}

/// Tells the pod's task; `false` when the pod is too important.
fn evict(ctx: &Context, pod: &Pod, handle: &PodHandle, message: String, grace_seconds: i64, disrupted: bool) -> bool {
    if is_critical(pod) {
        tracing::warn!(pod = view::format(pod), "a critical pod is not evicted");
        return false;
    }
    ctx.events.warning(&keelson_client::reference(pod), EVICTED, message.clone());
    let ended = Ended { reason: EVICTED.into(), message, rejected: false, disrupted };
    handle.pod.send_modify(|latest| latest.evicted = Some(Arc::new(Evicted { ended, grace_seconds })));
    true
}

/// Whether the node would lose what it needs itself.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    view::is_static(pod) || view::spec(pod).is_some_and(|spec| spec.priority.unwrap_or(0) >= CRITICAL_PRIORITY)
}

/// Waits until what the pod used was taken away, within limits: before, the node looks as short as it was.
async fn wait_until_released(handle: &PodHandle) {
    let mut released = handle.released.subscribe();
    if tokio::time::timeout(CLEANUP_TIMEOUT, released.wait_for(|released| *released)).await.is_err() {
        tracing::warn!("an evicted pod still has what it used");
    }
}

/// Why a new pod is refused while the node has `conditions`; as upstream, best-effort pods are while memory is short, and all
/// but critical ones while anything else is.
pub(crate) fn refuse(pod: &Pod, conditions: &BTreeSet<Pressure>) -> Option<Ended> {
    if conditions.is_empty() || is_critical(pod) {
        return None;
    }
    if conditions.iter().all(|condition| *condition == Pressure::Memory) {
        let taint = Taint {
            key: "node.kubernetes.io/memory-pressure".into(),
            effect: "NoSchedule".into(),
            ..Default::default()
        };
        if qos_class(pod) != QosClass::BestEffort || tolerates(pod, &taint) {
            return None;
        }
    }
    let names: Vec<_> = conditions.iter().map(|condition| condition.name()).collect();
    let message = format!("The node had condition: [{}]. ", names.join(" "));
    Some(Ended::rejection(EVICTED, message))
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let all = view::spec(pod).and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    all.iter().any(|toleration| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (key, effect, operator) = (text(&toleration.key), text(&toleration.effect), text(&toleration.operator));
        (effect.is_empty() || effect == taint.effect)
            && (key.is_empty() || key == taint.key)
            && match operator.as_str() {
                "Exists" => true,
                "" | "Equal" => text(&toleration.value) == text(&taint.value) && !key.is_empty(),
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn walks_take_a_small_part_of_the_time() {
        let (ms, ten) = (Duration::from_millis, Duration::from_secs(10));
        assert_eq!(rest_after(ms(5), ten), ten);
        assert_eq!(rest_after(ms(1000), ten), ms(20_000));
        assert_eq!(rest_after(ms(30_000), ten), ms(60_000));
    }

    #[test]
    fn who_may_come_under_pressure() {
        let pod =
            |spec: serde_json::Value| -> Pod { serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap() };
        let best_effort = pod(json!({"containers": [{"name": "c"}]}));
        let tolerant = pod(json!({"containers": [{"name": "c"}], "tolerations": [
            {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}]}));
        let burstable = pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}));
        let critical = pod(json!({"containers": [{"name": "c"}], "priority": 2_000_001_000}));
        let memory = BTreeSet::from([Pressure::Memory]);
        let both = BTreeSet::from([Pressure::Disk, Pressure::Memory]);
        for (pod, conditions, message) in [
            (&best_effort, &BTreeSet::new(), None),
            (&best_effort, &memory, Some("The node had condition: [MemoryPressure]. ")),
            (&tolerant, &memory, None),
            (&burstable, &memory, None),
            (&burstable, &both, Some("The node had condition: [DiskPressure MemoryPressure]. ")),
            (&tolerant, &both, Some("The node had condition: [DiskPressure MemoryPressure]. ")),
            (&critical, &both, None),
        ] {
            assert_eq!(refuse(pod, conditions).map(|ended| ended.message).as_deref(), message);
        }
    }
}
