//! All nodes and the pods on them. A pod that was given a node counts there from that moment (it is *assumed*), long
//! before the API server's watch says so.

use std::collections::HashMap;

use k8s_openapi::api::core::v1 as core;

use crate::framework::Event;
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// The scheduler's view of the cluster.
#[derive(Debug, Default)]
pub struct Cache {
    /// In the order in which they came; a gap is filled by the last.
    nodes: Vec<NodeInfo>,
    index: HashMap<String, usize>,
    /// Pods that count on a node, by UID.
    placed: HashMap<String, Placed>,
    /// How many nodes have an image.
    image_nodes: HashMap<String, usize>,
    /// How many nodes exist.
    existing: usize,
}

#[derive(Debug)]
struct Placed {
    pod: PodInfo,
    node: String,
    assumed: bool,
}

impl Cache {
    /// The nodes, those too that only pods tell of.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.index.get(name).and_then(|i| self.nodes.get(*i))
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.existing
    }

    /// How many nodes have the image.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// A node came or changed. Says what that can mean for waiting pods.
    pub fn set_node(&mut self, node: &core::Node) -> Option<Event> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let slot = self.slot(&name);
        let info = &mut self.nodes[slot];
        let before = info.clone();
        info.update(node);
        self.existing += usize::from(!before.exists);
        let event = node_event(&before, info);
        let (old, new) = (before.images, info.images.clone());
        for image in old.keys().filter(|image| !new.contains_key(*image)) {
            self.forget_image(image);
        }
        for image in new.keys().filter(|image| !old.contains_key(*image)) {
            *self.image_nodes.entry(image.clone()).or_default() += 1;
        }
        event
    }

    /// A node is gone. Pods that still say they run there are kept for when it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.index.get(name).copied() else { return };
        let images = std::mem::take(&mut self.nodes[slot].images);
        for image in images.keys() {
            self.forget_image(image);
        }
        self.existing -= usize::from(std::mem::take(&mut self.nodes[slot].exists));
        self.drop_if_unused(name);
    }

    /// Counts a pod on `node` before the API server knows.
    pub fn assume(&mut self, pod: PodInfo, node: &str) {
        self.place(pod, node, true);
    }

    /// The binding of an assumed pod failed.
    pub fn forget(&mut self, uid: &str) {
        if self.placed.get(uid).is_some_and(|placed| placed.assumed) {
            self.remove_pod(uid);
        }
    }

    /// Whether the pod counts on a node already.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// The API server says that the pod is on `node`. Says what that can mean for waiting pods.
    pub fn set_pod(&mut self, pod: PodInfo, node: &str) -> Option<Event> {
        let event = match self.placed.get(&pod.uid) {
            Some(placed) if placed.assumed => None,
            Some(placed) if placed.pod.requests.resources == pod.requests.resources => None,
            Some(_) => Some(Event::PodScaledDown),
            None => None,
        };
        self.place(pod, node, false);
        event
    }

    /// The pod uses its node no longer. Returns whether it counted.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(placed) = self.placed.remove(uid) else { return false };
        if let Some(slot) = self.index.get(&placed.node).copied() {
            self.nodes[slot].remove(&placed.pod);
            self.drop_if_unused(&placed.node);
        }
        true
    }

    /// The UIDs of all pods that count and are not merely assumed.
    pub fn placed_uids(&self) -> Vec<String> {
        self.placed.iter().filter(|(_, placed)| !placed.assumed).map(|(uid, _)| uid.clone()).collect()
    }

    fn place(&mut self, pod: PodInfo, node: &str, assumed: bool) {
        self.remove_pod(&pod.uid);
        let slot = self.slot(node);
        self.nodes[slot].add(&pod);
        self.placed.insert(pod.uid.clone(), Placed { pod, node: node.into(), assumed });
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(slot) = self.index.get(name) {
            return *slot;
        }
        self.nodes.push(NodeInfo { name: name.into(), ..NodeInfo::default() });
        self.index.insert(name.into(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn drop_if_unused(&mut self, name: &str) {
        let Some(slot) = self.index.get(name).copied() else { return };
        if self.nodes[slot].exists || self.nodes[slot].pods > 0 {
            return;
        }
        self.index.remove(name);
        self.nodes.swap_remove(slot);
        if let Some(moved) = self.nodes.get(slot) {
            self.index.insert(moved.name.clone(), slot);
        }
    }

    fn forget_image(&mut self, image: &str) {
        if let Some(count) = self.image_nodes.get_mut(image) {
            *count -= 1;
            if *count == 0 {
                self.image_nodes.remove(image);
            }
        }
    }
}

fn node_event(before: &NodeInfo, after: &NodeInfo) -> Option<Event> {
    if !before.exists {
        return Some(Event::NodeAdded);
    }
    let changed = Event::NodeChanged {
        allocatable: before.allocatable != after.allocatable || before.allowed_pods != after.allowed_pods,
        labels: before.labels != after.labels,
        taints: before.taints != after.taints || before.unschedulable != after.unschedulable,
    };
    let nothing = Event::NodeChanged { allocatable: false, labels: false, taints: false };
    (changed != nothing).then_some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn sums_follow_pods() {
        let mut cache = Cache::default();
        assert_eq!(cache.set_node(&node("a", json!({}))), Some(Event::NodeAdded));
        assert_eq!(cache.set_node(&node("a", json!({}))), None, "nothing changed");
        cache.assume(pod("p", json!({"cpu": "1"})), "a");
        assert_eq!(cache.node("a").unwrap().requested.milli_cpu, 1000);
        cache.set_pod(pod("p", json!({"cpu": "1"})), "a");
        assert_eq!(cache.node("a").unwrap().requested.milli_cpu, 1000, "confirmed, not counted twice");
        cache.forget("p");
        assert!(cache.is_placed("p"), "a confirmed pod is not forgotten");
        assert!(cache.remove_pod("p"));
        assert_eq!(cache.node("a").unwrap().requested.milli_cpu, 0);
        assert!(!cache.remove_pod("p"));
    }

    #[test]
    fn a_deleted_node_goes_with_its_last_pod() {
        let mut cache = Cache::default();
        for name in ["a", "b", "c"] {
            cache.set_node(&node(name, json!({})));
        }
        cache.set_pod(pod("p", json!({})), "a");
        cache.remove_node("a");
        assert_eq!((cache.nodes().len(), cache.node_count()), (3, 2));
        cache.remove_pod("p");
        assert_eq!(cache.nodes().len(), 2);
        assert_eq!(cache.node("c").unwrap().name, "c", "the index follows a node that moves");
    }
}
