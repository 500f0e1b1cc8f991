//! Pods of this node as the API server lists them and as its own files describe them, each given to a task of its own; and
//! what is left of pods that no longer exist, cleaned up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use keelson_client::{Change, SharedInformer};
use keelson_cri::v1 as cri;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Evicted, PodHandle};
use crate::pod::status::Ended;
use crate::pod::worker::Worker;
use crate::pod::{resize, start, view};
use crate::quantity::ResourceList;
use crate::resources::{self, QosClass};
use crate::runtime::labels;
use crate::static_pods::mirror::{self, Mirrors};
use crate::{admit, eviction, logs, node_shutdown, preempt, security, static_pods, sysctl};

/// Between two looks for what is left of pods that are no more: what ended while the runtime was away is in no event.
const SWEEP: Duration = Duration::from_secs(120);
/// As [`SWEEP`], after one that left something, growing.
const SWEEP_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What pods that make room for others may take over their grace.
const LEAVE_SLACK: Duration = Duration::from_secs(10);

/// Where pods come from.
pub(crate) struct Sources {
    /// Those of this node that the API server lists, mirrors of static pods among them.
    pub pods: SharedInformer<Pod>,
    /// Uids of pods that the runtime has and nobody knows.
    pub unknown: mpsc::Receiver<String>,
    pub statics: watch::Receiver<static_pods::Set>,
    /// Told which mirrors there are.
    pub mirrors: watch::Sender<Mirrors>,
    /// Told when the task of a pod is over.
    pub ended: Arc<Notify>,
}

/// Runs until `shutdown`; the pods' containers go on.
pub(crate) async fn run(ctx: Arc<Context>, sources: Sources, shutdown: CancellationToken) {
    let Sources { pods, mut unknown, statics, mirrors, ended } = sources;
    let mut manager = Manager {
        ctx: ctx.clone(),
        workers: JoinSet::new(),
        orphans: JoinSet::new(),
        cleaning: BTreeSet::new(),
        sweeps: JoinSet::new(),
        sweep_at: Instant::now(),
        sweep_backoff: keelson_client::Backoff::new(SWEEP_RETRY.0, SWEEP_RETRY.1),
        statics,
        mirrors,
        shutdown,
    };
    let mut changes = pods.subscribe();
    // Environment variables of Services are read when a container starts: they must be there by then. Pods are admitted by
    // what the Node says. Static pods wait for neither: the API server may be one of them.
    let mut node = ctx.node.subscribe();
    let known = async { drop(node.wait_for(Option::is_some).await) };
    let ready = async { tokio::join!(ctx.services.synced(), known) };
    let mut ready = std::pin::pin!(ready);
    let (mut is_ready, mut synced) = (false, false);
    manager.take_statics();
    loop {
        tokio::select! {
            _ = &mut ready, if !is_ready => is_ready = true,
            change = changes.next(), if is_ready => match change {
                Change::Added(pod) | Change::Updated(_, pod) => manager.take_from_api(pod),
                Change::Deleted(pod) => manager.deleted(pod),
                Change::Resync(all) => {
                    manager.resync(all);
                    synced = true;
                }
            },
            Ok(()) = manager.statics.changed() => manager.take_statics(),
            Some(uid) = manager.workers.join_next() => match uid {
                Ok(uid) => {
                    manager.ctx.pods.remove(&uid);
                    manager.tell_of_room();
                    manager.balance();
                    // One of the same name may have waited for its end.
                    manager.take_statics();
                    ended.notify_one();
                }
                Err(error) => tracing::error!(%error, "a pod's task died"),
            },
            Some(orphan) = manager.orphans.join_next() => if let Ok((uid, is_gone)) = orphan {
                manager.cleaning.remove(&uid);
                if !is_gone {
                    manager.sweep_again();
                }
            },
            () = tokio::time::sleep_until(manager.sweep_at), if synced && manager.sweeps.is_empty() => manager.sweep(),
            Some(found) = manager.sweeps.join_next() => manager.swept(found.ok().flatten()),
            Some(uid) = unknown.recv(), if synced => manager.orphan(uid),
            () = manager.shutdown.cancelled() => break,
        }
    }
    while manager.workers.join_next().await.is_some() {}
}

