//! Observes nodes and their Leases, and writes conditions, taints and the readiness of pods on silent nodes.
//!
//! A node is looked at when it changes and when its grace period may have run out; nothing is polled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use keelson_client::{
    Change, EventRecorder, Key, SharedInformer, WorkQueue, clock, is_not_found, reference, run_workers,
};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::plan::{condition, is_evicted, readiness, silenced, tainted};
use super::zones::{Limiter, Zones, zone};
use crate::common::objects::{created, name, namespace, uid};
use crate::common::{patch, pods};
use crate::context::{Context, objects};

const COMPONENT: &str = "node-controller";
/// Where kubelets renew their Leases.
const LEASES: &str = "kube-node-lease";
/// Index of pods by node.
pub(crate) const BY_NODE: &str = "node";

/// The `node-lifecycle-controller`.
pub async fn run(context: Context) {
    let nodes = context.informers.get::<Node>();
    let all_pods = context.informers.get::<Pod>();
    all_pods.add_index(BY_NODE, |pod| pods::node(pod).map(str::to_owned));
    let api = Api::<Lease>::namespaced(context.client.clone(), LEASES);
    let leases = SharedInformer::start(api, watcher::Config::default(), None);
    if !context.synced(&nodes).await || !context.synced(&all_pods).await || !context.synced(&leases).await {
        return;
    }
    let queue = WorkQueue::new();
    let this = Arc::new(Controller {
        context: context.clone(),
        recorder: context.recorder(COMPONENT),
        nodes: nodes.clone(),
        pods: all_pods.clone(),
        leases: leases.clone(),
        queue: queue.clone(),
        seen: Mutex::default(),
        limiter: Mutex::default(),
        all_down: Mutex::new(false),
    });
    let on_node = context.each(&nodes, |change| {
        match &change {
            Change::Added(node) => this.registered(node),
            Change::Deleted(node) => this.removed(node),
            _ => {}
        }
        objects(&change).for_each(|node| queue.add(Key::of(&**node)));
    });
    let on_lease = context.each(&leases, |change| {
        if let Change::Added(lease) | Change::Updated(_, lease) = &change {
            this.note_lease(lease);
        }
    });
    let work = run_workers(COMPONENT, queue.clone(), 4, context.shutdown.clone(), {
        let this = this.clone();
        move |key| {
            let this = this.clone();
            async move { this.sync(&key).await }
        }
    });
    tokio::join!(on_node, on_lease, work);
}

/// When a node was last heard of, by our clock.
struct Seen {
    uid: String,
    heartbeat: Option<Timestamp>,
    renewed: Option<Timestamp>,
    at: Instant,
}

struct Controller {
    context: Context,
    recorder: EventRecorder,
    nodes: SharedInformer<Node>,
    pods: SharedInformer<Pod>,
    leases: SharedInformer<Lease>,
    queue: WorkQueue<Key>,
    seen: Mutex<HashMap<String, Seen>>,
    limiter: Mutex<Limiter>,
    all_down: Mutex<bool>,
}

fn heartbeat(node: &Node) -> Option<Timestamp> {
    Some(condition(node, "Ready")?.last_heartbeat_time.as_ref()?.0)
}

fn renewed(lease: &Lease) -> Option<Timestamp> {
    Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)
}

impl Controller {
    fn registered(&self, node: &Node) {
        let name = name(&node.metadata);
        let message = format!("Node {name} event: Registered Node {name} in Controller");
        self.recorder.normal(&reference(node), "RegisteredNode", message);
    }

    fn removed(&self, node: &Node) {
        let name = name(&node.metadata);
        let message = format!("Node {name} event: Removing Node {name} from Controller");
        self.recorder.normal(&reference(node), "RemovingNode", message);
        self.seen.lock().remove(name);
    }

    fn note_lease(&self, lease: &Lease) {
        if let Some(seen) = self.seen.lock().get_mut(name(&lease.metadata))
            && seen.renewed != renewed(lease)
        {
            seen.renewed = renewed(lease);
            seen.at = Instant::now();
        }
    }

