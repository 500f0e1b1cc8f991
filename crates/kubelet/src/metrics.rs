//! What the kubelet counts of its own work, under upstream's names.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::managers::metrics::ManagerMetrics;
use crate::pod_resources::EndpointMetrics;

/// Seconds; of calls to the runtime.
const CALL_SECONDS: &[f64] =
    &[0.005, 0.0125, 0.03125, 0.078, 0.195, 0.488, 1.22, 3.05, 7.63, 19.1, 47.7, 119.0, 298.0, 745.0];

/// The kubelet's own series.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    probes: Registry,
    runtime_calls: IntCounterVec,
    runtime_errors: IntCounterVec,
    runtime_seconds: HistogramVec,
    evictions: IntCounterVec,
    images_collected: IntCounterVec,
    probe_total: IntCounterVec,
    probe_seconds: HistogramVec,
    running_pods: IntGauge,
    running_containers: IntGaugeVec,
    managers: ManagerMetrics,
    endpoint: EndpointMetrics,
    shutdown_start: IntGauge,
    shutdown_end: IntGauge,
}

/// Which probe, of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbeOf<'a> {
    /// `Startup`, `Liveness` or `Readiness`.
    pub kind: &'static str,
    pub container: &'a str,
    pub pod: &'a str,
    pub namespace: &'a str,
    pub pod_uid: &'a str,
}

impl Metrics {
    pub(crate) fn new(node_name: &str) -> Result<Self, prometheus::Error> {
        let (registry, probes) = (Registry::new(), Registry::new());
        let name =
            gauges(&registry, "kubelet_node_name", "[ALPHA] The node's name. The count is always 1.", &["node"])?;
        name.with_label_values(&[node_name]).set(1);
        Ok(Metrics {
            runtime_calls: counters(
                &registry,
                "kubelet_runtime_operations_total",
                "[BETA] Cumulative number of runtime operations by operation type.",
                &["operation_type"],
            )?,
            runtime_errors: counters(
                &registry,
                "kubelet_runtime_operations_errors_total",
                "[BETA] Cumulative number of runtime operation errors by operation type.",
                &["operation_type"],
            )?,
            runtime_seconds: histogram(
                &registry,
                HistogramOpts::new(
                    "kubelet_runtime_operations_duration_seconds",
                    "[BETA] Duration in seconds of runtime operations. Broken down by operation type.",
                )
                .buckets(CALL_SECONDS.to_vec()),
                &["operation_type"],
            )?,
            evictions: counters(
                &registry,
                "kubelet_evictions",
                "[ALPHA] Cumulative number of pod evictions by eviction signal",
                &["eviction_signal"],
            )?,
            images_collected: counters(
                &registry,
                "kubelet_image_garbage_collected_total",
                "[ALPHA] Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
                &["reason"],
            )?,
            running_containers: gauges(
                &registry,
                "kubelet_running_containers",
                "[BETA] Number of containers currently running",
                &["container_state"],
            )?,
            running_pods: gauge(
                &registry,
                "kubelet_running_pods",
                "[BETA] Number of pods that have a running pod sandbox",
            )?,
            probe_total: counters(
                &probes,
                "prober_probe_total",
                "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
                &["container", "namespace", "pod", "pod_uid", "probe_type", "result"],
            )?,
            probe_seconds: histogram(
                &probes,
                HistogramOpts::new(
                    "prober_probe_duration_seconds",
                    "[ALPHA] Duration in seconds for a probe response.",
                ),
                &["container", "namespace", "pod", "probe_type"],
            )?,
            managers: ManagerMetrics::new(&registry)?,
            endpoint: EndpointMetrics::new(&registry)?,
            shutdown_start: gauge(
                &registry,
                "kubelet_graceful_shutdown_start_time_seconds",
                "[ALPHA] Last graceful shutdown start time since unix epoch in seconds",
            )?,
            shutdown_end: gauge(
                &registry,
                "kubelet_graceful_shutdown_end_time_seconds",
                "[ALPHA] Last graceful shutdown end time since unix epoch in seconds",
            )?,
            registry,
            probes,
        })
    }

    /// Series of those who give out CPUs, memory and devices.
    pub(crate) fn managers(&self) -> &ManagerMetrics {
        &self.managers
    }

    /// Series of the pod resources endpoint.
    pub(crate) fn endpoint(&self) -> &EndpointMetrics {
        &self.endpoint
    }

