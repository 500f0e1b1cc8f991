//! `/metrics/resource`: CPU and memory of the node, its pods and their containers, for metrics.k8s.io.

use super::Snapshot;
use super::exposition::{Exposition, Kind};
use super::group::Group;
use crate::pod::view;

/// Seconds of CPU.
pub(super) fn cpu_seconds(group: &Group) -> f64 {
    group.cpu.usage_ns as f64 / 1e9
}

fn working_set(group: &Group) -> Option<f64> {
    group.memory.as_ref().map(|memory| memory.working_set as f64)
}

fn swap(group: &Group) -> Option<f64> {
    group.swap_bytes.map(|bytes| bytes as f64)
}

/// A family about a container or pod: name, help, kind and the value, if it has one.
type Column = (&'static str, &'static str, Kind, fn(&Group) -> Option<f64>);

const CONTAINER: [Column; 3] = [
    (
        "container_cpu_usage_seconds_total",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        Kind::Counter,
        |group| Some(cpu_seconds(group)),
    ),
    (
        "container_memory_working_set_bytes",
        "[STABLE] Current working set of the container in bytes",
        Kind::Gauge,
        working_set,
    ),
    (
        "container_swap_usage_bytes",
        "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems",
        Kind::Gauge,
        swap,
    ),
];
const NODE: [Column; 3] = [
    (
        "node_cpu_usage_seconds_total",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        Kind::Counter,
        |group| Some(cpu_seconds(group)),
    ),
    ("node_memory_working_set_bytes", "[STABLE] Current working set of the node in bytes", Kind::Gauge, working_set),
    (
        "node_swap_usage_bytes",
        "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems",
        Kind::Gauge,
        swap,
    ),
];
const POD: [Column; 3] = [
    (
        "pod_cpu_usage_seconds_total",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        Kind::Counter,
        |group| Some(cpu_seconds(group)),
    ),
    ("pod_memory_working_set_bytes", "[STABLE] Current working set of the pod in bytes", Kind::Gauge, working_set),
    (
        "pod_swap_usage_bytes",
        "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
        Kind::Gauge,
        swap,
    ),
];

/// The whole text.
pub(crate) fn text(snapshot: &Snapshot) -> String {
    let mut exposition = Exposition::default();
    for (name, help, kind, value) in CONTAINER {
        let mut family = exposition.family(name, help, kind);
        for pod in &snapshot.pods {
            for container in &pod.containers {
                if let Some(value) = value(&container.group) {
                    let labels = [
                        ("container", container.record.name.as_str()),
                        ("namespace", view::namespace(&pod.pod)),
                        ("pod", view::name(&pod.pod)),
                    ];
                    family.sample(&labels, value, Some(container.group.at));
                }
            }
        }
    }
    let help = "[STABLE] Start time of the container since unix epoch in seconds";
    let mut family = exposition.family("container_start_time_seconds", help, Kind::Gauge);
    for pod in &snapshot.pods {
        for container in &pod.containers {
            if let Some(started) = container.record.started_at {
                let labels = [
                    ("container", container.record.name.as_str()),
                    ("namespace", view::namespace(&pod.pod)),
                    ("pod", view::name(&pod.pod)),
                ];
                family.sample(&labels, started.as_nanosecond() as f64 / 1e9, None);
            }
        }
    }
    for (name, help, kind, value) in NODE {
        let mut family = exposition.family(name, help, kind);
        if let Some((group, value)) = snapshot.node.as_ref().and_then(|group| Some((group, value(group)?))) {
            family.sample(&[], value, Some(group.at));
        }
    }
    for (name, help, kind, value) in POD {
        let mut family = exposition.family(name, help, kind);
        for pod in &snapshot.pods {
            if let Some((group, value)) = pod.group.as_ref().and_then(|group| Some((group, value(group)?))) {
                let labels = [("namespace", view::namespace(&pod.pod)), ("pod", view::name(&pod.pod))];
                family.sample(&labels, value, Some(group.at));
            }
        }
    }
    let failed = if snapshot.node.is_some() { 0.0 } else { 1.0 };
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    exposition.family("resource_scrape_error", help, Kind::Gauge).sample(&[], failed, None);
    let help = "[ALPHA] (Deprecated since 1.29.0) 1 if there was an error while getting container metrics, 0 otherwise";
    exposition.family("scrape_error", help, Kind::Gauge).sample(&[], failed, None);
    exposition.finish()
}
