//! CRI's metrics of pods and containers: cAdvisor's names, one set of labels for all, values as the interface has them (whole
//! numbers, so seconds of processor time are cut). What the machine does not count is left out.

use std::path::Path;

use keelson_cri::v1::{
    ContainerMetrics, Metric, MetricDescriptor, MetricType, NetworkInterfaceUsage, PodSandboxMetrics, PodSandboxStats,
    UInt64Value,
};

use crate::{
    cgroup,
    core::{Core, Sandbox},
    stats,
};

/// Labels that every metric has, in their order.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// A metric: name, help, sort, and the label that it has besides.
type Described = (&'static str, &'static str, MetricType, Option<&'static str>);

const CPU: Described =
    ("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", MetricType::Counter, Some("cpu"));
const PERIODS: Described =
    ("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", MetricType::Counter, None);
const THROTTLED: Described =
    ("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", MetricType::Counter, None);
const MEMORY: Described = (
    "container_memory_usage_bytes",
    "Current memory usage in bytes, including all memory regardless of when it was accessed",
    MetricType::Gauge,
    None,
);
const WORKING_SET: Described =
    ("container_memory_working_set_bytes", "Current working set in bytes.", MetricType::Gauge, None);
const RSS: Described = ("container_memory_rss", "Size of RSS in bytes.", MetricType::Gauge, None);
const FAULTS: Described = (
    "container_memory_failures_total",
    "Cumulative count of memory allocation failures.",
    MetricType::Counter,
    Some("failure_type"),
);
const OOM: Described = (
    "container_oom_events_total",
    "Count of out of memory events observed for the container",
    MetricType::Counter,
    None,
);
const PROCESSES: Described =
    ("container_processes", "Number of processes running inside the container.", MetricType::Gauge, None);
const LAYER: Described = (
    "container_fs_usage_bytes",
    "Number of bytes that are consumed by the container on this filesystem.",
    MetricType::Gauge,
    Some("device"),
);
const STARTED: Described = (
    "container_start_time_seconds",
    "Start time of the container since unix epoch in seconds.",
    MetricType::Gauge,
    None,
);
/// What a metric says of an interface.
type OfInterface = fn(&NetworkInterfaceUsage) -> Option<UInt64Value>;
const NETWORK: [(Described, OfInterface); 4] = [
    (network("container_network_receive_bytes_total", "Cumulative count of bytes received"), |i| i.rx_bytes),
    (
        network("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving"),
        |i| i.rx_errors,
    ),
    (network("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted"), |i| i.tx_bytes),
    (
        network("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting"),
        |i| i.tx_errors,
    ),
];

const fn network(name: &'static str, help: &'static str) -> Described {
    (name, help, MetricType::Counter, Some("interface"))
}

/// What [`of_sandbox`] gives.
pub(crate) fn descriptors() -> Vec<MetricDescriptor> {
    let plain = [CPU, PERIODS, THROTTLED, MEMORY, WORKING_SET, RSS, FAULTS, OOM, PROCESSES, LAYER, STARTED];
    let all = plain.into_iter().chain(NETWORK.map(|(described, _)| described));
    all.map(|(name, help, _, label)| MetricDescriptor {
        name: name.into(),
        help: help.into(),
        label_keys: LABELS.into_iter().chain(label).map(str::to_owned).collect(),
    })
    .collect()
}

/// Metrics of a pod (its group and its network) and of its running containers.
pub(crate) async fn of_sandbox(core: &Core, sandbox: &Sandbox) -> PodSandboxMetrics {
    let usage = stats::sandbox(core, sandbox).await;
    let config = sandbox.config();
    let metadata = config.metadata.clone().unwrap_or_default();
    let parent = config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
    let of_pod = Labels { id: &parent, pod: &metadata.name, namespace: &metadata.namespace, ..Default::default() };
    let containers = usage.linux.iter().flat_map(|linux| &linux.containers).filter_map(|container| {
        let attributes = container.attributes.as_ref()?;
        let known = core.container(&attributes.id).ok()?;
        let (group, image, started_at) = known.with(|record| {
            let image = record.config.as_ref().and_then(|config| config.image.as_ref());
            (record.cgroup.clone(), image.map(|image| image.image.clone()).unwrap_or_default(), record.started_at)
        });
        let name = attributes.metadata.as_ref().map(|metadata| metadata.name.as_str()).unwrap_or_default();
        let labels = Labels { container: name, id: &group, image: &image, name: &attributes.id, ..of_pod };
        let mut metrics = Metrics { labels, list: Vec::new() };
        metrics.group(Path::new(&group));
        metrics.cpu(container.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds));
        if let Some(memory) = &container.memory {
            metrics.add(MEMORY, "", memory.usage_bytes);
            metrics.add(WORKING_SET, "", memory.working_set_bytes);
            metrics.add(RSS, "", memory.rss_bytes);
            metrics.add(FAULTS, "pgfault", memory.page_faults);
            metrics.add(FAULTS, "pgmajfault", memory.major_page_faults);
        }
        metrics.add(LAYER, "", container.writable_layer.as_ref().and_then(|layer| layer.used_bytes));
        metrics.add(STARTED, "", u64::try_from(started_at / 1_000_000_000).ok().map(|value| UInt64Value { value }));
        Some(ContainerMetrics { container_id: attributes.id.clone(), metrics: metrics.list })
    });
    let container_metrics = containers.collect();
    PodSandboxMetrics { pod_sandbox_id: sandbox.id.clone(), metrics: pod(of_pod, &parent, &usage), container_metrics }
}

