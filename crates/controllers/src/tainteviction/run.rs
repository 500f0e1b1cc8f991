//! Observes nodes' taints and their pods, and deletes pods whose time is up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_client::{
    Change, EventRecorder, Key, SharedInformer, WorkQueue, clock, is_not_found, reference, run_workers,
};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;

use super::plan::{Stay, stay};
use crate::common::objects::{is_deleting, name, namespace, uid};
use crate::common::pods;
use crate::context::Context;
use crate::nodelifecycle::BY_NODE;

const COMPONENT: &str = "taint-eviction-controller";

/// The `taint-eviction-controller`.
pub async fn run(context: Context) {
    let nodes = context.informers.get::<Node>();
    let all_pods = context.informers.get::<Pod>();
    all_pods.add_index(BY_NODE, |pod| pods::node(pod).map(str::to_owned));
    if !context.synced(&nodes).await || !context.synced(&all_pods).await {
        return;
    }
    let queue = WorkQueue::new();
    let this = Arc::new(Controller {
        client: context.client.clone(),
        recorder: context.recorder(COMPONENT),
        nodes: nodes.clone(),
        pods: all_pods.clone(),
        marked: Mutex::default(),
    });
    let add_pods = |node: &Node| {
        for pod in all_pods.by_index(BY_NODE, name(&node.metadata)) {
            queue.add(Key::of(&*pod));
        }
    };
    let on_node = context.each(&nodes, |change| match &change {
        Change::Added(node) if !taints(node).is_empty() => add_pods(node),
        Change::Updated(old, new) if taints(old) != taints(new) => add_pods(new),
        Change::Resync(all) => all.iter().for_each(|node| add_pods(node)),
        _ => {}
    });
    let on_pod = context.each(&all_pods, |change| match &change {
        Change::Added(pod) | Change::Deleted(pod) => queue.add(Key::of(&**pod)),
        Change::Updated(old, new) => {
            let tolerations = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.tolerations.clone());
            if pods::node(old) != pods::node(new) || tolerations(old) != tolerations(new) {
                queue.add(Key::of(&**new));
            }
        }
        Change::Resync(all) => all.iter().for_each(|pod| queue.add(Key::of(&**pod))),
    });
    let work = run_workers(COMPONENT, queue.clone(), 4, context.shutdown.clone(), {
        let this = this.clone();
        move |key| {
            let this = this.clone();
            async move { this.sync(&key).await }
        }
    });
    tokio::join!(on_node, on_pod, work);
}

struct Controller {
    client: kube::Client,
    recorder: EventRecorder,
    nodes: SharedInformer<Node>,
    pods: SharedInformer<Pod>,
    /// Pods whose time runs, with uid and since when.
    marked: Mutex<HashMap<Key, (String, Timestamp)>>,
}

fn taints(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let found = self.pods.get_key(key).filter(|pod| !is_deleting(&pod.metadata));
        let Some(pod) = found else {
            self.marked.lock().remove(key);
            return Ok(None);
        };
        let Some(node) = pods::node(&pod).and_then(|node| self.nodes.get(None, node)) else { return Ok(None) };
        let taints = taints(&node);
        if taints.is_empty() {
            self.clear(key, &pod);
            return Ok(None);
        }
        let now = clock::now();
        let first_seen = {
            let mut marked = self.marked.lock();
            let entry = marked.entry(key.clone()).or_insert_with(|| (uid(&pod.metadata).to_owned(), now));
            if entry.0 != uid(&pod.metadata) {
                *entry = (uid(&pod.metadata).to_owned(), now);
            }
            entry.1
        };
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        match stay(&taints, tolerations, first_seen) {
            Stay::Forever => {
                self.clear(key, &pod);
                Ok(None)
            }
            Stay::Until(end) if end > now => {
                Ok(Some(Duration::try_from(end.duration_since(now)).unwrap_or_default() + Duration::from_millis(1)))
            }
            Stay::Until(_) | Stay::No => {
                self.evict(&pod).await?;
                self.marked.lock().remove(key);
                Ok(None)
            }
        }
    }

    fn clear(&self, key: &Key, pod: &Pod) {
        if self.marked.lock().remove(key).is_some() {
            let message = format!("Cancelling deletion of Pod {key}");
            self.recorder.normal(&reference(pod), "TaintManagerEviction", message);
        }
    }

    async fn evict(&self, pod: &Pod) -> Result<(), kube::Error> {
        let message = format!("Marking for deletion Pod {}", Key::of(pod));
        self.recorder.normal(&reference(pod), "TaintManagerEviction", message);
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace(&pod.metadata));
        let patch = json!({
            "metadata": {"uid": uid(&pod.metadata)},
            "status": {"conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(clock::now()),
            }]},
        });
        let name = name(&pod.metadata);
        match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let uid = Some(uid(&pod.metadata).to_owned());
        let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
        match api.delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
