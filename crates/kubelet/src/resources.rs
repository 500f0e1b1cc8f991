//! What requests and limits mean to the kernel: QoS class, CPU shares and quota, memory limits, OOM scores; for one
//! container and for the pod's cgroup. Arithmetic only.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use keelson_cri::v1 as cri;

use crate::pod::view;
use crate::quantity::{self, ResourceList};

/// CFS period, microseconds.
pub(crate) const CPU_PERIOD_US: i64 = 100_000;
/// The kernel's least CPU quota, microseconds.
const MIN_QUOTA_US: i64 = 1_000;
/// The kernel's least and most cpu.shares.
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// A pod's quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    /// As in `status.qosClass`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

/// The class of a pod: what its status says, or computed from its containers as upstream does.
pub(crate) fn qos_class(pod: &Pod) -> QosClass {
    match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => return QosClass::Guaranteed,
        Some("Burstable") => return QosClass::Burstable,
        Some("BestEffort") => return QosClass::BestEffort,
        _ => {}
    }
    let mut any = false;
    let mut guaranteed = true;
    for container in all_containers(pod) {
        let resources = container.resources.as_ref();
        for name in ["cpu", "memory"] {
            let limit = resources.and_then(|r| quantity::milli_of(r.limits.as_ref(), name)).filter(|v| *v > 0);
            let request = resources.and_then(|r| quantity::milli_of(r.requests.as_ref(), name)).filter(|v| *v > 0);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.unwrap_or_else(|| limit.unwrap_or(0)) == limit.unwrap_or(0);
        }
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// cpu.shares for a request in thousandths of a CPU.
pub(crate) fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CFS quota in microseconds per [`CPU_PERIOD_US`] for a limit in thousandths of a CPU.
pub(crate) fn quota_us(milli: i64) -> i64 {
    (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(MIN_QUOTA_US)
}

/// cgroup v2's cpu.weight for cpu.shares.
pub(crate) fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(MIN_SHARES, MAX_SHARES) - 2) * 9999 / 262_142
}

fn request_milli_cpu(resources: Option<&ResourceRequirements>) -> i64 {
    resources
        .and_then(|r| quantity::milli_of(r.requests.as_ref(), "cpu").or(quantity::milli_of(r.limits.as_ref(), "cpu")))
        .unwrap_or(0)
}

fn request_memory(resources: Option<&ResourceRequirements>) -> i64 {
    resources
        .and_then(|r| {
            quantity::value_of(r.requests.as_ref(), "memory").or(quantity::value_of(r.limits.as_ref(), "memory"))
        })
        .unwrap_or(0)
}

/// What containers may do with swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swap {
    /// The kernel does not count it.
    Unaccounted,
    None,
    /// Burstable containers get a part of so many bytes as large as their part of the memory.
    Limited(i64),
}

/// What the node and the process allow.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// The machine's memory, bytes.
    pub memory_capacity_bytes: i64,
    /// Whether CPU limits become quota.
    pub cpu_cfs_quota: bool,
    /// Whether `memory.oom.group` exists.
    pub cgroup_v2: bool,
    pub swap: Swap,
    /// Sizes of the machine's huge pages, bytes.
    pub huge_page_sizes: Vec<i64>,
    /// The least OOM score adjustment this process may give away.
    pub min_oom_score_adj: i64,
}

/// `oom_score_adj` of a container, before the process's own limits.
pub(crate) fn oom_score_adj(qos: QosClass, memory_request: i64, memory_capacity: i64) -> i64 {
    match qos {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let share = if memory_capacity > 0 {
                (1000i128 * i128::from(memory_request) / i128::from(memory_capacity)) as i64
            } else {
                0
            };
            (1000 - share).clamp(3, 999)
        }
    }
}

/// CRI resources of a container.
pub(crate) fn container_resources(pod: &Pod, container: &Container, limits: &Limits) -> cri::LinuxContainerResources {
    let resources = container.resources.as_ref();
    let limit = |name| resources.and_then(|r| r.limits.as_ref()).and_then(|list: &ResourceList| list.get(name));
    let cpu_limit = limit("cpu").map(quantity::milli).unwrap_or(0);
    let memory_limit = limit("memory").map(quantity::value).unwrap_or(0);
    let qos = qos_class(pod);
    let class = view::spec(pod).and_then(|spec| spec.priority_class_name.as_deref());
    let critical = class == Some("system-node-critical");
    let score =
        if critical { -997 } else { oom_score_adj(qos, request_memory(resources), limits.memory_capacity_bytes) };
    let mut unified = std::collections::HashMap::new();
    if limits.cgroup_v2 {
        unified.insert("memory.oom.group".to_string(), "1".to_string());
    }
    let mut memory_swap_limit_in_bytes = 0;
    match swap_bytes(pod, container, limits) {
        None => {}
        Some(bytes) if limits.cgroup_v2 => drop(unified.insert("memory.swap.max".into(), bytes.to_string())),
        // Memory and swap together; only ever as much as memory alone.
        Some(_) => memory_swap_limit_in_bytes = memory_limit,
    }
    cri::LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: if cpu_limit > 0 && limits.cpu_cfs_quota { quota_us(cpu_limit) } else { 0 },
        cpu_shares: shares(request_milli_cpu(resources)),
        memory_limit_in_bytes: memory_limit,
        memory_swap_limit_in_bytes,
        hugepage_limits: hugepage_limits(resources.and_then(|r| r.limits.as_ref()), &limits.huge_page_sizes),
        oom_score_adj: score.max(limits.min_oom_score_adj),
        unified,
        ..Default::default()
    }
}

