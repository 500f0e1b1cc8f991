//! A node as the scheduler sees it: what it has, what its pods take of it, and what it asks of pods. Sums are kept up to
//! date as pods come and go, never counted anew.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1 as core;

use crate::pod::{HostPort, PodInfo, normalized_image};
use crate::resources::Resources;

/// A node and the sums over its pods.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<core::Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub allowed_pods: i64,
    /// Size in bytes by image name.
    pub images: HashMap<String, i64>,
    pub requested: Resources,
    pub non_zero_milli_cpu: i64,
    pub non_zero_memory_bytes: i64,
    pub pods: i64,
    pub used_ports: Vec<HostPort>,
    /// False while only pods of it are known: it was deleted, or its object has not come yet.
    pub exists: bool,
}

impl NodeInfo {
    /// Takes what `node` says; the sums stay.
    pub fn update(&mut self, node: &core::Node) {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        self.exists = true;
        self.name = node.metadata.name.clone().unwrap_or_default();
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.taints = spec.and_then(|s| s.taints.clone()).unwrap_or_default();
        self.unschedulable = spec.and_then(|s| s.unschedulable).unwrap_or(false);
        let allocatable = status.and_then(|s| s.allocatable.as_ref());
        self.allocatable = allocatable.map(Resources::from_list).unwrap_or_default();
        let pods = allocatable.and_then(|list| list.get("pods")?.0.parse::<keelson_api::quantity::Quantity>().ok());
        self.allowed_pods = pods.map_or(0, keelson_api::quantity::Quantity::value);
        let images = status.and_then(|s| s.images.as_ref()).into_iter().flatten();
        self.images = images
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (normalized_image(name), size))
            })
            .collect();
    }

    /// Counts a pod.
    pub fn add(&mut self, pod: &PodInfo) {
        self.count(pod, 1);
        self.used_ports.extend(pod.host_ports.iter().cloned());
    }

    /// Counts a pod no longer.
    pub fn remove(&mut self, pod: &PodInfo) {
        self.count(pod, -1);
        for port in &pod.host_ports {
            if let Some(index) = self.used_ports.iter().position(|used| used == port) {
                self.used_ports.swap_remove(index);
            }
        }
    }

    fn count(&mut self, pod: &PodInfo, times: i64) {
        self.requested.add(&pod.requests.resources, times);
        self.non_zero_milli_cpu += pod.requests.non_zero_milli_cpu * times;
        self.non_zero_memory_bytes += pod.requests.non_zero_memory_bytes * times;
        self.pods += times;
    }
}
