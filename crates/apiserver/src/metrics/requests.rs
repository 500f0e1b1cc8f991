//! Requests: how many, how long they took, how large the answers were. A request finds its series by one look-up that
//! allocates nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use keelson_api::kind::{Kind, Verb};
use parking_lot::{Mutex, RwLock};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{SECONDS, counters, histograms, register};
use crate::core::Core;
use crate::dispatch::kind_verb;
use crate::http::path::RequestInfo;
use crate::http::query::Query;

/// Combinations of labels that are told apart; requests beyond them are not counted. All built-in resources in all verbs
/// are fewer.
const MAX_SERIES: usize = 20_000;
const SIZES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const LABELS: [&str; 7] = ["verb", "group", "version", "resource", "subresource", "scope", "component"];
/// Paths besides resources that have series of their own.
const PATHS: [&str; 5] = ["/healthz", "/livez", "/readyz", "/metrics", "/version"];

/// Families of series.
pub(crate) struct Requests {
    total: IntCounterVec,
    duration: HistogramVec,
    sli_duration: HistogramVec,
    sizes: HistogramVec,
    long_running: IntGaugeVec,
    watch_events: IntCounterVec,
    by_labels: RwLock<HashMap<Box<[u8]>, Arc<Series>>>,
    /// Requests that have seats: reads, and what changes something.
    reading: AtomicI64,
    writing: AtomicI64,
}

/// What requests with the same labels share.
struct Series {
    labels: [String; 7],
    dry_run: &'static str,
    /// By code; there are few.
    total: Mutex<SmallVec<[(u16, IntCounter); 4]>>,
    duration: Histogram,
    /// Of what is no dry run.
    sli_duration: Option<Histogram>,
    /// Of reads.
    size: Option<Histogram>,
    /// Of what goes on for long.
    open: Option<IntGauge>,
    /// Of watches.
    events: Option<IntCounter>,
}

/// A request that is being measured. Dropped, it is noted.
pub(crate) struct Measured {
    core: Arc<Core>,
    series: Arc<Series>,
    begin: Instant,
    waited: Duration,
    code: u16,
    bytes: u64,
    long_running: bool,
    writes: bool,
}

impl Requests {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let with = |extra: &[&'static str]| -> Vec<&'static str> { [&LABELS[..], extra].concat() };
        let sli: Vec<f64> = SECONDS.iter().copied().filter(|seconds| *seconds >= 0.05).collect();
        let gauge = Opts::new(
            "apiserver_longrunning_requests",
            "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component.",
        );
        Ok(Self {
            total: counters(
                registry,
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
                &with(&["dry_run", "code"]),
            )?,
            duration: histograms(
                registry,
                "apiserver_request_duration_seconds",
                "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
                SECONDS,
                &with(&["dry_run"]),
            )?,
            sli_duration: histograms(
                registry,
                "apiserver_request_sli_duration_seconds",
                "Response latency distribution (not counting the time in queues of priority and fairness) in seconds for each verb, group, version, resource, subresource, scope and component.",
                &sli,
                &LABELS,
            )?,
            sizes: histograms(
                registry,
                "apiserver_response_sizes",
                "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
                SIZES,
                &LABELS,
            )?,
            long_running: register(registry, IntGaugeVec::new(gauge, &LABELS)?)?,
            watch_events: counters(
                registry,
                "apiserver_watch_events_total",
                "Number of events sent in watch clients",
                &["group", "version", "resource"],
            )?,
            by_labels: RwLock::default(),
            reading: AtomicI64::new(0),
            writing: AtomicI64::new(0),
        })
    }

    /// Requests that are being served: reads, and what changes something.
    pub(super) fn in_flight(&self) -> (i64, i64) {
        (self.reading.load(Ordering::Relaxed), self.writing.load(Ordering::Relaxed))
    }

