//! Which pod goes first, and what is said of it. Pure; order and messages are upstream's.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::signal::{Observations, Resource, Signal, Threshold};
use crate::pod::view;
use crate::quantity;
use crate::resources;
use crate::stats::PodSample;
use crate::stats::disk::{PodDisk, Usage};

/// A pod and what it has of the starved resource: bytes, inodes or processes.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub pod: Arc<Pod>,
    pub uid: String,
    pub usage: u64,
    pub request: u64,
    /// By container name.
    pub containers: Vec<(String, u64)>,
}

/// A pod's part in what `signal` is about. Unknown usage is none.
pub(crate) fn candidate(
    pod: &Arc<Pod>,
    uid: &str,
    signal: Signal,
    sample: Option<&PodSample>,
    disk: Option<&PodDisk>,
    dedicated_image_fs: bool,
) -> Candidate {
    let mut candidate = Candidate { pod: pod.clone(), uid: uid.into(), usage: 0, request: 0, containers: Vec::new() };
    let memory = |group: &crate::stats::group::Group| group.memory.as_ref().map_or(0, |memory| memory.working_set);
    match signal.resource() {
        Resource::Memory => {
            let groups = sample.iter().flat_map(|sample| &sample.containers);
            candidate.containers =
                groups.map(|container| (container.record.name.clone(), memory(&container.group))).collect();
            candidate.usage = sample.and_then(|sample| sample.group.as_ref()).map_or(0, memory);
            candidate.request = resources::pod_requests(pod).1.max(0) as u64;
        }
        Resource::Pids => {
            candidate.usage = sample.and_then(|sample| sample.group.as_ref()?.processes).unwrap_or(0);
        }
        resource @ (Resource::EphemeralStorage | Resource::Inodes) => {
            let read = |usage: Usage| if resource == Resource::Inodes { usage.inodes } else { usage.bytes };
            let on_images = matches!(signal, Signal::ImagefsAvailable | Signal::ImagefsInodesFree);
            // On a filesystem of their own, layers are all there is of pods beside images; else everything is in one.
            let layers = !dedicated_image_fs || on_images;
            let rest = !dedicated_image_fs || !on_images;
            if let Some(disk) = disk {
                let mut names: Vec<_> = disk.logs.keys().chain(disk.layers.keys()).cloned().collect();
                names.sort();
                names.dedup();
                for name in names {
                    let of = |wanted: bool, usages: &std::collections::BTreeMap<String, Usage>| {
                        usages.get(&name).copied().filter(|_| wanted).map_or(0, read)
                    };
                    let used = of(layers, &disk.layers) + of(rest, &disk.logs);
                    candidate.usage += used;
                    candidate.containers.push((name, used));
                }
                if rest {
                    candidate.usage += read(disk.other);
                    candidate.usage += disk
                        .volumes
                        .iter()
                        .filter(|volume| volume.ephemeral)
                        .map(|volume| read(volume.usage))
                        .sum::<u64>();
                }
            }
            if resource == Resource::EphemeralStorage {
                candidate.request = request_of(pod, "ephemeral-storage");
            }
        }
    }
    candidate
}

/// What the pod's app containers ask for together.
fn request_of(pod: &Pod, name: &str) -> u64 {
    let of = |container: &k8s_openapi::api::core::v1::Container| {
        container.resources.as_ref().and_then(|r| quantity::value_of(r.requests.as_ref(), name)).unwrap_or(0)
    };
    view::containers(pod).iter().map(of).sum::<i64>().max(0) as u64
}

/// Sorts, who goes first first: who uses more than it asked for, then the less important, then who is furthest over what it
/// asked for. Processes cannot be asked for.
pub(crate) fn rank(candidates: &mut [Candidate], resource: Resource) {
    candidates.sort_by_key(|candidate| {
        let priority = view::spec(&candidate.pod).and_then(|spec| spec.priority).unwrap_or(0);
        let within = resource != Resource::Pids && candidate.usage <= candidate.request;
        let over = i128::from(candidate.usage) - i128::from(candidate.request);
        (within, priority, Reverse(over))
    });
}

/// Why this pod goes.
pub(crate) fn message(candidate: &Candidate, threshold: &Threshold, observations: &Observations) -> String {
    let resource = threshold.signal.resource();
    let bytes = matches!(resource, Resource::Memory | Resource::EphemeralStorage);
    let amount = |amount: u64| {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        if bytes { quantity::from_bytes(amount).0 } else { amount.to_string() }
    };
    let mut message = format!("The node was low on resource: {}. ", resource.name());
    if let Some(seen) = observations.get(&threshold.signal) {
        let wanted = threshold.amount.of(seen.capacity);
        message.push_str(&format!("Threshold quantity: {}, available: {}. ", amount(wanted), amount(seen.available)));
    }
    for (name, used) in &candidate.containers {
        let Some(container) = view::find_container(&candidate.pod, name) else { continue };
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let request = requests.and_then(|requests| requests.get(resource.name()));
        let asked = request.map_or(0, quantity::value).max(0) as u64;
        if *used > asked {
            let request = request.map_or("0", |request| request.0.as_str());
            message.push_str(&format!(
                "Container {name} was using {}, request is {request}, has larger consumption of {}. ",
                amount(*used),
                resource.name()
            ));
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::super::signal::{Amount, Observation};
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32, request: &str, usage: u64) -> Candidate {
        let spec = json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"memory": request}}}]});
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        let request = resources::pod_requests(&pod).1 as u64;
        Candidate { pod: Arc::new(pod), uid: name.into(), usage, request, containers: vec![("c".into(), usage)] }
    }

    #[test]
    fn order() {
        let mut all = vec![
            pod("within-low", 0, "100", 90),
            pod("over-high", 10, "100", 500),
            pod("over-a-bit", 0, "100", 110),
            pod("over-much", 0, "100", 200),
            pod("best-effort", 0, "0", 150),
        ];
        rank(&mut all, Resource::Memory);
        let names: Vec<_> = all.iter().map(|candidate| candidate.uid.as_str()).collect();
        assert_eq!(names, ["best-effort", "over-much", "over-a-bit", "over-high", "within-low"]);
        rank(&mut all, Resource::Pids);
        assert_eq!(all.last().unwrap().uid, "over-high", "of processes nobody asked for any: priority decides");
    }

    #[test]
    fn words() {
        let threshold = Threshold {
            signal: Signal::MemoryAvailable,
            amount: Amount::Percent(10.0),
            grace: None,
            minimum_reclaim: None,
        };
        let seen = [(Signal::MemoryAvailable, Observation { available: 50 << 20, capacity: 1000 << 20 })].into();
        assert_eq!(
            message(&pod("p", 0, "10Mi", 20 << 20), &threshold, &seen),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Container c was using 20Mi, request is 10Mi, has larger consumption of memory. "
        );
        assert_eq!(
            message(&pod("p", 0, "10Mi", 5 << 20), &threshold, &Observations::new()),
            "The node was low on resource: memory. "
        );
    }
}
