//! Pods of this node as the API server lists them, each given to a task of its own; and what is left of pods that no
//! longer exist, cleaned up.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use keelson_client::{Change, SharedInformer};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admit;
use crate::context::{Context, Latest, PodHandle};
use crate::pod::observed::Observed;
use crate::pod::status::Ended;
use crate::pod::worker::Worker;
use crate::pod::{start, view};
use crate::resources::{self, QosClass};
use crate::runtime::labels;
use crate::{security, sysctl};

/// Runs until `shutdown`; the pods' containers go on.
pub(crate) async fn run(
    ctx: Arc<Context>,
    pods: SharedInformer<Pod>,
    mut unknown: mpsc::Receiver<String>,
    shutdown: CancellationToken,
) {
    let mut manager =
        Manager { ctx, workers: JoinSet::new(), orphans: JoinSet::new(), cleaning: BTreeSet::new(), shutdown };
    let mut changes = pods.subscribe();
    let mut synced = false;
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Change::Added(pod) | Change::Updated(_, pod) => manager.upsert(pod),
                Change::Deleted(pod) => manager.deleted(pod),
                Change::Resync(all) => {
                    manager.resync(all).await;
                    if !synced {
                        synced = true;
                        manager.clean_up().await;
                    }
                }
            },
            Some(uid) = manager.workers.join_next() => match uid {
                Ok(uid) => {
                    manager.ctx.pods.remove(&uid);
                    manager.balance();
                }
                Err(error) => tracing::error!(%error, "a pod's task died"),
            },
            Some(uid) = manager.orphans.join_next() => {
                if let Ok(uid) = uid {
                    manager.cleaning.remove(&uid);
                }
            }
            Some(uid) = unknown.recv(), if synced => manager.orphan(uid),
            () = manager.shutdown.cancelled() => break,
        }
    }
    while manager.workers.join_next().await.is_some() {}
}

struct Manager {
    ctx: Arc<Context>,
    workers: JoinSet<String>,
    orphans: JoinSet<String>,
    cleaning: BTreeSet<String>,
    shutdown: CancellationToken,
}

impl Manager {
    fn upsert(&mut self, pod: Arc<Pod>) {
        let uid = view::uid(&pod).to_string();
        if let Some(handle) = self.ctx.pods.get(&uid) {
            handle.pod.send_modify(|latest| latest.pod = pod);
            return;
        }
        let refused = self.refuse(&pod);
        let handle = Arc::new(PodHandle {
            pod: watch::Sender::new(Latest { pod, removed: false }),
            observed: watch::Sender::new(Arc::new(Observed::default())),
            look: Notify::new(),
        });
        self.ctx.pods.insert(&uid, handle.clone());
        self.balance();
        let worker = Worker::new(self.ctx.clone(), handle, refused);
        let shutdown = self.shutdown.clone();
        self.workers.spawn(async move {
            Box::pin(worker.run(shutdown)).await;
            uid
        });
    }

    /// Why a new pod may not run here. One that this node has started before is not asked again.
    fn refuse(&self, pod: &Pod) -> Option<Ended> {
        let started = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if started || pod.metadata.deletion_timestamp.is_some() || view::phase(pod) != "Pending" {
            return None;
        }
        let others: Vec<_> = self.ctx.pods.all().iter().map(|(_, handle)| handle.pod.borrow().pod.clone()).collect();
        let abilities = self.ctx.abilities.read().clone();
        let refused = sysctl::refuse(pod, &self.ctx.config.allowed_unsafe_sysctls, abilities.kernel)
            .or_else(|| security::refuse(pod, &abilities))
            .or_else(|| admit::refuse(pod, &others, &self.ctx.allocatable))?;
        self.ctx.events.warning(&keelson_client::reference(pod), &refused.reason, refused.message.clone());
        Some(refused)
    }

    fn deleted(&mut self, pod: Arc<Pod>) {
        if let Some(handle) = self.ctx.pods.get(view::uid(&pod)) {
            handle.pod.send_modify(|latest| *latest = Latest { pod, removed: true });
        }
    }

    async fn resync(&mut self, all: Vec<Arc<Pod>>) {
        let present: BTreeSet<String> = all.iter().map(|pod| view::uid(pod).to_string()).collect();
        for (uid, handle) in self.ctx.pods.all() {
            if !present.contains(&uid) {
                handle.pod.send_modify(|latest| latest.removed = true);
            }
        }
        for pod in all {
            self.upsert(pod);
        }
    }

    /// CPU weight of all burstable pods together: the sum of what they asked for.
    fn balance(&self) {
        let pods = self.ctx.pods.all();
        let milli = pods
            .iter()
            .map(|(_, handle)| handle.pod.borrow().pod.clone())
            .filter(|pod| resources::qos_class(pod) == QosClass::Burstable)
            .map(|pod| resources::pod_requests(&pod).0)
            .sum();
        if let Err(error) = self.ctx.cgroups.set_burstable_shares(resources::shares(milli)) {
            tracing::warn!(%error, "cannot set the burstable pods' CPU weight");
        }
    }

    /// Everything on this node that belongs to pods the API server does not list.
    async fn clean_up(&mut self) {
        let mut found: BTreeSet<String> = self.ctx.volumes.pods_on_disk().into_iter().collect();
        found.extend(self.ctx.cgroups.pods());
        found.extend(self.ctx.devices.pods());
        if let Ok(sandboxes) = self.ctx.runtime.list_sandboxes(None).await {
            found.extend(sandboxes.into_iter().filter_map(|sandbox| sandbox.labels.get(labels::POD_UID).cloned()));
        }
        if let Ok(containers) = self.ctx.runtime.list_containers(None).await {
            found.extend(containers.into_iter().filter_map(|container| container.labels.get(labels::POD_UID).cloned()));
        }
        for uid in found {
            self.orphan(uid);
        }
    }

    fn orphan(&mut self, uid: String) {
        if self.ctx.pods.get(&uid).is_some() || !self.cleaning.insert(uid.clone()) {
            return;
        }
        let ctx = self.ctx.clone();
        self.orphans.spawn(async move {
            match start::remove_orphan(&ctx, &uid).await {
                Ok(()) => tracing::debug!(uid, "removed what was left of a pod"),
                Err(error) => tracing::warn!(uid, %error, "cannot remove what is left of a pod"),
            }
            uid
        });
    }
}
