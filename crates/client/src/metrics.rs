//! What components tell of themselves in Prometheus' form, with upstream's names, labels and buckets: work queues and leader
//! election. As upstream's, they are in the process's own registry (`prometheus::default_registry`), which whoever serves
//! `/metrics` shows.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};
use tokio::time::Instant;

/// Seconds; of waiting and of working.
const SECONDS: [f64; 10] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0];
const NAME: [&str; 1] = ["name"];

/// Families of the queues' series.
struct Families {
    depth: IntGaugeVec,
    adds: IntCounterVec,
    waits: HistogramVec,
    work: HistogramVec,
    retries: IntCounterVec,
    running: Running,
}

/// Registers what is new; a family whose name is taken, which only a bug can make, is counted and not shown.
fn registered<C: Collector + Clone + 'static>(collector: C) -> C {
    if let Err(error) = prometheus::register(Box::new(collector.clone())) {
        tracing::error!(%error, "metrics are not shown");
    }
    collector
}

static FAMILIES: LazyLock<Option<Families>> = LazyLock::new(|| {
    let make = || -> Result<Families, prometheus::Error> {
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &NAME).map(registered);
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &NAME).map(registered);
        let seconds = |name: &str, help: &str| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), &NAME).map(registered)
        };
        Ok(Families {
            depth: gauge("workqueue_depth", "Current depth of workqueue")?,
            adds: counter("workqueue_adds_total", "Total number of adds handled by workqueue")?,
            waits: seconds(
                "workqueue_queue_duration_seconds",
                "How long in seconds an item stays in workqueue before being requested.",
            )?,
            work: seconds(
                "workqueue_work_duration_seconds",
                "How long in seconds processing an item from workqueue takes.",
            )?,
            retries: counter("workqueue_retries_total", "Total number of retries handled by workqueue")?,
            running: registered(Running::new()?),
        })
    };
    make().inspect_err(|error| tracing::error!(%error, "work queues are not measured")).ok()
});

static LEADING: LazyLock<Option<IntGaugeVec>> = LazyLock::new(|| {
    let help = "1 for a lease that this process holds, 0 for one that it stands by for; by the lease's name.";
    let gauge = IntGaugeVec::new(Opts::new("leader_election_master_status", help), &NAME);
    gauge.map(registered).inspect_err(|error| tracing::error!(%error, "leases are not measured")).ok()
});

/// Notes whether this process holds a lease.
pub(crate) fn leads(lease: &str, leads: bool) {
    if let Some(gauge) = &*LEADING {
        gauge.with_label_values(&[lease]).set(i64::from(leads));
    }
}

/// When each piece of work of a queue began, by its number.
type Began = Mutex<HashMap<u64, Instant>>;

/// What a queue of this name works at, while it is there.
type Named = (String, Weak<Began>);

/// Work that is not done yet, which is looked at when somebody asks.
#[derive(Clone)]
struct Running {
    queues: Arc<Mutex<Vec<Named>>>,
    unfinished: GaugeVec,
    longest: GaugeVec,
}

impl Running {
    fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &NAME);
        Ok(Self {
            queues: Arc::default(),
            unfinished: gauge(
                "workqueue_unfinished_work_seconds",
                "How many seconds of work in progress there are that work_duration has not seen yet: large where workers hang.",
            )?,
            longest: gauge(
                "workqueue_longest_running_processor_seconds",
                "How many seconds has the longest running processor for workqueue been running.",
            )?,
        })
    }
}

impl Collector for Running {
    fn desc(&self) -> Vec<&Desc> {
        [self.unfinished.desc(), self.longest.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.unfinished.reset();
        self.longest.reset();
        self.queues.lock().retain(|(name, began)| {
            let Some(began) = began.upgrade() else { return false };
            let ages: Vec<f64> = began.lock().values().map(|began| began.elapsed().as_secs_f64()).collect();
            // Queues of the same name, of several servers in one process, are one.
            self.unfinished.with_label_values(&[name]).add(ages.iter().sum());
            let longest = self.longest.with_label_values(&[name]);
            longest.set(ages.into_iter().fold(longest.get(), f64::max));
            true
        });
        [self.unfinished.collect(), self.longest.collect()].concat()
    }
}

/// By what name upstream's metrics know a controller's queue: mostly what the controller is about.
fn queue_of(controller: &str) -> &str {
    match controller {
        "bootstrap-signer-controller" => "bootstrap_signer_queue",
        "csrapproving" | "csrsigning" => "certificate",
        "endpoint-slice-controller" => "endpoint_slice",
        "garbage-collector" => "garbage_collector_attempt_to_delete",
        "persistentvolume-protection-controller" => "pvprotection",
        "persistentvolumeclaim-protection-controller" => "pvcprotection",
        "pod-garbage-collector" => "orphaned_pods_nodes",
        "replication-controller" => "replicationmanager",
        "resourcequota-controller" => "resourcequota_primary",
        "root-ca-cert-publisher" => "root_ca_cert_publisher",
        "serviceaccount-token-controller" => "serviceaccount_tokens_secret",
        "taint-eviction-controller" => "noexec_taint_node",
        "token-cleaner-controller" => "token_cleaner",
        "volumeattributesclass-protection-controller" => "vacprotection",
        other => other.strip_suffix("-controller").unwrap_or(other),
    }
}

/// The series of one queue.
pub(crate) struct Queue {
    pub(crate) depth: IntGauge,
    pub(crate) adds: IntCounter,
    pub(crate) waits: Histogram,
    pub(crate) retries: IntCounter,
    work: Histogram,
    began: Arc<Began>,
}

impl Queue {
    /// Of a controller.
    pub(crate) fn new(controller: &str) -> Option<Self> {
        let (families, name) = (FAMILIES.as_ref()?, queue_of(controller));
        let began = Arc::<Began>::default();
        families.running.queues.lock().push((name.to_owned(), Arc::downgrade(&began)));
        Some(Self {
            depth: families.depth.with_label_values(&[name]),
            adds: families.adds.with_label_values(&[name]),
            waits: families.waits.with_label_values(&[name]),
            retries: families.retries.with_label_values(&[name]),
            work: families.work.with_label_values(&[name]),
            began,
        })
    }

    /// Work begins.
    pub(crate) fn begin(&self, number: u64) {
        self.began.lock().insert(number, Instant::now());
    }

    /// It is done, well or not.
    pub(crate) fn done(&self, number: u64) {
        if let Some(began) = self.began.lock().remove(&number) {
            self.work.observe(began.elapsed().as_secs_f64());
        }
    }
}
