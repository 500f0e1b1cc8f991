//! Observes pods and nodes, and removes pods.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_client::{Change, SharedInformer, WorkQueue, clock, is_conflict, is_not_found, run_workers};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::plan::{Why, plan};
use crate::common::objects::{is_deleting, name, namespace, uid};
use crate::common::pods;
use crate::context::Context;

/// How long a node must be missing before its pods are removed.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Changes within this time are looked at together.
const PAUSE: Duration = Duration::from_secs(1);

/// The `pod-garbage-collector-controller`.
pub async fn run(context: Context) {
    let nodes = context.informers.get::<Node>();
    let all_pods = context.informers.get::<Pod>();
    if !context.synced(&nodes).await || !context.synced(&all_pods).await {
        return;
    }
    let queue: WorkQueue<()> = WorkQueue::new();
    let on_node = context.each(&nodes, |change| {
        if matches!(change, Change::Deleted(_) | Change::Resync(_)) {
            queue.add_after((), PAUSE);
        }
    });
    let on_pod = context.each(&all_pods, |change| {
        let concerns = match &change {
            Change::Added(pod) | Change::Updated(_, pod) => {
                let lost = pods::node(pod).map_or(is_deleting(&pod.metadata), |node| nodes.get(None, node).is_none());
                lost || pods::is_finished(pod)
            }
            Change::Deleted(_) => false,
            Change::Resync(_) => true,
        };
        if concerns {
            queue.add_after((), PAUSE);
        }
    });
    let this = Arc::new(Collector {
        context: context.clone(),
        nodes: nodes.clone(),
        pods: all_pods.clone(),
        missing: Mutex::default(),
    });
    let work = run_workers("pod-garbage-collector", queue.clone(), 1, context.shutdown.clone(), move |()| {
        let this = this.clone();
        async move { this.sync().await }
    });
    tokio::join!(on_node, on_pod, work);
}

struct Collector {
    context: Context,
    nodes: SharedInformer<Node>,
    pods: SharedInformer<Pod>,
    /// Nodes that pods name and that are not there, since when.
    missing: Mutex<HashMap<String, Instant>>,
}

impl Collector {
    async fn sync(&self) -> Result<Option<Duration>, kube::Error> {
        let all = self.pods.list();
        let pods: Vec<&Pod> = all.iter().map(|pod| &**pod).collect();
        let nodes: HashSet<String> = self.nodes.list().iter().map(|node| name(&node.metadata).to_owned()).collect();
        let threshold = self.context.config.terminated_pod_gc_threshold;
        let first = plan(&pods, &nodes, &HashSet::new(), threshold);
        let (due, again) = {
            let mut missing = self.missing.lock();
            missing.retain(|node, _| first.missing_nodes.contains(node));
            for node in first.missing_nodes {
                missing.entry(node).or_insert_with(Instant::now);
            }
            let due: Vec<String> = missing
                .iter()
                .filter(|(_, since)| since.elapsed() >= QUARANTINE)
                .map(|(node, _)| node.clone())
                .collect();
            let waits = missing.values().map(|since| QUARANTINE.saturating_sub(since.elapsed()));
            (due, waits.filter(|wait| !wait.is_zero()).min())
        };
        // The informer may be wrong; the server is not.
        let api = Api::<Node>::all(self.context.client.clone());
        let mut gone = HashSet::new();
        for node in due {
            if api.get_metadata_opt(&node).await?.is_none() {
                gone.insert(node);
            }
        }
        let mut failure = None;
        for (index, why) in plan(&pods, &nodes, &gone, threshold).remove {
            if let Some(pod) = pods.get(index)
                && let Err(error) = self.remove(pod, why).await
            {
                failure = Some(error);
            }
        }
        failure.map_or(Ok(again), Err)
    }

    /// A pod that has not finished is failed first, so that whoever waits for it learns of it.
    async fn remove(&self, pod: &Pod, why: Why) -> Result<(), kube::Error> {
        let api = Api::<Pod>::namespaced(self.context.client.clone(), namespace(&pod.metadata));
        let name = name(&pod.metadata);
        tracing::debug!(pod = name, ?why, "removing a pod");
        if !pods::is_finished(pod) {
            let mut status = json!({ "phase": "Failed" });
            if why == Why::Orphaned
                && let Some(fields) = status.as_object_mut()
            {
                let condition = json!([{
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists", "lastTransitionTime": Time(clock::now()),
                }]);
                fields.insert("conditions".into(), condition);
            }
            let patch = json!({ "metadata": {"uid": uid(&pod.metadata)}, "status": status });
            match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
                Ok(_) => {}
                Err(error) if is_not_found(&error) || is_conflict(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let uid = Some(uid(&pod.metadata).to_owned());
        let params =
            DeleteParams::default().grace_period(0).preconditions(Preconditions { uid, resource_version: None });
        match api.delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
