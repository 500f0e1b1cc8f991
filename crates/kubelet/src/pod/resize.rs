//! Resizing a running pod's CPU and memory in place: what is asked for, whether it fits, and what must change for it. Pure.
//! A pod's task keeps the pod with the resources it has been given (as *allocated*); what its status says it has is where a
//! restarted kubelet begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::view;
use crate::quantity::{self, ResourceList};
use crate::resources::{self, PodCgroup};

/// What can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Whether a resize can be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fits,
    /// Not now: other pods have what it wants.
    Deferred(String),
    /// Never on this node.
    Infeasible(String),
}

/// Why a resize waits: `Deferred` or `Infeasible`, and the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub reason: &'static str,
    pub message: String,
}

/// Where a pod's resize is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub pending: Option<Pending>,
    /// It is being carried out; with the error of the last try.
    pub under_way: Option<Option<String>>,
}

fn containers_mut(pod: &mut Pod) -> impl Iterator<Item = &mut Container> {
    let spec = pod.spec.iter_mut();
    spec.flat_map(|spec| spec.init_containers.iter_mut().flatten().chain(&mut spec.containers))
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    view::init_containers(pod).iter().chain(view::containers(pod))
}

fn of<'a>(list: Option<&'a ResourceList>, name: &str) -> Option<&'a Quantity> {
    list.and_then(|list| list.get(name))
}

/// Resizable resources are the same, whatever form their quantities have.
fn same(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    RESIZABLE.iter().all(|name| {
        let milli = |list: Option<&ResourceList>| of(list, name).map(quantity::milli);
        milli(a.and_then(|a| a.requests.as_ref())) == milli(b.and_then(|b| b.requests.as_ref()))
            && milli(a.and_then(|a| a.limits.as_ref())) == milli(b.and_then(|b| b.limits.as_ref()))
    })
}

/// Whether both pods' containers, and the pods, have the same CPU and memory.
pub(crate) fn is_same(a: &Pod, b: &Pod) -> bool {
    let whole = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.resources.clone());
    same(whole(a).as_ref(), whole(b).as_ref())
        && containers(a).zip(containers(b)).all(|(a, b)| same(a.resources.as_ref(), b.resources.as_ref()))
}

fn take(list: &mut Option<ResourceList>, from: Option<&ResourceList>) {
    for name in RESIZABLE {
        match of(from, name) {
            Some(amount) => drop(list.get_or_insert_default().insert(name.into(), amount.clone())),
            None => drop(list.as_mut().and_then(|list| list.remove(name))),
        }
    }
    if list.as_ref().is_some_and(BTreeMap::is_empty) {
        *list = None;
    }
}

fn take_all(to: &mut Option<ResourceRequirements>, from: Option<&ResourceRequirements>) {
    let resources = to.get_or_insert_default();
    take(&mut resources.requests, from.and_then(|from| from.requests.as_ref()));
    take(&mut resources.limits, from.and_then(|from| from.limits.as_ref()));
}

/// `pod` with the CPU and memory that `allocated`, an earlier version of it, has.
pub(crate) fn with_resources_of(pod: &Arc<Pod>, allocated: &Pod) -> Arc<Pod> {
    if is_same(pod, allocated) {
        return pod.clone();
    }
    let mut own = pod.as_ref().clone();
    for container in containers_mut(&mut own) {
        let known = containers(allocated).find(|known| known.name == container.name);
        if let Some(known) = known {
            take_all(&mut container.resources, known.resources.as_ref());
        }
    }
    if let (Some(spec), Some(known)) = (&mut own.spec, &allocated.spec)
        && !same(spec.resources.as_ref(), known.resources.as_ref())
    {
        take_all(&mut spec.resources, known.resources.as_ref());
    }
    Arc::new(own)
}

/// `pod` as its status says it was allocated, for a kubelet that has just begun.
pub(crate) fn as_told(pod: &Arc<Pod>) -> Arc<Pod> {
    let mut told = pod.as_ref().clone();
    for container in containers_mut(&mut told) {
        let status = view::last_status(pod, &container.name).filter(|status| status.container_id.is_some());
        if let Some(resources) = status.and_then(|status| status.resources.as_ref()) {
            take_all(&mut container.resources, Some(resources));
        }
    }
    if is_same(pod, &told) { pod.clone() } else { Arc::new(told) }
}