/// Waits until the pods have left what they used, but not much longer than they were given.
async fn until_gone(leaving: Vec<Arc<PodHandle>>) {
    let waits = leaving.iter().map(|handle| async {
        let grace = view::grace_seconds(&handle.pod.borrow().pod).max(0).cast_unsigned();
        let mut released = handle.released.subscribe();
        let over = released.wait_for(|released| *released);
        if tokio::time::timeout(Duration::from_secs(grace) + LEAVE_SLACK, over).await.is_err() {
            tracing::warn!("a pod that was to make room is still there");
        }
    });
    futures::future::join_all(waits).await;
}

struct Manager {
    ctx: Arc<Context>,
    workers: JoinSet<String>,
    /// And whether all of it is gone.
    orphans: JoinSet<(String, bool)>,
    cleaning: BTreeSet<String>,
    sweeps: JoinSet<Option<BTreeSet<String>>>,
    sweep_at: Instant,
    sweep_backoff: keelson_client::Backoff,
    statics: watch::Receiver<static_pods::Set>,
    mirrors: watch::Sender<Mirrors>,
    shutdown: CancellationToken,
}

impl Manager {
    fn take_from_api(&mut self, pod: Arc<Pod>) {
        if !mirror::is_mirror(&pod) {
            return self.upsert(view::of_api(pod), None);
        }
        let key = mirror::key(&pod);
        self.mirrors.send_modify(|known| drop(known.get_or_insert_default().insert(key.clone(), pod)));
        self.show_mirror(&key);
    }

    fn upsert(&mut self, pod: Arc<Pod>, mirror: Option<Arc<Pod>>) {
        let uid = view::uid(&pod).to_string();
        if let Some(handle) = self.ctx.pods.get(&uid) {
            handle.pod.send_modify(|latest| {
                latest.pod = pod;
                latest.mirror = mirror;
            });
            return;
        }
        let (refused, leaving) = self.judge(&pod);
        let told = resize::as_told(&pod);
        let allocated = (!Arc::ptr_eq(&told, &pod)).then_some(told);
        let handle = Arc::new(PodHandle::new(pod, mirror, allocated));
        self.ctx.pods.insert(&uid, handle.clone());
        self.balance();
        let worker = Worker::new(self.ctx.clone(), handle, refused);
        let shutdown = self.shutdown.clone();
        self.workers.spawn(async move {
            if !leaving.is_empty() {
                let _ = shutdown.run_until_cancelled(until_gone(leaving)).await;
            }
            Box::pin(worker.run(shutdown)).await;
            uid
        });
    }

    /// Brings the tasks of static pods in line with the files.
    fn take_statics(&mut self) {
        let wanted = self.statics.borrow_and_update().clone();
        for (uid, handle) in self.ctx.pods.all() {
            let is_static = view::is_static(&handle.pod.borrow().pod);
            if is_static && !wanted.contains_key(&uid) {
                handle.pod.send_if_modified(|latest| !std::mem::replace(&mut latest.removed, true));
            }
        }
        for (uid, pod) in wanted {
            let (namespace, name) = mirror::key(&pod);
            let other = self.ctx.pods.named(&namespace, &name).is_some();
            if self.ctx.pods.get(&uid).is_some() || !other {
                self.take_static(&pod);
            }
        }
    }

    fn take_static(&mut self, pod: &Pod) {
        let mirror = self.mirrors.borrow().as_ref().and_then(|known| known.get(&mirror::key(pod)).cloned());
        let mirror = mirror.filter(|mirror| mirror::shows(mirror, pod));
        self.upsert(Arc::new(mirror::overlay(pod, mirror.as_deref(), self.ctx.started)), mirror);
    }

    /// Tells a static pod's task what has become of its mirror.
    fn show_mirror(&mut self, key: &(String, String)) {
        let pod = self.statics.borrow().values().find(|pod| mirror::key(pod) == *key).cloned();
        if let Some(pod) = pod.filter(|pod| self.ctx.pods.get(view::uid(pod)).is_some()) {
            self.take_static(&pod);
        }
    }