    /// Series of a request; none for what this server does not serve.
    fn series(&self, core: &Core, info: &RequestInfo, query: &Query, apply: bool) -> Option<Arc<Series>> {
        let verb = verb(info, apply)?;
        let writes = !matches!(verb, "GET" | "LIST" | "WATCH" | "CONNECT");
        let dry_run = if writes && query.text("dryRun") == Some("All") { "All" } else { "" };
        let labels: [&str; 7] = match &info.target {
            None => {
                let path = PATHS.iter().find(|path| **path == info.path)?;
                [verb, "", "", "", path, "", "apiserver"]
            }
            Some(target) => {
                let place = match target.namespace.as_str() {
                    _ if !target.name.is_empty() || info.verb == "create" => "resource",
                    "" => "cluster",
                    _ => "namespace",
                };
                let (group, version) = (target.group.as_str(), target.version.as_str());
                [verb, group, version, &target.resource, &target.subresource, place, "apiserver"]
            }
        };
        let mut key: SmallVec<[u8; 192]> = SmallVec::new();
        for part in labels.iter().chain([&dry_run]) {
            key.extend_from_slice(part.as_bytes());
            key.push(0);
        }
        if let Some(series) = self.by_labels.read().get(&*key) {
            return Some(series.clone());
        }
        if let Some(target) = &info.target {
            let resource = core.registry.get(&target.group, &target.version, &target.resource)?;
            // Any client chooses the path and the method, before it is known.
            if !serves(&resource.kind, &target.subresource, kind_verb(&info.verb)?) {
                return None;
            }
        }
        let mut all = self.by_labels.write();
        if all.len() >= MAX_SERIES {
            return None;
        }
        let made =
            all.entry(key.into_vec().into_boxed_slice()).or_insert_with(|| Arc::new(self.made(labels, dry_run, info)));
        Some(made.clone())
    }

    fn made(&self, labels: [&str; 7], dry_run: &'static str, info: &RequestInfo) -> Series {
        let [verb, group, version, resource, ..] = labels;
        let with_dry_run: Vec<&str> = labels.iter().copied().chain([dry_run]).collect();
        let is = |condition: bool| condition.then_some(());
        Series {
            labels: labels.map(str::to_owned),
            dry_run,
            total: Mutex::default(),
            duration: self.duration.with_label_values(&with_dry_run),
            sli_duration: is(dry_run.is_empty()).map(|()| self.sli_duration.with_label_values(&labels)),
            size: is(matches!(verb, "GET" | "LIST")).map(|()| self.sizes.with_label_values(&labels)),
            open: is(info.is_long_running()).map(|()| self.long_running.with_label_values(&labels)),
            events: is(verb == "WATCH").map(|()| self.watch_events.with_label_values(&[group, version, resource])),
        }
    }

    fn in_flight_of(&self, writes: bool) -> &AtomicI64 {
        if writes { &self.writing } else { &self.reading }
    }

    fn count(&self, series: &Series, code: u16) {
        let mut total = series.total.lock();
        if let Some((_, counter)) = total.iter().find(|(known, _)| *known == code) {
            return counter.inc();
        }
        let text = code.to_string();
        let labels: Vec<&str> =
            series.labels.iter().map(String::as_str).chain([series.dry_run, text.as_str()]).collect();
        let counter = self.total.with_label_values(&labels);
        counter.inc();
        total.push((code, counter));
    }
}

/// Whether there is such a verb of a kind, or of a subresource of it.
fn serves(kind: &Kind, subresource: &str, verb: Verb) -> bool {
    if subresource.is_empty() {
        return kind.has_verb(verb);
    }
    kind.subresources.iter().any(|known| known.name == subresource && known.verbs.contains(&verb))
}

/// The verb as it is reported; `None` for methods that are none.
fn verb(info: &RequestInfo, apply: bool) -> Option<&'static str> {
    let Some(target) = &info.target else {
        return match info.verb.as_str() {
            "get" | "head" => Some("GET"),
            _ => None,
        };
    };
    if matches!(target.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy") {
        return Some("CONNECT");
    }
    Some(match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" if apply => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => return None,
    })
}