/// How much swap a container may use, bytes; `None` where nothing counts it. As upstream: with `LimitedSwap`, on the unified
/// hierarchy, only containers of burstable pods that are not critical, with a request that is not their limit.
fn swap_bytes(pod: &Pod, container: &Container, limits: &Limits) -> Option<i64> {
    let swap = match limits.swap {
        Swap::Unaccounted => return None,
        Swap::None => return Some(0),
        Swap::Limited(swap) => swap,
    };
    let resources = container.resources.as_ref();
    let amount = |list: Option<&ResourceList>| quantity::value_of(list, "memory").unwrap_or(0);
    let request = amount(resources.and_then(|resources| resources.requests.as_ref()));
    let limit = amount(resources.and_then(|resources| resources.limits.as_ref()));
    let none = !limits.cgroup_v2
        || crate::eviction::is_critical(pod)
        || qos_class(pod) != QosClass::Burstable
        || request == 0
        || request == limit;
    if none || limits.memory_capacity_bytes <= 0 {
        return Some(0);
    }
    let part = i128::from(swap) * i128::from(request) / i128::from(limits.memory_capacity_bytes);
    Some(i64::try_from(part).unwrap_or(i64::MAX))
}

/// A limit for each size of huge pages that the machine has: none of those that the container does not ask for.
fn hugepage_limits(list: Option<&ResourceList>, sizes: &[i64]) -> Vec<cri::HugepageLimit> {
    let limit = |size: i64| quantity::value_of(list, &page_size_resource(size)).unwrap_or(0).max(0).cast_unsigned();
    sizes.iter().map(|size| cri::HugepageLimit { page_size: page_size_name(*size), limit: limit(*size) }).collect()
}

/// A size of huge pages as the kernel's files of control groups name it: `2MB`.
pub(crate) fn page_size_name(bytes: i64) -> String {
    let mut left = bytes;
    let mut unit = 0;
    while left >= 1024 && left % 1024 == 0 && unit < 3 {
        left /= 1024;
        unit += 1;
    }
    format!("{left}{}", ["B", "KB", "MB", "GB"].get(unit).copied().unwrap_or_default())
}

/// The same as a resource: `hugepages-2Mi`.
pub(crate) fn page_size_resource(bytes: i64) -> String {
    format!("hugepages-{}", quantity::from_bytes(bytes).0)
}

/// What the pod may have of each size of huge pages, bytes: size and limit.
pub(crate) fn pod_huge_pages(pod: &Pod, sizes: &[i64]) -> Vec<(i64, i64)> {
    sizes.iter().map(|size| (*size, pod_request(pod, &page_size_resource(*size)))).collect()
}

/// What a pod's own cgroup gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodCgroup {
    pub cpu_shares: i64,
    /// `None` when some container has no CPU limit.
    pub cpu_quota_us: Option<i64>,
    /// `None` when some container has no memory limit.
    pub memory_limit_bytes: Option<i64>,
}

/// Effective request of a pod in `milli` CPU and bytes of memory.
pub(crate) fn pod_requests(pod: &Pod) -> (i64, i64) {
    (
        effective_request(pod, request_milli_cpu, |list| quantity::milli_of(Some(list), "cpu")),
        effective_request(pod, request_memory, |list| quantity::value_of(Some(list), "memory")),
    )
}

/// Effective request of a pod for the resource of this name, in whole units.
pub(crate) fn pod_request(pod: &Pod, name: &str) -> i64 {
    let read = |list: &ResourceList| quantity::value_of(Some(list), name);
    let of = |resources: Option<&ResourceRequirements>| {
        let resources = resources?;
        resources.requests.as_ref().and_then(read).or(resources.limits.as_ref().and_then(read))
    };
    effective_request(pod, |resources| of(resources).unwrap_or(0), read)
}

