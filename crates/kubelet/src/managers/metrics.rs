//! What the managers count, under upstream's names.

use std::collections::BTreeMap;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::metrics::{counters, gauges, registered};

/// Milliseconds; of admissions.
const ADMISSION_MS: [f64; 15] = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2];

/// The managers' series.
#[derive(Clone, Debug)]
pub(crate) struct ManagerMetrics {
    pub admission_requests: IntCounter,
    pub admission_errors: IntCounter,
    pub admission_duration: Histogram,
    cpu_requests: IntCounter,
    cpu_errors: IntCounter,
    shared_pool: IntGauge,
    exclusive: IntGauge,
    exclusive_by_node: IntGaugeVec,
    memory_requests: IntCounter,
    memory_errors: IntCounter,
    aligned: IntCounterVec,
    not_aligned: IntCounterVec,
}

impl ManagerMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| registered(registry, IntCounter::with_opts(Opts::new(name, help))?);
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::with_opts(Opts::new(name, help))?);
        let duration = HistogramOpts::new(
            "kubelet_topology_manager_admission_duration_ms",
            "[ALPHA] Duration in milliseconds to serve a pod admission request.",
        );
        Ok(ManagerMetrics {
            admission_requests: counter(
                "kubelet_topology_manager_admission_requests_total",
                "[ALPHA] The number of admission requests where resources have to be aligned.",
            )?,
            admission_errors: counter(
                "kubelet_topology_manager_admission_errors_total",
                "[ALPHA] The number of admission request failures where resources could not be aligned.",
            )?,
            admission_duration: registered(registry, Histogram::with_opts(duration.buckets(ADMISSION_MS.to_vec()))?)?,
            cpu_requests: counter(
                "kubelet_cpu_manager_pinning_requests_total",
                "[ALPHA] The number of cpu core allocations which required pinning.",
            )?,
            cpu_errors: counter(
                "kubelet_cpu_manager_pinning_errors_total",
                "[ALPHA] The number of cpu core allocations which required pinning failed.",
            )?,
            shared_pool: gauge(
                "kubelet_cpu_manager_shared_pool_size_millicores",
                "[ALPHA] The size of the shared CPU pool for non-guaranteed QoS pods, in millicores.",
            )?,
            exclusive: gauge(
                "kubelet_cpu_manager_exclusive_cpu_allocation_count",
                "[ALPHA] The total number of CPUs exclusively allocated to containers running on this node",
            )?,
            exclusive_by_node: gauges(
                registry,
                "kubelet_cpu_manager_allocation_per_numa",
                "[ALPHA] Number of CPUs allocated per NUMA node",
                &["numa_node"],
            )?,
            memory_requests: counter(
                "kubelet_memory_manager_pinning_requests_total",
                "[ALPHA] The number of memory pages allocations which required pinning.",
            )?,
            memory_errors: counter(
                "kubelet_memory_manager_pinning_errors_total",
                "[ALPHA] The number of memory pages allocations which required pinning that failed.",
            )?,
            aligned: counters(
                registry,
                "kubelet_container_aligned_compute_resources_count",
                "[ALPHA] Cumulative number of aligned compute resources allocated to containers by alignment type.",
                &["scope", "boundary"],
            )?,
            not_aligned: counters(
                registry,
                "kubelet_container_aligned_compute_resources_failure_count",
                "[ALPHA] Cumulative number of failures to allocate aligned compute resources to containers by alignment type.",
                &["scope", "boundary"],
            )?,
        })
    }

    /// A container asked (or did not) for CPUs of its own.
    pub(super) fn pinned_cpus(&self, asked: bool, failed: bool) {
        self.cpu_requests.inc_by(asked.into());
        self.cpu_errors.inc_by(failed.into());
    }

    /// The same of memory.
    pub(super) fn pinned_memory(&self, asked: bool, failed: bool) {
        self.memory_requests.inc_by(asked.into());
        self.memory_errors.inc_by(failed.into());
    }

    pub(super) fn aligned(&self, scope: &str, boundary: &str) {
        self.aligned.with_label_values(&[scope, boundary]).inc();
    }

    pub(super) fn not_aligned(&self, scope: &str, boundary: &str) {
        self.not_aligned.with_label_values(&[scope, boundary]).inc();
    }

    /// So many CPUs can still be given away, and so many are, by NUMA node.
    pub(super) fn set_cpus(&self, available: usize, exclusive: &BTreeMap<usize, usize>) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.shared_pool.set(number(available.saturating_mul(1000)));
        self.exclusive.set(number(exclusive.values().sum()));
        for (node, count) in exclusive {
            self.exclusive_by_node.with_label_values(&[node.to_string().as_str()]).set(number(*count));
        }
    }
}
