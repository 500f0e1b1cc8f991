//! The executor: feeds the cache and the queue from watches, runs cycles, binds, and says why a pod waits.
//!
//! One task owns all state, so no lock is taken and no event can slip between a cycle and its result. Bindings and
//! condition patches run beside it, a bounded number at a time.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use keelson_client::{Change, EventRecorder, InformerFactory, LeaderElector, SharedInformer, Subscription, leader};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::cycle::{self, Cursor};
use crate::framework::{Event, Profile};
use crate::plugins::{ScoringStrategy, default_profile};
use crate::pod::{PodInfo, is_terminal};
use crate::queue::{Queue, Waiting};

/// Bindings and condition patches under way at once.
const MAX_WRITES: usize = 64;

/// What a scheduler is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `schedulerName`s it serves, and how each scores resources.
    pub profiles: Vec<(String, ScoringStrategy)>,
    /// Take the Lease `kube-system/kube-scheduler` before acting, under this identity. `None`: there is only one.
    pub leader_election_identity: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            profiles: vec![("default-scheduler".into(), ScoringStrategy::LeastAllocated)],
            leader_election_identity: None,
        }
    }
}

/// Why a scheduler ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configuration without profiles serves nobody.
    #[error("profiles: at least one is needed")]
    NoProfiles,
}

/// Runs until `shutdown`.
pub async fn run(
    client: kube::Client,
    informers: InformerFactory,
    config: Config,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    if config.profiles.is_empty() {
        return Err(Error::NoProfiles);
    }
    let Some(identity) = config.leader_election_identity.clone() else {
        Scheduler::new(client, &informers, &config).run(&shutdown).await;
        return Ok(());
    };
    let lease = leader::Config::new("kube-system", "kube-scheduler", identity);
    let recorder = EventRecorder::new(client.clone(), "default-scheduler", None);
    let elector = LeaderElector::new(client.clone(), lease, Some(recorder));
    while let Some(leadership) = elector.acquire(&shutdown).await {
        let stop = leadership.lost.child_token();
        let mut scheduler = Scheduler::new(client.clone(), &informers, &config);
        tokio::select! {
            () = scheduler.run(&stop) => {}
            () = shutdown.cancelled() => stop.cancel(),
        }
        leadership.release().await;
        if shutdown.is_cancelled() {
            break;
        }
    }
    Ok(())
}

struct Scheduler {
    client: kube::Client,
    recorder: EventRecorder,
    known_pods: SharedInformer<core::Pod>,
    pods: Subscription<core::Pod>,
    nodes: Subscription<core::Node>,
    pods_known: bool,
    nodes_known: bool,
    profiles: Vec<Profile>,
    cache: Cache,
    queue: Queue,
    cursor: Cursor,
    writes: Arc<Semaphore>,
    results: (mpsc::UnboundedSender<Bound>, mpsc::UnboundedReceiver<Bound>),
}

/// A binding that failed. Bounded by [`MAX_WRITES`] in flight.
struct Bound {
    waiting: Waiting,
    error: String,
}

impl Scheduler {
    fn new(client: kube::Client, informers: &InformerFactory, config: &Config) -> Self {
        let profiles = config.profiles.iter().map(|(name, scoring)| default_profile(name, *scoring)).collect();
        let known_pods = informers.get::<core::Pod>();
        Self {
            recorder: EventRecorder::new(client.clone(), "default-scheduler", None),
            pods: known_pods.subscribe(),
            known_pods,
            nodes: informers.get::<core::Node>().subscribe(),
            pods_known: false,
            nodes_known: false,
            client,
            profiles,
            cache: Cache::default(),
            queue: Queue::default(),
            cursor: Cursor::default(),
            writes: Arc::new(Semaphore::new(MAX_WRITES)),
            results: mpsc::unbounded_channel(),
        }
    }