    /// Why a new pod may not run here, or which pods it must wait for because they make room for it. One that this node has
    /// started before is not asked again.
    fn judge(&self, pod: &Pod) -> (Option<Ended>, Vec<Arc<PodHandle>>) {
        let started = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if started || pod.metadata.deletion_timestamp.is_some() || view::phase(pod) != "Pending" {
            return (None, Vec::new());
        }
        let handles: Vec<_> = self.ctx.pods.all().into_iter().map(|(_, handle)| handle).collect();
        let others: Vec<_> = handles.iter().map(|handle| handle.as_allocated()).collect();
        let abilities = self.ctx.abilities.read().clone();
        let node = self.ctx.node.borrow().clone().flatten();
        let conditions = self.ctx.node_conditions.borrow().clone();
        let allocatable = self.allocatable(node.as_deref());
        let mut leaving = Vec::new();
        let refused = eviction::refuse(pod, &conditions)
            .or_else(|| sysctl::refuse(pod, &self.ctx.config.allowed_unsafe_sysctls, abilities.kernel))
            .or_else(|| security::refuse(pod, &abilities))
            .or_else(|| {
                let lacking: Vec<_> =
                    admit::shortages(pod, &others, &allocatable).iter().map(admit::Shortage::lack).collect();
                if lacking.is_empty() || !eviction::is_critical(pod) {
                    return admit::refuse(pod, &others, &allocatable, node.as_deref());
                }
                // Nobody makes room on a node that goes down.
                let elsewhere = admit::misplaced(pod, &others, node.as_deref());
                elsewhere.or_else(|| node_shutdown::refuse(*self.ctx.shutting_down.borrow())).or_else(|| {
                    let chosen = self.preempt(pod, &handles, &others, &lacking);
                    chosen.map(|chosen| leaving = chosen).err()
                })
            })
            .or_else(|| node_shutdown::refuse(*self.ctx.shutting_down.borrow()));
        let refused = refused.map(|refused| {
            self.ctx.events.warning(&keelson_client::reference(pod), &refused.reason, refused.message.clone());
            refused.in_status()
        });
        (refused, leaving)
    }

    /// What pods may use, with the extended resources that somebody else than a device plugin gave the node.
    fn allocatable(&self, node: Option<&Node>) -> ResourceList {
        let mut allocatable = self.ctx.allocatable.clone();
        let given = node.and_then(|node| node.status.as_ref()?.allocatable.as_ref());
        let (mut plugins, mut healthy) = (ResourceList::new(), ResourceList::new());
        self.ctx.devices.add_to(&mut plugins, &mut healthy);
        for (name, amount) in given.into_iter().flatten() {
            if name.contains('/') && !plugins.contains_key(name) {
                allocatable.entry(name.clone()).or_insert_with(|| amount.clone());
            }
        }
        allocatable
    }

    /// Ends the pods that must make room for `pod`.
    fn preempt(
        &self,
        pod: &Pod,
        handles: &[Arc<PodHandle>],
        others: &[Arc<Pod>],
        lacking: &[admit::Lack],
    ) -> Result<Vec<Arc<PodHandle>>, Ended> {
        let running: Vec<_> = handles
            .iter()
            .zip(others)
            .filter(|(_, other)| !matches!(view::phase(other), "Succeeded" | "Failed"))
            .map(|(handle, other)| (handle.clone(), other.clone()))
            .collect();
        let (handles, running): (Vec<_>, Vec<_>) = running.into_iter().unzip();
        let chosen = preempt::victims(pod, &running, lacking).map_err(|why| {
            let message = format!(
                "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of \
                 pods to preempt: {why}"
            );
            Ended::rejection("UnexpectedAdmissionError", message)
        })?;
        let chosen = chosen.into_iter().filter_map(|index| Some((handles.get(index)?.clone(), running.get(index)?)));
        let told = chosen.map(|(handle, victim)| {
            self.ctx.events.warning(&keelson_client::reference(victim.as_ref()), preempt::REASON, preempt::MESSAGE);
            let ended = Ended {
                reason: preempt::REASON.into(),
                message: preempt::MESSAGE.into(),
                rejected: false,
                disrupted: true,
            };
            let order = Evicted { ended, grace_seconds: view::grace_seconds(victim) };
            handle.pod.send_modify(|latest| latest.evicted = Some(Arc::new(order)));
            handle
        });
        Ok(told.collect())
    }

    fn deleted(&mut self, pod: Arc<Pod>) {
        if mirror::is_mirror(&pod) {
            let key = mirror::key(&pod);
            self.mirrors.send_modify(|known| drop(known.get_or_insert_default().remove(&key)));
            return self.show_mirror(&key);
        }
        if let Some(handle) = self.ctx.pods.get(view::uid(&pod)) {
            let pod = view::of_api(pod);
            handle.pod.send_modify(|latest| (latest.pod, latest.removed, latest.mirror) = (pod, true, None));
        }
    }

