//! `/metrics`, in Prometheus' text format, with upstream's names, labels and buckets. What happens often is counted where
//! it happens, in series that are looked up once; what has a state of its own is read when somebody asks.
//!
//! - [`requests`]: each request
//! - [`admission`]: its plugins and webhooks
//! - [`store`]: each operation of the store
//! - [`state`]: what is read when somebody asks
//! - [`process`]: the process

mod admission;
mod process;
mod requests;
mod state;
mod store;

use std::sync::Arc;

use http::Response;
use keelson_store::Store;
use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::Body;
use crate::authz::Decision;
use crate::cache::Cache;
use crate::core::Core;
use crate::http::reply;

pub(crate) use self::admission::{Admission, Asked, Rejection, Step};
pub(crate) use self::requests::{Measured, Requests};

/// Seconds; of store operations and of requests.
const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Seconds that a request waited for its seats.
const WAIT_SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// What is counted.
pub(crate) struct Metrics {
    registry: Registry,
    /// `/metrics/slis`
    slis: Registry,
    pub(crate) requests: Requests,
    pub(crate) admission: Admission,
    authenticated: [IntCounter; 2],
    authorized: [IntCounter; 3],
    pub(crate) flow_waits: HistogramVec,
    health: IntGaugeVec,
    health_checks: IntCounterVec,
    store: Arc<store::Operations>,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let (registry, slis) = (Registry::new(), Registry::new());
        let help = "Counter of authenticated attempts.";
        let authentications = counters(&registry, "authentication_attempts", help, &["result"])?;
        let help = "Counter of authorization attempts broken down by result.";
        let authorizations = counters(&registry, "authorization_attempts_total", help, &["result"])?;
        let this = Self {
            requests: Requests::new(&registry)?,
            admission: Admission::new(&registry)?,
            authenticated: ["success", "failure"].map(|result| authentications.with_label_values(&[result])),
            authorized: ["allowed", "denied", "error"].map(|result| authorizations.with_label_values(&[result])),
            flow_waits: histograms(
                &registry,
                "apiserver_flowcontrol_request_wait_duration_seconds",
                "Length of time a request spent waiting in its queue",
                WAIT_SECONDS,
                &["priority_level", "flow_schema", "execute"],
            )?,
            health: register(
                &slis,
                IntGaugeVec::new(
                    Opts::new("kubernetes_healthcheck", "Result of the last run of a health check."),
                    &["name", "type"],
                )?,
            )?,
            health_checks: counters(
                &slis,
                "kubernetes_healthchecks_total",
                "Results of all runs of health checks.",
                &["name", "type", "status"],
            )?,
            store: Arc::new(store::Operations::new(&registry)?),
            registry,
            slis,
        };
        Ok(this)
    }

    /// The store, with its operations measured.
    pub(crate) fn measured(&self, store: Arc<dyn Store>, cache: Arc<Cache>) -> Arc<dyn Store> {
        Arc::new(store::Measured::new(store, cache, self.store.clone()))
    }

    /// Notes whether somebody proved who he is.
    pub(crate) fn authenticated(&self, success: bool) {
        let [succeeded, failed] = &self.authenticated;
        if success { succeeded.inc() } else { failed.inc() }
    }

    /// Notes what authorization decided.
    pub(crate) fn authorized(&self, decision: &Decision) {
        let [allowed, denied, failed] = &self.authorized;
        match decision {
            Decision { allowed: true, .. } => allowed.inc(),
            Decision { error, .. } if !error.is_empty() => failed.inc(),
            _ => denied.inc(),
        }
    }

    /// Notes the outcome of a health check.
    pub(crate) fn health(&self, name: &str, endpoint: &str, healthy: bool) {
        self.health.with_label_values(&[name, endpoint]).set(i64::from(healthy));
        let status = if healthy { "success" } else { "error" };
        self.health_checks.with_label_values(&[name, endpoint, status]).inc();
    }
}

/// The answer, for a path of metrics.
pub(crate) fn serve(core: &Core, path: &str) -> Option<Response<Body>> {
    let families = match path {
        "/metrics" => {
            let mut families = core.metrics.registry.gather();
            families.extend(state::gather(core));
            families.extend(process::gather());
            // Of components in the same process: work queues, leader election.
            families.extend(prometheus::gather());
            families.sort_by(|a, b| a.name().cmp(b.name()));
            families
        }
        "/metrics/slis" => core.metrics.slis.gather(),
        _ => return None,
    };
    let mut text = String::with_capacity(64 << 10);
    if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
        return Some(reply::text(500, format!("{error}\n")));
    }
    Some(reply::typed(200, "text/plain; version=0.0.4; charset=utf-8", bytes::Bytes::from(text)))
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    register(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
}