    /// How long the node has been silent.
    fn silence(&self, node: &Node) -> Duration {
        let node_name = name(&node.metadata);
        let mut all = self.seen.lock();
        let lease = self.leases.get(Some(LEASES), node_name).and_then(|lease| renewed(&lease));
        let fresh = || {
            // Never heard of before: from now on, or from its creation if it never reported at all.
            let age = created(&node.metadata).map(|born| clock::now().duration_since(born));
            let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
            let never = condition(node, "Ready").is_none() && lease.is_none();
            let at = if never { Instant::now().checked_sub(age) } else { None };
            let at = at.unwrap_or_else(Instant::now);
            Seen { uid: uid(&node.metadata).to_owned(), heartbeat: heartbeat(node), renewed: lease, at }
        };
        let seen = all.entry(node_name.to_owned()).or_insert_with(fresh);
        if seen.uid != uid(&node.metadata) {
            *seen = fresh();
        }
        if seen.heartbeat != heartbeat(node) {
            seen.heartbeat = heartbeat(node);
            seen.at = Instant::now();
        }
        seen.at.elapsed()
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(node) = self.nodes.get_key(key) else {
            self.note_zones();
            return Ok(None);
        };
        let config = &self.context.config;
        let silence = self.silence(&node);
        let grace = if condition(&node, "Ready").is_none() {
            config.node_startup_grace_period
        } else {
            config.node_monitor_grace_period
        };
        let api = Api::<Node>::all(self.context.client.clone());
        if silence >= grace {
            let unknown = silenced(&node, clock::now());
            let was_ready = readiness(&node) == "True";
            if was_ready {
                tracing::info!(node = key.name(), "node is silent, its status is unknown now");
            }
            if ignore_missing(patch::write(&api, Some("status"), &*node, &unknown).await)?.is_some() {
                // The write brings the node back here with its new conditions.
                return Ok(None);
            }
        }
        let changed = self.note_zones();
        let mut again = (silence < grace).then(|| grace - silence + Duration::from_millis(1));
        if readiness(&node) != "True" {
            self.mark_pods_not_ready(&node).await?;
        }
        let evict = self.may_evict(&node, &mut again);
        let wanted = tainted(&node, evict, clock::now());
        ignore_missing(patch::write(&api, None, &*node, &wanted).await)?;
        if changed {
            self.nodes.list().iter().for_each(|node| self.queue.add(Key::of(&**node)));
        }
        Ok(again)
    }

    /// Notes whether the whole cluster is down; whether that changed.
    fn note_zones(&self) -> bool {
        let nodes = self.nodes.list();
        let zones = Zones::of(nodes.iter().map(|node| &**node), self.context.config.unhealthy_zone_threshold);
        let mut known = self.all_down.lock();
        let changed = *known != zones.all_down();
        if changed {
            *known = zones.all_down();
            if *known {
                tracing::warn!("all nodes are down, evicting no pods");
            } else {
                // What was silent while all were silent gets a new chance.
                self.seen.lock().values_mut().for_each(|seen| seen.at = Instant::now());
            }
        }
        changed
    }

    /// Whether the node's pods may be moved: see [`tainted`].
    fn may_evict(&self, node: &Node, again: &mut Option<Duration>) -> Option<bool> {
        // A node that has yet to report has no pods to lose.
        if readiness(node) == "True" || condition(node, "Ready").is_none() {
            return Some(false);
        }
        let nodes = self.nodes.list();
        let config = &self.context.config;
        let zones = Zones::of(nodes.iter().map(|node| &**node), config.unhealthy_zone_threshold);
        if zones.all_down() {
            return None;
        }
        if is_evicted(node) {
            return Some(true);
        }
        let zone = zone(node);
        match self.limiter.lock().take(&zone, zones.rate(&zone, config), Instant::now()) {
            Ok(()) => Some(true),
            Err(wait) => {
                // Where there is no turn at all, a look now and then notices that the zone recovered.
                let wait = wait.unwrap_or(config.node_monitor_period);
                *again = Some(again.map_or(wait, |other| other.min(wait)));
                Some(false)
            }
        }
    }

    /// Services must not send to pods nobody answers for.
    async fn mark_pods_not_ready(&self, node: &Node) -> Result<(), kube::Error> {
        let now = clock::now();
        let ready: Vec<Arc<Pod>> = self.pods.by_index(BY_NODE, name(&node.metadata));
        let ready: Vec<_> = ready.into_iter().filter(|pod| pods::is_ready(pod)).collect();
        if ready.is_empty() {
            return Ok(());
        }
        let about = reference(node);
        let message = format!("Node {} status is now: NodeNotReady", name(&node.metadata));
        self.recorder.normal(&about, "NodeNotReady", message);
        for pod in ready {
            let api = Api::<Pod>::namespaced(self.context.client.clone(), namespace(&pod.metadata));
            let patch = json!({
                "metadata": {"uid": uid(&pod.metadata)},
                "status": {"conditions": [{
                    "type": "Ready", "status": "False",
                    "lastTransitionTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now),
                }]},
            });
            let patch = Patch::Strategic(patch);
            let written = api.patch_status(name(&pod.metadata), &PatchParams::default(), &patch).await;
            ignore_missing(written.map(Some))?;
            self.recorder.warning(&reference(&*pod), "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}

/// A write to what is gone has nothing left to do.
fn ignore_missing<T>(result: Result<Option<T>, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Err(error) if is_not_found(&error) => Ok(None),
        other => other,
    }
}