fn pod(labels: Labels<'_>, group: &str, usage: &PodSandboxStats) -> Vec<Metric> {
    let mut metrics = Metrics { labels, list: Vec::new() };
    let Some(linux) = &usage.linux else { return metrics.list };
    if !group.is_empty() {
        metrics.group(Path::new(group));
    }
    metrics.cpu(linux.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds));
    if let Some(memory) = &linux.memory {
        metrics.add(MEMORY, "", memory.usage_bytes);
        metrics.add(WORKING_SET, "", memory.working_set_bytes);
        metrics.add(RSS, "", memory.rss_bytes);
    }
    for interface in linux.network.iter().flat_map(|net| net.default_interface.iter().chain(&net.interfaces)) {
        for (described, read) in NETWORK {
            metrics.add(described, &interface.name, read(interface));
        }
    }
    metrics.list
}

/// Values of [`LABELS`].
#[derive(Clone, Copy, Default)]
struct Labels<'a> {
    container: &'a str,
    id: &'a str,
    image: &'a str,
    name: &'a str,
    namespace: &'a str,
    pod: &'a str,
}

struct Metrics<'a> {
    labels: Labels<'a>,
    list: Vec<Metric>,
}

impl Metrics<'_> {
    /// `own` is the value of the label that the metric has besides.
    fn add(&mut self, (name, _, sort, label): Described, own: &str, value: Option<UInt64Value>) {
        let Some(value) = value else { return };
        let Labels { container, id, image, name: container_id, namespace, pod } = self.labels;
        let values = [container, id, image, container_id, namespace, pod];
        self.list.push(Metric {
            name: name.into(),
            // Read just now.
            timestamp: 0,
            metric_type: sort as i32,
            label_values: values.into_iter().chain(label.map(|_| own)).map(str::to_owned).collect(),
            value: Some(value),
        });
    }

    fn cpu(&mut self, nanoseconds: Option<UInt64Value>) {
        let seconds = nanoseconds.map(|used| UInt64Value { value: used.value / 1_000_000_000 });
        self.add(CPU, "total", seconds);
    }

    /// What stats do not have.
    fn group(&mut self, group: &Path) {
        let stat = std::fs::read_to_string(cgroup::dir("cpu", group).join("cpu.stat")).unwrap_or_default();
        let of = |key: &str| cgroup::keyed(&stat, key).map(|value| UInt64Value { value });
        self.add(PERIODS, "", of("nr_periods"));
        self.add(THROTTLED, "", of("nr_throttled"));
        self.add(OOM, "", Some(UInt64Value { value: cgroup::oom_kills(group) }));
        let count = std::fs::read_to_string(cgroup::dir("pids", group).join("cgroup.procs")).ok();
        self.add(PROCESSES, "", count.map(|text| UInt64Value { value: text.lines().count() as u64 }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fit_their_labels() {
        let mut metrics = Metrics { labels: Labels { pod: "p", ..Default::default() }, list: Vec::new() };
        metrics.cpu(Some(UInt64Value { value: 2_500_000_000 }));
        metrics.add(RSS, "", Some(UInt64Value { value: 7 }));
        metrics.add(RSS, "", None);
        let descriptors = descriptors();
        assert_eq!(metrics.list.len(), 2, "what is not counted is left out");
        for metric in &metrics.list {
            let described = descriptors.iter().find(|described| described.name == metric.name).unwrap();
            assert_eq!(described.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        }
        let [cpu, _] = metrics.list.as_slice() else { panic!("two") };
        assert_eq!((cpu.value.unwrap().value, cpu.label_values.last().unwrap().as_str()), (2, "total"));
    }
}