/// Names of what a pod's containers request.
pub(crate) fn requested(pod: &Pod) -> BTreeSet<&str> {
    let lists = all_containers(pod).filter_map(|container| container.resources.as_ref());
    let lists = lists.flat_map(|resources| [&resources.requests, &resources.limits]).flatten();
    lists.flat_map(ResourceList::keys).map(String::as_str).collect()
}

/// The greater of the app containers together (with the sidecars) and each init container (with the sidecars before it), or
/// what the pod itself asks for; plus overhead. `of` reads a container's request, `read` a list of the whole pod's.
fn effective_request(
    pod: &Pod,
    of: impl Fn(Option<&ResourceRequirements>) -> i64,
    read: impl Fn(&ResourceList) -> Option<i64>,
) -> i64 {
    let Some(spec) = pod.spec.as_ref() else { return 0 };
    let (mut sidecars, mut init_peak) = (0i64, 0i64);
    for container in spec.init_containers.iter().flatten() {
        let own = of(container.resources.as_ref());
        if view::is_sidecar(container) {
            sidecars = sidecars.saturating_add(own);
            init_peak = init_peak.max(sidecars);
        } else {
            init_peak = init_peak.max(sidecars.saturating_add(own));
        }
    }
    let apps = spec.containers.iter().map(|container| of(container.resources.as_ref()));
    let total = apps.fold(sidecars, i64::saturating_add).max(init_peak);
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()).and_then(&read);
    let overhead = spec.overhead.as_ref().and_then(&read).unwrap_or(0);
    whole.unwrap_or(total).saturating_add(overhead)
}

/// The limit for the whole pod, when all containers have one or the pod itself has; with the overhead.
fn pod_limit(pod: &Pod, read: impl Fn(&ResourceList) -> Option<i64>) -> Option<i64> {
    let spec = pod.spec.as_ref()?;
    let overhead = spec.overhead.as_ref().and_then(&read).unwrap_or(0);
    limit_without_overhead(spec, read).map(|limit| limit.saturating_add(overhead))
}

fn limit_without_overhead(spec: &PodSpec, read: impl Fn(&ResourceList) -> Option<i64>) -> Option<i64> {
    if let Some(limit) = spec.resources.as_ref().and_then(|r| r.limits.as_ref()).and_then(&read) {
        return Some(limit);
    }
    let of = |container: &Container| {
        container.resources.as_ref().and_then(|r| r.limits.as_ref()).and_then(&read).filter(|limit| *limit > 0)
    };
    let mut total = 0i64;
    for container in &spec.containers {
        total = total.saturating_add(of(container)?);
    }
    let mut sidecars = 0i64;
    let mut init_peak = 0i64;
    for container in spec.init_containers.iter().flatten() {
        let own = of(container)?;
        if view::is_sidecar(container) {
            sidecars = sidecars.saturating_add(own);
            init_peak = init_peak.max(sidecars);
        } else {
            init_peak = init_peak.max(sidecars.saturating_add(own));
        }
    }
    Some(total.saturating_add(sidecars).max(init_peak))
}

