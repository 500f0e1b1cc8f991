//! What has a state of its own, read when somebody asks.

use std::sync::atomic::Ordering;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use crate::core::Core;
use crate::flow::Reason;

/// Objects looked at to learn how large those of a resource are.
const SAMPLE: usize = 16;

/// Families that are made for one answer.
#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    fn gauge<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([String; N], i64)>,
    ) {
        let Ok(family) = IntGaugeVec::new(Opts::new(name, help), &labels) else { return };
        for (labels, value) in values {
            family.with_label_values(&labels.each_ref().map(String::as_str)).set(value);
        }
        self.0.extend(family.collect());
    }

    fn counter<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([String; N], u64)>,
    ) {
        let Ok(family) = IntCounterVec::new(Opts::new(name, help), &labels) else { return };
        for (labels, value) in values {
            family.with_label_values(&labels.each_ref().map(String::as_str)).inc_by(value);
        }
        self.0.extend(family.collect());
    }
}

/// All of them. Families without a value are left out.
pub(super) fn gather(core: &Core) -> Vec<MetricFamily> {
    let mut families = Families::default();
    requests(core, &mut families);
    storage(core, &mut families);
    flow_control(core, &mut families);
    audit(core, &mut families);
    families.0.retain(|family| !family.get_metric().is_empty());
    families.0
}

fn requests(core: &Core, families: &mut Families) {
    let (reading, writing) = core.metrics.requests.in_flight();
    families.gauge(
        "apiserver_current_inflight_requests",
        "Number of requests that this apiserver is serving, per request kind.",
        ["request_kind"],
        [(["readOnly".into()], reading), (["mutating".into()], writing)],
    );
    families.gauge(
        "kubernetes_build_info",
        "A metric with a constant '1' value labeled by what was built.",
        ["major", "minor", "git_version", "platform"],
        [(["1".into(), "35".into(), format!("v1.35.0+keelson{}", env!("CARGO_PKG_VERSION")), "linux/amd64".into()], 1)],
    );
}

fn storage(core: &Core, families: &mut Families) {
    let caches = core.cache.all();
    let sizes: Vec<_> = caches
        .iter()
        .map(|cache| {
            let snapshot = cache.snapshot();
            let count = snapshot.map.len();
            let sample: usize = snapshot.map.values().take(SAMPLE).map(|entry| entry.value.len()).sum();
            let bytes = sample.saturating_mul(count) / count.clamp(1, SAMPLE);
            let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            (cache.group().to_owned(), cache.resource().to_owned(), number(count), number(bytes))
        })
        .collect();
    let full = |group: &str, resource: &str| match group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    };
    families.gauge(
        "apiserver_storage_objects",
        "Number of stored objects at the time of last check split by kind.",
        ["resource"],
        sizes.iter().map(|(group, resource, count, _)| ([full(group, resource)], *count)),
    );
    families.gauge(
        "apiserver_resource_objects",
        "Number of stored objects at the time of last check split by kind.",
        ["group", "resource"],
        sizes.iter().map(|(group, resource, count, _)| ([group.clone(), resource.clone()], *count)),
    );
    families.gauge(
        "apiserver_resource_size_estimate_bytes",
        "Estimated size of stored objects in database.",
        ["group", "resource"],
        sizes.iter().map(|(group, resource, _, bytes)| ([group.clone(), resource.clone()], *bytes)),
    );
}

fn flow_control(core: &Core, families: &mut Families) {
    let schemas = core.flow.schemas();
    let labels = ["priority_level", "flow_schema"];
    let of = |schema: &crate::flow::SchemaState| [schema.level.clone(), schema.name.clone()];
    families.counter(
        "apiserver_flowcontrol_dispatched_requests_total",
        "Number of requests executed by API Priority and Fairness subsystem",
        labels,
        schemas.iter().map(|schema| (of(schema), schema.meters.dispatched.load(Ordering::Relaxed))),
    );
    let rejected = schemas.iter().flat_map(|schema| {
        Reason::ALL.into_iter().filter_map(move |reason| {
            let count = schema.meters.rejected(reason);
            (count > 0).then(|| ([schema.level.clone(), schema.name.clone(), reason.as_str().to_owned()], count))
        })
    });
    families.counter(
        "apiserver_flowcontrol_rejected_requests_total",
        "Number of requests rejected by API Priority and Fairness subsystem",
        ["priority_level", "flow_schema", "reason"],
        rejected,
    );
    families.gauge(
        "apiserver_flowcontrol_current_inqueue_requests",
        "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        labels,
        schemas.iter().map(|schema| (of(schema), schema.meters.waiting.load(Ordering::Relaxed))),
    );
    families.gauge(
        "apiserver_flowcontrol_current_executing_requests",
        "Number of requests in execution in the API Priority and Fairness subsystem",
        labels,
        schemas.iter().map(|schema| (of(schema), schema.meters.executing.load(Ordering::Relaxed))),
    );
    families.gauge(
        "apiserver_flowcontrol_current_executing_seats",
        "Concurrency (number of seats) occupied by the currently executing requests in the API Priority and Fairness subsystem",
        labels,
        schemas.iter().map(|schema| (of(schema), schema.meters.seats.load(Ordering::Relaxed))),
    );
    let levels = core.flow.levels();
    for (name, help, value) in [
        (
            "apiserver_flowcontrol_nominal_limit_seats",
            "Nominal number of execution seats configured for each priority level",
            (|level| level.bounds.nominal) as fn(&crate::flow::LevelState) -> u32,
        ),
        (
            "apiserver_flowcontrol_lower_limit_seats",
            "Configured lower bound on number of execution seats available to each priority level",
            |level| level.bounds.lowest,
        ),
        (
            "apiserver_flowcontrol_upper_limit_seats",
            "Configured upper bound on number of execution seats available to each priority level",
            |level| level.bounds.highest,
        ),
        (
            "apiserver_flowcontrol_current_limit_seats",
            "current derived number of execution seats available to each priority level",
            |level| level.limit,
        ),
    ] {
        families.gauge(
            name,
            help,
            ["priority_level"],
            levels.iter().map(|level| ([level.name.clone()], value(level).into())),
        );
    }
}

fn audit(core: &Core, families: &mut Families) {
    let Some(audit) = &core.audit else { return };
    families.counter(
        "apiserver_audit_level_total",
        "Counter of policy levels for audit events (1 per request).",
        ["level"],
        audit.levels().map(|(level, count)| ([format!("{level:?}")], count)),
    );
    let (events, refusals) = audit.events();
    families.counter(
        "apiserver_audit_event_total",
        "Counter of audit events generated and sent to the audit backend.",
        [],
        [([], events)],
    );
    families.counter(
        "apiserver_audit_requests_rejected_total",
        "Counter of apiserver requests rejected due to an error in audit logging backend.",
        [],
        [([], refusals)],
    );
    families.counter(
        "apiserver_audit_error_total",
        "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
        ["plugin"],
        audit.losses().map(|(plugin, count)| ([plugin.to_owned()], count)),
    );
}
