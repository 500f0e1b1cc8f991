//! Admission: how long its steps, plugins and webhooks take, and what they refuse. Names, labels and buckets are upstream's
//! (`k8s.io/apiserver/pkg/admission/metrics`).

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounterVec, Registry};

use super::{counters, histograms};
use crate::admission::Operation;

/// Seconds.
const STEP_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
/// Of one expression.
const EXPRESSION_SECONDS: &[f64] = &[0.0000005, 0.001, 0.01, 0.1, 1.0];
const WEBHOOK_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Codes above are counted as this one, so that a webhook cannot make series without end.
const MAX_CODE: u16 = 600;

const POLICY: [&str; 4] = ["policy", "policy_binding", "error_type", "enforcement_action"];

/// What is done to a request: upstream's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Admit,
    Validate,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }

    /// As upstream names it where webhooks are meant.
    fn of_webhooks(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validating",
        }
    }
}

/// Why a webhook's request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// It said no.
    Refused,
    /// It could not be asked, or did not answer as it should.
    CallFailed,
    /// Its answer could not be acted upon.
    Internal,
}

/// How a webhook was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) took: Duration,
    pub(crate) code: u16,
    /// `None` when the request goes on.
    pub(crate) rejection: Option<Rejection>,
}

/// Series of one name: by step, operation and whether it refused. Made when they are first needed.
#[derive(Default)]
struct Series([OnceLock<Histogram>; 16]);

/// Families of series.
pub(crate) struct Admission {
    step: HistogramVec,
    controller: HistogramVec,
    webhook: HistogramVec,
    rejections: IntCounterVec,
    fail_open: IntCounterVec,
    requests: IntCounterVec,
    condition_errors: IntCounterVec,
    condition_exclusions: IntCounterVec,
    policy_checks: IntCounterVec,
    policy_durations: HistogramVec,
    steps: Series,
    /// By plugin, in the order of [`crate::admission::controllers`].
    controllers: Vec<(&'static str, Series)>,
}

impl Admission {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |rest: &str| format!("apiserver_admission_{rest}");
        let seconds = |rest: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            histograms(registry, &name(rest), help, buckets, labels)
        };
        let count = |rest: &str, help: &str, labels: &[&str]| counters(registry, &name(rest), help, labels);
        Ok(Self {
            step: seconds(
                "step_admission_duration_seconds",
                "How long all of admission's mutating or validating part took, by operation (seconds).",
                STEP_SECONDS,
                &["type", "operation", "rejected"],
            )?,
            controller: seconds(
                "controller_admission_duration_seconds",
                "How long an admission plugin took, by its name, part of admission and operation (seconds).",
                STEP_SECONDS,
                &["name", "type", "operation", "rejected"],
            )?,
            webhook: seconds(
                "webhook_admission_duration_seconds",
                "How long an admission webhook took, by its name, kind and operation (seconds).",
                WEBHOOK_SECONDS,
                &["name", "type", "operation", "rejected"],
            )?,
            rejections: count(
                "webhook_rejection_count",
                "Requests refused for an admission webhook, by whether it said so (no_error) or failed, and by its status code.",
                &["name", "type", "operation", "error_type", "rejection_code"],
            )?,
            fail_open: count(
                "webhook_fail_open_count",
                "Requests that went on although an admission webhook failed.",
                &["name", "type"],
            )?,
            requests: count(
                "webhook_request_total",
                "Requests about which an admission webhook was asked, by status code.",
                &["name", "type", "operation", "code", "rejected"],
            )?,
            condition_errors: count(
                "match_condition_evaluation_errors_total",
                "Match conditions of webhooks and policies that could not be evaluated.",
                &["name", "kind", "type", "operation"],
            )?,
            condition_exclusions: count(
                "match_condition_exclusions_total",
                "Requests that match conditions kept from a webhook or policy.",
                &["name", "kind", "type", "operation"],
            )?,
            policy_checks: counters(
                registry,
                "apiserver_validating_admission_policy_check_total",
                "Checks of ValidatingAdmissionPolicies that failed or could not be made, by what was done about it.",
                &POLICY,
            )?,
            policy_durations: histograms(
                registry,
                "apiserver_validating_admission_policy_check_duration_seconds",
                "How long the expressions of these checks took (seconds).",
                EXPRESSION_SECONDS,
                &POLICY,
            )?,
            steps: Series::default(),
            controllers: crate::admission::controllers().map(|name| (name, Series::default())).collect(),
        })
    }

    /// A part of admission is over.
    pub(crate) fn step(&self, step: Step, operation: Operation, took: Duration, rejected: bool) {
        let made = self.steps.of(step, operation, rejected, |labels| self.step.with_label_values(&labels));
        made.observe(took.as_secs_f64());
    }

    /// A plugin (by its place) has had its say.
    pub(crate) fn controller(&self, place: usize, step: Step, operation: Operation, took: Duration, rejected: bool) {
        let Some((name, series)) = self.controllers.get(place) else { return };
        let make = |[step, operation, rejected]: [&str; 3]| {
            self.controller.with_label_values(&[name, step, operation, rejected])
        };
        series.of(step, operation, rejected, make).observe(took.as_secs_f64());
    }

    /// A webhook was asked.
    pub(crate) fn webhook(&self, name: &str, step: Step, operation: Operation, asked: Asked) {
        let (kind, operation) = (step.of_webhooks(), operation.as_str());
        let code = asked.code.min(MAX_CODE).to_string();
        let rejected = shown(asked.rejection.is_some());
        if let Some(why) = asked.rejection {
            let (error, code) = match why {
                Rejection::Refused => ("no_error", code.as_str()),
                Rejection::CallFailed => ("calling_webhook_error", code.as_str()),
                Rejection::Internal => ("apiserver_internal_error", "0"),
            };
            self.rejections.with_label_values(&[name, kind, operation, error, code]).inc();
        } else if asked.code != 200 {
            self.fail_open.with_label_values(&[name, kind]).inc();
        }
        self.requests.with_label_values(&[name, kind, operation, code.as_str(), rejected]).inc();
        let took = asked.took.as_secs_f64();
        self.webhook.with_label_values(&[name, kind, operation, rejected]).observe(took);
    }

    /// A validation of a policy failed or could not be made, and that was done about it.
    pub(crate) fn policy(&self, policy: &str, binding: &str, error: &str, action: &str, took: Duration) {
        let labels = [policy, binding, error, action];
        self.policy_checks.with_label_values(&labels).inc();
        self.policy_durations.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// Match conditions say that a webhook or policy is not meant, or cannot be evaluated.
    pub(crate) fn condition(&self, name: &str, kind: &str, step: Step, operation: Operation, failed: bool) {
        let family = if failed { &self.condition_errors } else { &self.condition_exclusions };
        family.with_label_values(&[name, kind, step.as_str(), operation.as_str()]).inc();
    }
}

impl Series {
    fn of(
        &self,
        step: Step,
        operation: Operation,
        rejected: bool,
        make: impl FnOnce([&str; 3]) -> Histogram,
    ) -> &Histogram {
        let index = (step as usize) << 3 | (operation as usize) << 1 | usize::from(rejected);
        #[expect(clippy::indexing_slicing, reason = "two steps, four operations, two outcomes: less than sixteen")]
        self.0[index].get_or_init(|| make([step.as_str(), operation.as_str(), shown(rejected)]))
    }
}

fn shown(rejected: bool) -> &'static str {
    if rejected { "true" } else { "false" }
}