    fn resync(&mut self, all: Vec<Arc<Pod>>) {
        let present: BTreeSet<String> = all.iter().map(|pod| view::uid(pod).to_string()).collect();
        for (uid, handle) in self.ctx.pods.all() {
            let is_static = view::is_static(&handle.pod.borrow().pod);
            if !is_static && !present.contains(&uid) {
                handle.pod.send_modify(|latest| latest.removed = true);
            }
        }
        let (mirrors, mut pods): (Vec<_>, Vec<_>) = all.into_iter().partition(|pod| mirror::is_mirror(pod));
        self.mirrors.send_replace(Some(mirrors.into_iter().map(|pod| (mirror::key(&pod), pod)).collect()));
        self.take_statics();
        // Those that run here already are counted before new ones are judged, and of those the oldest comes first.
        let started = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        pods.sort_by_cached_key(|pod| (!started(pod), pod.metadata.creation_timestamp.clone().map(|time| time.0)));
        for pod in pods {
            self.upsert(view::of_api(pod), None);
        }
    }

    /// Lets pods whose resize is deferred look again: another pod is gone.
    fn tell_of_room(&self) {
        for (_, handle) in self.ctx.pods.all() {
            if handle.waits_for_room.load(Ordering::Relaxed) {
                handle.look.notify_one();
            }
        }
    }

    /// CPU weight of all burstable pods together: the sum of what they asked for.
    fn balance(&self) {
        let pods = self.ctx.pods.all();
        let milli = pods
            .iter()
            .map(|(_, handle)| handle.as_allocated())
            .filter(|pod| resources::qos_class(pod) == QosClass::Burstable)
            .map(|pod| resources::pod_requests(&pod).0)
            .sum();
        if let Err(error) = self.ctx.cgroups.set_burstable_shares(resources::shares(milli)) {
            tracing::warn!(%error, "cannot set the burstable pods' CPU weight");
        }
    }

    /// Looks for everything on this node that belongs to pods that nobody lists.
    fn sweep(&mut self) {
        let ctx = self.ctx.clone();
        self.sweeps.spawn(async move {
            let sandboxes = ctx.runtime.list_sandboxes(None).await.ok()?;
            let containers = ctx.runtime.list_containers(None).await.ok()?;
            let running = |container: &&cri::Container| container.state == cri::ContainerState::ContainerRunning as i32;
            let running: BTreeSet<String> = containers.iter().filter(running).map(|found| found.id.clone()).collect();
            let own = ctx.clone();
            let logs = tokio::task::spawn_blocking(move || {
                logs::remove_dangling(&own.config.container_logs_dir, &running);
                logs::pods(&own.config.pod_logs_dir)
            });
            let labels = sandboxes.into_iter().map(|s| s.labels).chain(containers.into_iter().map(|c| c.labels));
            let mut found: BTreeSet<String> = labels.filter_map(|mut labels| labels.remove(labels::POD_UID)).collect();
            found.extend(ctx.volumes.pods_on_disk());
            found.extend(logs.await.unwrap_or_default().into_iter().map(|(uid, _)| uid));
            found.extend(ctx.cgroups.pods());
            found.extend(ctx.managers.pods());
            Some(found)
        });
    }

    /// Cleans up after the pods that were found; `None` when the runtime did not tell.
    fn swept(&mut self, found: Option<BTreeSet<String>>) {
        let Some(found) = found else { return self.sweep_again() };
        self.sweep_at = Instant::now() + SWEEP;
        let before = self.cleaning.len();
        for uid in found {
            self.orphan(uid);
        }
        if self.cleaning.len() == before {
            self.sweep_backoff.reset();
        }
    }

    /// Something is left, or may be.
    fn sweep_again(&mut self) {
        self.sweep_at = Instant::now() + self.sweep_backoff.next_delay();
    }

    fn orphan(&mut self, uid: String) {
        if self.ctx.pods.get(&uid).is_some() || !self.cleaning.insert(uid.clone()) {
            return;
        }
        let ctx = self.ctx.clone();
        self.orphans.spawn(async move {
            let removed = start::remove_orphan(&ctx, &uid).await;
            match &removed {
                Ok(()) => tracing::debug!(uid, "removed what was left of a pod"),
                Err(error) => tracing::warn!(uid, %error, "cannot remove what is left of a pod yet"),
            }
            (uid, removed.is_ok())
        });
    }
}