    async fn run(&mut self, stop: &CancellationToken) {
        loop {
            while let Some(change) = self.nodes.try_next() {
                self.on_node(change);
            }
            while let Some(change) = self.pods.try_next() {
                self.on_pod(change);
            }
            while let Ok(failed) = self.results.1.try_recv() {
                self.on_bind_failed(failed);
            }
            if stop.is_cancelled() {
                return;
            }
            // Nothing is placed before all nodes and all pods on them are known.
            let ready = self.pods_known && self.nodes_known && self.writes.available_permits() > 0;
            if ready && let Some(waiting) = self.queue.pop(Instant::now()) {
                self.schedule(waiting);
                // Bindings of earlier pods, and everything else in this process, go on between cycles.
                tokio::task::yield_now().await;
                continue;
            }
            let timer = self.queue.next_timer().filter(|_| ready);
            let writes = self.writes.clone();
            tokio::select! {
                change = self.nodes.next() => self.on_node(change),
                change = self.pods.next() => self.on_pod(change),
                Some(failed) = self.results.1.recv() => self.on_bind_failed(failed),
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
                _ = writes.acquire(), if self.writes.available_permits() == 0 => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn schedule(&mut self, waiting: Waiting) {
        let Some(profile) = self.profile_of(&waiting.pod.scheduler_name) else { return };
        let pick = |count| rand::random_range(0..count);
        let result = cycle::schedule(&self.profiles[profile], &self.cache, &waiting.pod, &mut self.cursor, pick);
        match result {
            Ok(node) => {
                let node = node.name.clone();
                self.cache.assume(waiting.pod.clone(), &node);
                self.bind(waiting, node);
            }
            Err(error) => {
                let message = error.to_string();
                self.report(&waiting.pod, "Unschedulable", &message);
                self.queue.unschedulable(waiting, error.plugins, Instant::now());
            }
        }
    }

    /// Writes the binding, beside the loop.
    fn bind(&self, waiting: Waiting, node: String) {
        let (client, recorder, results) = (self.client.clone(), self.recorder.clone(), self.results.0.clone());
        let writes = self.writes.clone();
        tokio::spawn(async move {
            let Ok(_permit) = writes.acquire().await else { return };
            let pod = &waiting.pod;
            match bind(client, pod, &node).await {
                Ok(()) => {
                    let message = format!("Successfully assigned {} to {node}", pod.key.as_str());
                    recorder.normal(&pod.reference, "Scheduled", message);
                }
                Err(error) => {
                    // The receiver is gone only when the scheduler is.
                    let _ = results.send(Bound { error: error.to_string(), waiting });
                }
            }
        });
    }

    fn on_bind_failed(&mut self, failed: Bound) {
        let Bound { waiting, error } = failed;
        self.cache.forget(&waiting.pod.uid);
        self.wake(Event::PodDeleted);
        tracing::info!(pod = waiting.pod.key.as_str(), error, "binding failed");
        // Unless it is gone or bound by somebody else by now.
        let waits = self.known_pods.get_key(&waiting.pod.key).is_some_and(|pod| {
            pod.metadata.uid.as_ref() == Some(&waiting.pod.uid)
                && pod.metadata.deletion_timestamp.is_none()
                && pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())
        });
        if waits {
            self.report(&waiting.pod, "SchedulerError", &format!("binding rejected: {error}"));
            self.queue.failed(waiting, Instant::now());
        }
    }

    /// Event and condition: why the pod has no node.
    fn report(&self, pod: &PodInfo, reason: &str, message: &str) {
        self.recorder.warning(&pod.reference, "FailedScheduling", message);
        if pod.unscheduled.as_ref().is_some_and(|(r, m)| r == reason && m == message) {
            return;
        }
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastProbeTime": null, "lastTransitionTime": keelson_client::clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]}});
        let api: Api<core::Pod> = Api::namespaced(self.client.clone(), pod.key.namespace().unwrap_or_default());
        let (name, writes) = (pod.key.name().to_owned(), self.writes.clone());
        tokio::spawn(async move {
            let Ok(_permit) = writes.acquire().await else { return };
            if let Err(error) = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                tracing::debug!(pod = name, %error, "cannot say why the pod is not scheduled");
            }
        });
    }

    fn on_node(&mut self, change: Change<core::Node>) {
        match change {
            Change::Added(node) | Change::Updated(_, node) => self.set_node(&node),
            Change::Deleted(node) => self.cache.remove_node(node.metadata.name.as_deref().unwrap_or_default()),
            Change::Resync(all) => {
                let names: HashSet<&str> = all.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
                let gone: Vec<String> = self
                    .cache
                    .nodes()
                    .iter()
                    .filter(|n| !names.contains(n.name.as_str()))
                    .map(|n| n.name.clone())
                    .collect();
                for name in gone {
                    self.cache.remove_node(&name);
                }
                for node in &all {
                    self.set_node(node);
                }
                self.nodes_known = true;
            }
        }
    }

    fn set_node(&mut self, node: &core::Node) {
        if let Some(event) = self.cache.set_node(node) {
            self.wake(event);
        }
    }

    fn on_pod(&mut self, change: Change<core::Pod>) {
        match change {
            Change::Added(pod) | Change::Updated(_, pod) => self.set_pod(&pod),
            Change::Deleted(pod) => self.remove_pod(pod.metadata.uid.as_deref().unwrap_or_default()),
            Change::Resync(all) => {
                let uids: HashSet<&str> = all.iter().filter_map(|p| p.metadata.uid.as_deref()).collect();
                for uid in self.cache.placed_uids().into_iter().chain(self.queue.uids()) {
                    if !uids.contains(uid.as_str()) {
                        self.remove_pod(&uid);
                    }
                }
                for pod in &all {
                    self.set_pod(pod);
                }
                self.pods_known = true;
            }
        }
    }

    fn set_pod(&mut self, pod: &core::Pod) {
        let Some(info) = PodInfo::new(pod) else { return };
        if is_terminal(pod) {
            self.remove_pod(&info.uid);
        } else if let Some(node) = info.node_name.clone() {
            self.queue.remove(&info.uid);
            if let Some(event) = self.cache.set_pod(info, &node) {
                self.wake(event);
            }
        } else if pod.metadata.deletion_timestamp.is_some() {
            self.remove_pod(&info.uid);
        } else if !self.cache.is_placed(&info.uid)
            && let Some(profile) = self.profile_of(&info.scheduler_name)
        {
            self.queue.set(info, &self.profiles[profile], Instant::now());
        }
    }

    fn remove_pod(&mut self, uid: &str) {
        self.queue.remove(uid);
        if self.cache.remove_pod(uid) {
            self.wake(Event::PodDeleted);
        }
    }

    fn wake(&mut self, event: Event) {
        let names: Vec<&str> = self.profiles.iter().map(|p| p.scheduler_name.as_str()).collect();
        let profile_of = |pod: &PodInfo| names.iter().position(|name| *name == pod.scheduler_name);
        self.queue.wake(event, profile_of, &self.profiles, Instant::now());
    }

    fn profile_of(&self, scheduler_name: &str) -> Option<usize> {
        self.profiles.iter().position(|p| p.scheduler_name == scheduler_name)
    }
}

async fn bind(client: kube::Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let namespace = pod.key.namespace().unwrap_or_default();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod.key.name(), "namespace": namespace, "uid": pod.uid},
        "target": {"kind": "Node", "name": node},
    });
    let api: Api<core::Pod> = Api::namespaced(client, namespace);
    let _: serde_json::Value =
        api.create_subresource("binding", pod.key.name(), &PostParams::default(), &binding).await?;
    Ok(())
}