/// Whether `desired` fits beside `others` (as allocated). Messages are upstream's.
pub(crate) fn judge(desired: &Pod, others: &[Arc<Pod>], allocatable: &ResourceList) -> Verdict {
    let (cpu, memory) = resources::pod_requests(desired);
    let active = others.iter().filter(|other| !matches!(view::phase(other), "Succeeded" | "Failed"));
    let used = active
        .map(|other| resources::pod_requests(other))
        .fold((0i64, 0i64), |sum, own| (sum.0.saturating_add(own.0), sum.1.saturating_add(own.1)));
    let wants = [
        ("cpu", cpu, used.0, of(Some(allocatable), "cpu").map(quantity::milli)),
        ("memory", memory, used.1, of(Some(allocatable), "memory").map(quantity::value)),
    ];
    for (name, requested, _, capacity) in &wants {
        if let Some(capacity) = capacity.filter(|capacity| requested > capacity) {
            return Verdict::Infeasible(format!(
                "Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
            ));
        }
    }
    for (name, requested, used, capacity) in &wants {
        if let Some(capacity) = capacity.filter(|capacity| *requested > capacity.saturating_sub(*used)) {
            return Verdict::Deferred(format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            ));
        }
    }
    Verdict::Fits
}

/// Names of containers whose resources change: those whose policy wants a restart for it, and the others.
pub(crate) fn changed(before: &Pod, after: &Pod) -> (Vec<String>, Vec<String>) {
    let (mut restarted, mut updated) = (Vec::new(), Vec::new());
    for (old, new) in containers(before).zip(containers(after)) {
        let differs = |name: &str| {
            let only = |resources: Option<&ResourceRequirements>| {
                let milli = |list: Option<&ResourceList>| of(list, name).map(quantity::milli);
                resources.map(|found| (milli(found.requests.as_ref()), milli(found.limits.as_ref())))
            };
            only(old.resources.as_ref()).unwrap_or_default() != only(new.resources.as_ref()).unwrap_or_default()
        };
        let changes: Vec<&str> = RESIZABLE.into_iter().filter(|name| differs(name)).collect();
        let policies = new.resize_policy.as_deref().unwrap_or_default();
        let restarts = |name: &&str| {
            policies.iter().any(|policy| policy.resource_name == **name && policy.restart_policy == "RestartContainer")
        };
        match changes.iter().any(restarts) {
            true => restarted.push(new.name.clone()),
            false if !changes.is_empty() => updated.push(new.name.clone()),
            false => {}
        }
    }
    (restarted, updated)
}

/// What holds both before and after: the pod's group while its containers change one by one.
pub(crate) fn roomier(a: PodCgroup, b: PodCgroup) -> PodCgroup {
    let most = |a: Option<i64>, b: Option<i64>| a.zip(b).map(|(a, b)| a.max(b));
    PodCgroup {
        cpu_shares: a.cpu_shares.max(b.cpu_shares),
        cpu_quota_us: most(a.cpu_quota_us, b.cpu_quota_us),
        memory_limit_bytes: most(a.memory_limit_bytes, b.memory_limit_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(cpu: &str, memory: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [
                {"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory, "ephemeral-storage": "1Gi"}},
                 "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"},
                                  {"resourceName": "cpu", "restartPolicy": "NotRequired"}]},
                {"name": "b", "resources": {"limits": {"cpu": "1"}}}]}}))
            .unwrap(),
        )
    }

    #[test]
    fn allocated_resources_stay_until_they_are_changed() {
        let (small, big) = (pod("1", "1Gi"), pod("2", "1Gi"));
        assert!(is_same(&small, &pod("1000m", "1024Mi")) && !is_same(&small, &big));
        let kept = with_resources_of(&big, &small);
        assert!(is_same(&kept, &small));
        let storage = kept.spec.as_ref().unwrap().containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap();
        assert_eq!(storage["ephemeral-storage"].0, "1Gi", "what cannot be resized is left alone");
        let mut running = big.as_ref().clone();
        running.status = serde_json::from_value(json!({"containerStatuses": [{"name": "a", "containerID": "x://1",
            "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}))
        .unwrap();
        assert!(is_same(&as_told(&Arc::new(running)), &small), "b has no status yet and is as it is wanted");
        assert!(Arc::ptr_eq(&as_told(&small), &small));
    }

    #[test]
    fn verdicts() {
        let allocatable = [("cpu", "4"), ("memory", "8Gi")].map(|(k, v)| (k.to_string(), Quantity(v.into()))).into();
        let other = pod("1", "1Gi");
        for (cpu, expected) in [
            ("1", Verdict::Fits),
            (
                "1500m",
                Verdict::Deferred(
                    "Node didn't have enough resource: cpu, requested: 2500, used: 2000, capacity: 4000".into(),
                ),
            ),
            ("4", Verdict::Infeasible("Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000".into())),
        ] {
            assert_eq!(judge(&pod(cpu, "1Gi"), std::slice::from_ref(&other), &allocatable), expected, "{cpu}");
        }
    }

    #[test]
    fn policies() {
        let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(changed(&pod("1", "1Gi"), &pod("2", "1Gi")), (names(&[]), names(&["a"])));
        assert_eq!(changed(&pod("1", "1Gi"), &pod("2", "2Gi")), (names(&["a"]), names(&[])));
        assert_eq!(changed(&pod("1", "1Gi"), &pod("1", "1Gi")), (names(&[]), names(&[])));
    }
}
