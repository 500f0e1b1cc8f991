//! Observes nodes and writes `spec.podCIDRs` of those that have none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use keelson_client::{EventRecorder, Key, SharedInformer, WorkQueue, is_not_found, reference, run_workers};
use kube::api::Api;
use parking_lot::Mutex;

use super::plan::{allocate, overlap};
use crate::common::objects::{name, uid};
use crate::common::patch;
use crate::context::{Context, objects};

const COMPONENT: &str = "cidrAllocator";
/// Pause before a node that could not be served is tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// The `node-ipam-controller`; has nothing to do unless node networks are to be given out.
pub async fn run(context: Context) {
    if !context.config.allocate_node_cidrs {
        return;
    }
    let nodes = context.informers.get::<Node>();
    if !context.synced(&nodes).await {
        return;
    }
    let queue = WorkQueue::new();
    let this = Arc::new(Allocator {
        context: context.clone(),
        recorder: context.recorder(COMPONENT),
        nodes: nodes.clone(),
        given: Mutex::default(),
    });
    let on_node = context.each(&nodes, |change| objects(&change).for_each(|node| queue.add(Key::of(&**node))));
    // One worker: two nodes must not be given the same network.
    let work = run_workers(COMPONENT, queue.clone(), 1, context.shutdown.clone(), move |key| {
        let this = this.clone();
        async move { this.sync(&key).await }
    });
    tokio::join!(on_node, work);
}

struct Allocator {
    context: Context,
    recorder: EventRecorder,
    nodes: SharedInformer<Node>,
    given: Mutex<Given>,
}

#[derive(Default)]
struct Given {
    /// Networks written and perhaps not yet in the informer, by the node's uid.
    networks: HashMap<String, Vec<IpNet>>,
    /// Where to look next, per cluster network: a network just freed is not given out again at once.
    next: HashMap<IpNet, u128>,
}

fn networks(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let listed = spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten()).map(String::as_str);
    let first = spec.and_then(|spec| spec.pod_cidr.as_deref());
    listed.chain(first).filter_map(|text| text.parse().ok()).collect()
}

impl Allocator {
    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(node) = self.nodes.get_key(key) else { return Ok(None) };
        if !networks(&node).is_empty() {
            self.given.lock().networks.remove(uid(&node.metadata));
            return Ok(None);
        }
        let Some(chosen) = self.choose(&node) else {
            let message = format!("Node {} status is now: CIDRNotAvailable", name(&node.metadata));
            self.recorder.normal(&reference(&*node), "CIDRNotAvailable", message);
            return Ok(Some(PAUSE));
        };
        let mut wanted = (*node).clone();
        let spec = wanted.spec.get_or_insert_default();
        spec.pod_cidrs = Some(chosen.iter().map(ToString::to_string).collect());
        spec.pod_cidr = chosen.first().map(ToString::to_string);
        match patch::write(&Api::all(self.context.client.clone()), None, &*node, &wanted).await {
            Ok(_) => Ok(None),
            Err(error) => {
                self.given.lock().networks.remove(uid(&node.metadata));
                if is_not_found(&error) { Ok(None) } else { Err(error) }
            }
        }
    }

    /// One network per family, none used by another node or by services.
    fn choose(&self, node: &Node) -> Option<Vec<IpNet>> {
        let config = &self.context.config;
        let mut given = self.given.lock();
        let there = self.nodes.list();
        given.networks.retain(|uid, _| there.iter().any(|node| node.metadata.uid.as_deref() == Some(uid)));
        let mut used: Vec<IpNet> = there.iter().flat_map(|node| networks(node)).collect();
        used.extend(given.networks.values().flatten());
        used.extend(
            config
                .service_cidrs
                .iter()
                .filter(|service| config.cluster_cidrs.iter().any(|cluster| overlap(cluster, service))),
        );
        let mut chosen = Vec::new();
        let mut next = Vec::new();
        for cluster in &config.cluster_cidrs {
            let mask = match cluster {
                IpNet::V4(_) => config.node_cidr_mask_size_ipv4,
                IpNet::V6(_) => config.node_cidr_mask_size_ipv6,
            };
            let from = given.next.get(cluster).copied().unwrap_or(0);
            let (network, number) = allocate(cluster, mask, &used, from)?;
            chosen.push(network);
            next.push((*cluster, number + 1));
        }
        if chosen.is_empty() {
            return None;
        }
        given.next.extend(next);
        given.networks.insert(uid(&node.metadata).to_owned(), chosen.clone());
        Some(chosen)
    }
}
