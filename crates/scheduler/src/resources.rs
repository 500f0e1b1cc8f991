//! Amounts of resources as integers: CPU in thousandths, memory and storage in bytes, others in units.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What upstream counts for a container that asks for no CPU when it scores nodes, in thousandths.
const DEFAULT_MILLI_CPU: i64 = 100;
/// The same for memory, in bytes.
const DEFAULT_MEMORY_BYTES: i64 = 200 << 20;

/// Amounts of each resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory_bytes: i64,
    pub ephemeral_storage_bytes: i64,
    /// Extended resources and huge pages.
    pub scalar: BTreeMap<String, i64>,
}

/// What a pod asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// What Filter counts.
    pub resources: Resources,
    /// What Score counts: CPU with the default for containers that ask for none.
    pub non_zero_milli_cpu: i64,
    /// Likewise memory.
    pub non_zero_memory_bytes: i64,
}

type List = BTreeMap<String, Quantity>;

impl Resources {
    /// From a resource list; amounts that cannot be read count as none (the API server lets none in).
    pub fn from_list(list: &List) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            let Ok(amount) = quantity.0.parse::<keelson_api::quantity::Quantity>() else { continue };
            match name.as_str() {
                "cpu" => resources.milli_cpu = amount.milli_value(),
                "memory" => resources.memory_bytes = amount.value(),
                "ephemeral-storage" => resources.ephemeral_storage_bytes = amount.value(),
                "pods" => {}
                _ => drop(resources.scalar.insert(name.clone(), amount.value())),
            }
        }
        resources
    }

    /// Adds `other`, `times` times (-1 takes it away).
    pub fn add(&mut self, other: &Self, times: i64) {
        self.milli_cpu = self.milli_cpu.saturating_add(other.milli_cpu.saturating_mul(times));
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes.saturating_mul(times));
        self.ephemeral_storage_bytes =
            self.ephemeral_storage_bytes.saturating_add(other.ephemeral_storage_bytes.saturating_mul(times));
        for (name, amount) in &other.scalar {
            let own = self.scalar.entry(name.clone()).or_default();
            *own = own.saturating_add(amount.saturating_mul(times));
        }
    }

    fn max(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        self.ephemeral_storage_bytes = self.ephemeral_storage_bytes.max(other.ephemeral_storage_bytes);
        for (name, amount) in &other.scalar {
            let own = self.scalar.entry(name.clone()).or_default();
            *own = (*own).max(*amount);
        }
    }

    fn with_defaults(mut self, asked: Option<&List>) -> Self {
        let has = |name| asked.is_some_and(|list| list.contains_key(name));
        if !has("cpu") {
            self.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !has("memory") {
            self.memory_bytes = DEFAULT_MEMORY_BYTES;
        }
        self
    }
}

/// A pod's requests: its containers and sidecars together, or the largest moment of its start if that is more (init
/// containers run one after the other, beside the sidecars started before them), plus overhead; pod-level requests win.
pub fn of_pod(spec: &core::PodSpec) -> Requests {
    let exact = sum(spec, |list| list.map(Resources::from_list).unwrap_or_default());
    let counted = sum(spec, |list| list.map(Resources::from_list).unwrap_or_default().with_defaults(list));
    Requests { resources: exact, non_zero_milli_cpu: counted.milli_cpu, non_zero_memory_bytes: counted.memory_bytes }
}

fn sum(spec: &core::PodSpec, amount: impl Fn(Option<&List>) -> Resources) -> Resources {
    let of = |container: &core::Container| amount(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container), 1);
    }
    let (mut sidecars, mut starting) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&of(container), 1);
            starting.max(&sidecars);
        } else {
            let mut moment = sidecars.clone();
            moment.add(&of(container), 1);
            starting.max(&moment);
        }
    }
    running.add(&sidecars, 1);
    running.max(&starting);
    if let Some(list) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let whole = Resources::from_list(list);
        for name in list.keys() {
            match name.as_str() {
                "cpu" => running.milli_cpu = whole.milli_cpu,
                "memory" => running.memory_bytes = whole.memory_bytes,
                _ => {}
            }
        }
    }
    if let Some(overhead) = &spec.overhead {
        running.add(&Resources::from_list(overhead), 1);
    }
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: serde_json::Value, cpu: i64, memory_bytes: i64, counted_cpu: i64) {
        let spec: core::PodSpec = serde_json::from_value(spec).unwrap();
        let requests = of_pod(&spec);
        assert_eq!(
            (requests.resources.milli_cpu, requests.resources.memory_bytes, requests.non_zero_milli_cpu),
            (cpu, memory_bytes, counted_cpu)
        );
    }

    #[test]
    fn requests_of_pods() {
        let c = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Ki"}}});
        let sidecar = |cpu: &str| {
            let mut c = c(cpu);
            c["restartPolicy"] = "Always".into();
            c
        };
        check(json!({"containers": [{"name": "c"}, {"name": "d"}]}), 0, 0, 200);
        check(json!({"containers": [c("1"), c("250m")]}), 1250, 2048, 1250);
        check(json!({"containers": [c("1")], "initContainers": [c("2"), c("500m")]}), 2000, 1024, 2000);
        check(json!({"containers": [c("1")], "initContainers": [sidecar("1"), c("2")]}), 3000, 2048, 3000);
        check(json!({"containers": [c("1")], "overhead": {"cpu": "10m"}}), 1010, 1024, 1010);
        check(json!({"containers": [c("1")], "resources": {"requests": {"cpu": "3"}}}), 3000, 1024, 3000);
    }
}