/// The pod cgroup's settings.
pub(crate) fn pod_cgroup(pod: &Pod, cpu_cfs_quota: bool) -> PodCgroup {
    let cpu_limit = pod_limit(pod, |list| quantity::milli_of(Some(list), "cpu"));
    PodCgroup {
        cpu_shares: shares(pod_requests(pod).0),
        cpu_quota_us: cpu_limit.filter(|_| cpu_cfs_quota).map(quota_us),
        memory_limit_bytes: pod_limit(pod, |list| quantity::value_of(Some(list), "memory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    fn pod(containers: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn classes() {
        for (resources, class) in [
            (json!({}), QosClass::BestEffort),
            (json!({"requests": {"cpu": "1"}}), QosClass::Burstable),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), QosClass::Guaranteed),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}),
                QosClass::Guaranteed,
            ),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), QosClass::Burstable),
            (json!({"limits": {"memory": "1Gi"}}), QosClass::Burstable),
        ] {
            let pod = pod(json!([{"name": "c", "resources": resources}]));
            assert_eq!(qos_class(&pod), class, "{resources}");
        }
    }

    fn limits(memory_capacity_bytes: i64) -> Limits {
        Limits {
            memory_capacity_bytes,
            cpu_cfs_quota: true,
            cgroup_v2: true,
            swap: Swap::Unaccounted,
            huge_page_sizes: Vec::new(),
            min_oom_score_adj: 0,
        }
    }

    #[test]
    fn huge_pages_are_limited_and_none_is_none() {
        let pod = pod(json!([
            {"name": "a", "resources": {"limits": {"hugepages-2Mi": "4Mi", "memory": "1Mi", "cpu": "1"}}},
            {"name": "b", "resources": {"limits": {"hugepages-2Mi": "2Mi", "hugepages-1Gi": "1Gi"}}},
        ]));
        let limits = Limits { huge_page_sizes: vec![2 << 20, 1 << 30], ..limits(1 << 30) };
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let given = container_resources(&pod, container, &limits).hugepage_limits;
        let given: Vec<_> = given.into_iter().map(|page| (page.page_size, page.limit)).collect();
        assert_eq!(given, [("2MB".to_string(), 4 << 20), ("1GB".to_string(), 0)]);
        assert_eq!(pod_huge_pages(&pod, &limits.huge_page_sizes), [(2 << 20, 6 << 20), (1 << 30, 1 << 30)]);
        assert_eq!(page_size_name(64 << 10), "64KB");
        assert_eq!(
            requested(&pod).into_iter().collect::<Vec<_>>(),
            ["cpu", "hugepages-1Gi", "hugepages-2Mi", "memory"]
        );
    }

    #[test]
    fn swap() {
        let gib = 1i64 << 30;
        let of = |resources: serde_json::Value, swap: Swap, cgroup_v2: bool| {
            let pod = pod(json!([{"name": "c", "resources": resources}]));
            let limits = Limits { swap, cgroup_v2, ..limits(gib) };
            let given = container_resources(&pod, &pod.spec.as_ref().unwrap().containers[0], &limits);
            (given.unified.get("memory.swap.max").cloned(), given.memory_swap_limit_in_bytes)
        };
        let burstable = json!({"requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}});
        let whole = json!({"requests": {"memory": "256Mi", "cpu": "1"}, "limits": {"memory": "256Mi", "cpu": "2"}});
        let half = Swap::Limited(gib / 2);
        for (resources, swap, v2, expected) in [
            (&burstable, Swap::Unaccounted, true, (None, 0)),
            (&burstable, Swap::None, true, (Some("0"), 0)),
            (&burstable, Swap::None, false, (None, 512 << 20)),
            (&burstable, half, true, (Some("134217728"), 0)),
            (&burstable, half, false, (None, 512 << 20)),
            (&whole, half, true, (Some("0"), 0)),
            (&json!({}), half, true, (Some("0"), 0)),
            (&json!({}), Swap::None, false, (None, 0)),
        ] {
            let expected = (expected.0.map(str::to_string), expected.1);
            assert_eq!(of(resources.clone(), swap, v2), expected, "{resources} {swap:?} {v2}");
        }
    }

    #[test]
    fn cpu_numbers() {
        assert_eq!([shares(0), shares(250), shares(1000), shares(1_000_000)], [2, 256, 1024, 262_144]);
        assert_eq!([quota_us(5), quota_us(500), quota_us(2000)], [1000, 50_000, 200_000]);
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 39, 10_000]);
    }

    #[test]
    fn oom_scores() {
        let gib = 1 << 30;
        assert_eq!(oom_score_adj(QosClass::Burstable, 0, gib), 999);
        assert_eq!(oom_score_adj(QosClass::Burstable, gib / 2, gib), 500);
        assert_eq!(oom_score_adj(QosClass::Burstable, gib, gib), 3);
        let limits = limits(gib);
        let pod = pod(json!([{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}]));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let resources = container_resources(&pod, container, &limits);
        assert_eq!(resources.oom_score_adj, 0, "an unprivileged kubelet gives no negative scores");
        assert_eq!(
            (resources.cpu_quota, resources.cpu_shares, resources.memory_limit_in_bytes),
            (100_000, 1024, 64 << 20)
        );
    }

    #[test]
    fn pod_level_numbers() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
        "initContainers": [
            {"name": "side", "restartPolicy": "Always", "resources": {"limits": {"cpu": "100m", "memory": "10Mi"}}},
            {"name": "init", "resources": {"limits": {"cpu": "2", "memory": "20Mi"}}},
        ],
        "containers": [
            {"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "30Mi"}}},
            {"name": "b", "resources": {"limits": {"cpu": "500m", "memory": "30Mi"}}},
        ]}}))
        .unwrap();
        assert_eq!(pod_requests(&pod), (2100, 70 << 20));
        assert_eq!(
            pod_cgroup(&pod, true),
            PodCgroup { cpu_shares: 2150, cpu_quota_us: Some(210_000), memory_limit_bytes: Some(70 << 20) }
        );
        let mut heavier = pod;
        let overhead = [("cpu", "900m"), ("memory", "10Mi")].map(|(name, of)| (name.into(), Quantity(of.into())));
        heavier.spec.as_mut().unwrap().overhead = Some(overhead.into());
        assert_eq!(
            pod_cgroup(&heavier, true),
            PodCgroup { cpu_shares: 3072, cpu_quota_us: Some(300_000), memory_limit_bytes: Some(80 << 20) }
        );
    }
}