impl Measured {
    /// Begins to measure a request, if it is about something that this server has.
    pub(crate) fn begin(
        core: &Arc<Core>,
        info: &RequestInfo,
        query: &Query,
        apply: bool,
        begin: Instant,
    ) -> Option<Self> {
        let requests = &core.metrics.requests;
        let series = requests.series(core, info, query, apply)?;
        let long_running = series.open.is_some();
        let writes = !matches!(info.verb.as_str(), "get" | "list" | "watch" | "head");
        match &series.open {
            Some(open) => open.inc(),
            None => {
                requests.in_flight_of(writes).fetch_add(1, Ordering::Relaxed);
            }
        }
        Some(Self {
            core: core.clone(),
            series,
            begin,
            waited: Duration::ZERO,
            code: 0,
            bytes: 0,
            long_running,
            writes,
        })
    }

    /// It has waited for its seats.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// It was answered so.
    pub(crate) fn answered(&mut self, code: u16) {
        self.code = code;
    }

    /// All of the body is sent.
    pub(crate) fn sized(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// Some of the body was sent; a watch's events come one by one.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(events) = &self.series.events {
            events.inc();
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let (requests, series) = (&self.core.metrics.requests, &*self.series);
        match &series.open {
            Some(open) => open.dec(),
            None => {
                requests.in_flight_of(self.writes).fetch_sub(1, Ordering::Relaxed);
            }
        }
        if self.code == 0 {
            // Nobody was there any more to be answered.
            return;
        }
        requests.count(series, self.code);
        if self.long_running && self.code < 400 {
            return;
        }
        let took = self.begin.elapsed();
        series.duration.observe(took.as_secs_f64());
        if let Some(sli_duration) = &series.sli_duration {
            sli_duration.observe(took.saturating_sub(self.waited).as_secs_f64());
        }
        if let Some(size) = &series.size {
            size.observe(self.bytes as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_upstreams() {
        for (request, apply, expected) in [
            ("GET /api/v1/pods", false, Some("LIST")),
            ("GET /api/v1/pods?watch=1", false, Some("WATCH")),
            ("PATCH /api/v1/namespaces/a/pods/p", true, Some("APPLY")),
            ("PATCH /api/v1/namespaces/a/pods/p", false, Some("PATCH")),
            ("POST /api/v1/namespaces/a/pods/p/exec", false, Some("CONNECT")),
            ("DELETE /api/v1/namespaces/a/pods", false, Some("DELETECOLLECTION")),
            ("HEAD /readyz", false, Some("GET")),
            ("POST /readyz", false, None),
            ("OPTIONS /api/v1/pods", false, None),
        ] {
            let (method, uri) = request.split_once(' ').unwrap();
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let info = RequestInfo::parse(&method.parse().unwrap(), path, &Query::parse(query));
            assert_eq!(verb(&info, apply), expected, "{request}");
        }
    }

    #[test]
    fn only_what_is_served_has_series() {
        let kinds = keelson_api::kinds::all();
        let kind = |name: &str| kinds.iter().find(|kind| kind.kind == name).unwrap();
        for (name, subresource, verb, expected) in [
            ("Pod", "", Verb::DeleteCollection, true),
            ("Pod", "status", Verb::Patch, true),
            ("Pod", "status", Verb::Create, false),
            ("Pod", "binding", Verb::Create, true),
            ("Pod", "binding", Verb::Get, false),
            ("Pod", "nonsense", Verb::Get, false),
            ("SubjectAccessReview", "", Verb::Create, true),
            ("SubjectAccessReview", "", Verb::List, false),
        ] {
            assert_eq!(serves(kind(name), subresource, verb), expected, "{name} {subresource} {verb:?}");
        }
    }

    #[test]
    fn families_have_upstreams_names() {
        use prometheus::core::Collector as _;

        let registry = Registry::new();
        let requests = Requests::new(&registry).unwrap();
        assert_eq!(requests.total.desc()[0].fq_name, "apiserver_request_total");
        assert_eq!(requests.duration.desc()[0].variable_labels.len(), 8);
    }
}