    /// A call to the runtime ended.
    pub(crate) fn runtime_call(&self, operation: &str, took: Duration, failed: bool) {
        self.runtime_calls.with_label_values(&[operation]).inc();
        self.runtime_seconds.with_label_values(&[operation]).observe(took.as_secs_f64());
        if failed {
            self.runtime_errors.with_label_values(&[operation]).inc();
        }
    }

    /// When the last graceful shutdown of the node began and ended, seconds since 1970; 0 for not.
    pub(crate) fn graceful_shutdown(&self, start_seconds: i64, end_seconds: i64) {
        self.shutdown_start.set(start_seconds);
        self.shutdown_end.set(end_seconds);
    }

    /// A pod was evicted because of `signal`.
    pub(crate) fn evicted(&self, signal: &str) {
        self.evictions.with_label_values(&[signal]).inc();
    }

    /// An image was removed because of `reason` (`space` or `age`).
    pub(crate) fn image_collected(&self, reason: &str) {
        self.images_collected.with_label_values(&[reason]).inc();
    }

    /// A probe ended: `successful`, `failed` or `unknown`.
    pub(crate) fn probed(&self, of: ProbeOf<'_>, result: &str, took: Duration) {
        let ProbeOf { kind, container, pod, namespace, pod_uid } = of;
        self.probe_total.with_label_values(&[container, namespace, pod, pod_uid, kind, result]).inc();
        self.probe_seconds.with_label_values(&[container, namespace, pod, kind]).observe(took.as_secs_f64());
    }

    /// A container with probes is gone: so are its series.
    pub(crate) fn forget_probes(&self, of: ProbeOf<'_>) {
        let ProbeOf { container, pod, namespace, pod_uid, .. } = of;
        for kind in ["Startup", "Liveness", "Readiness"] {
            for result in ["successful", "failed", "unknown"] {
                let labels = [container, namespace, pod, pod_uid, kind, result];
                // One that never was is none to remove.
                let _ = self.probe_total.remove_label_values(&labels);
            }
            let _ = self.probe_seconds.remove_label_values(&[container, namespace, pod, kind]);
        }
    }

    /// `/metrics`, with as many pods and containers in each state (`created`, `running`, `exited`, `unknown`) right now.
    pub(crate) fn text(&self, pods: usize, containers: [usize; 4]) -> String {
        self.running_pods.set(i64::try_from(pods).unwrap_or(i64::MAX));
        for (state, count) in ["created", "running", "exited", "unknown"].into_iter().zip(containers) {
            let gauge = self.running_containers.with_label_values(&[state]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        encode(&self.registry)
    }

    /// `/metrics/probes`
    pub(crate) fn probes_text(&self) -> String {
        encode(&self.probes)
    }
}

fn encode(registry: &Registry) -> String {
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_default()
}

pub(crate) fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

pub(crate) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::with_opts(Opts::new(name, help))?)
}

pub(crate) fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn histogram(registry: &Registry, options: HistogramOpts, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
    registered(registry, HistogramVec::new(options, labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_come_and_go() {
        let metrics = Metrics::new("n1").unwrap();
        metrics.runtime_call("version", Duration::from_millis(2), true);
        metrics.evicted("memory.available");
        metrics.graceful_shutdown(5, 7);
        let of = ProbeOf { kind: "Liveness", container: "c", pod: "p", namespace: "ns", pod_uid: "u" };
        metrics.probed(of, "failed", Duration::from_millis(1));
        let text = metrics.text(3, [0, 2, 1, 0]);
        for line in [
            "kubelet_node_name{node=\"n1\"} 1",
            "kubelet_runtime_operations_errors_total{operation_type=\"version\"} 1",
            "kubelet_evictions{eviction_signal=\"memory.available\"} 1",
            "kubelet_running_pods 3",
            "kubelet_graceful_shutdown_start_time_seconds 5",
            "kubelet_graceful_shutdown_end_time_seconds 7",
            "kubelet_running_containers{container_state=\"running\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
        let line = "prober_probe_total{container=\"c\",namespace=\"ns\",pod=\"p\",pod_uid=\"u\",probe_type=\"Liveness\",result=\"failed\"} 1";
        assert!(metrics.probes_text().contains(line), "{}", metrics.probes_text());
        metrics.forget_probes(of);
        assert!(!metrics.probes_text().contains("container=\"c\""));
    }
}
