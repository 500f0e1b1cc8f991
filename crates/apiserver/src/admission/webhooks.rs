//! Admission webhooks: the configurations, ready to be asked, and who is asked when. A webhook keeps its connections for as
//! long as its configuration stays as it is. They are asked in the order of their configurations' names.

mod call;
mod mutating;
mod review;
mod validating;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keelson_api::status::Status;
use serde_json::Value;
use tokio::time::Instant;

use super::Request;
use super::attributes::Seen;
use super::expressions::Conditions;
use super::extensions::Home;
use super::lazily::Lazily;
use super::matching::Matching;
use crate::metrics::{Asked, Rejection, Step};
use crate::webhook::{self, Webhook};

pub(super) use mutating::mutate;
pub(super) use validating::validate;

/// Longest answer of an admission webhook: a patch of the largest object, in base64.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// A webhook of a configuration.
pub(super) struct Hook {
    configuration: String,
    name: String,
    matching: Matching,
    conditions: Option<Lazily<Conditions>>,
    /// `failurePolicy: Fail`
    fails_closed: bool,
    timeout: Duration,
    /// Whether a dry run may ask it.
    dry_run: bool,
    /// `reinvocationPolicy: IfNeeded`
    reinvoked: bool,
    /// Of the AdmissionReview.
    version: &'static str,
    config: Value,
    core: Home,
    /// Made when it is first asked.
    client: OnceLock<Result<Webhook, webhook::Error>>,
}

impl Hook {
    fn new(core: Home, configuration: &str, webhook: &Value) -> Self {
        let versions = webhook["admissionReviewVersions"].as_array();
        let known = versions.into_iter().flatten().filter_map(Value::as_str).find(|v| matches!(*v, "v1" | "v1beta1"));
        let fails_closed = webhook["failurePolicy"] != "Ignore";
        Self {
            configuration: configuration.to_owned(),
            name: webhook["name"].as_str().unwrap_or_default().to_owned(),
            matching: Matching::of_webhook(webhook),
            conditions: Conditions::of_webhook(webhook),
            fails_closed,
            timeout: Duration::from_secs(webhook["timeoutSeconds"].as_u64().unwrap_or(10)),
            dry_run: matches!(webhook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            reinvoked: webhook["reinvocationPolicy"] == "IfNeeded",
            version: if known == Some("v1beta1") { "v1beta1" } else { "v1" },
            config: webhook["clientConfig"].clone(),
            core,
            client: OnceLock::new(),
        }
    }

    fn client(&self) -> Result<&Webhook, webhook::Error> {
        let make = || {
            let core = self.core.get().cloned().unwrap_or_default();
            Webhook::new(core, &self.config).map(|client| client.with_limit(MAX_ANSWER_BYTES))
        };
        self.client.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// Whether its conditions want it asked.
    async fn is_wanted(&self, request: &Request<'_>, seen: &Seen<'_>, step: Step) -> Result<bool, Status> {
        let Some(conditions) = &self.conditions else { return Ok(true) };
        conditions.get().await?.hold(request, seen, (&self.name, step), self.fails_closed).await
    }

    pub(super) fn matching(&self) -> &Matching {
        &self.matching
    }
}

/// The webhooks of all configurations of one kind.
#[derive(Default)]
pub(super) struct Hooks {
    by_configuration: BTreeMap<String, Vec<Arc<Hook>>>,
}

impl Hooks {
    /// Takes up a configuration as it is now.
    pub(super) fn set(&mut self, core: &Home, name: &str, configuration: Option<&Value>) {
        let Some(configuration) = configuration else {
            self.by_configuration.remove(name);
            return;
        };
        let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
        let hooks = webhooks.map(|webhook| Arc::new(Hook::new(core.clone(), name, webhook))).collect();
        self.by_configuration.insert(name.to_owned(), hooks);
    }

    /// All of them, in their order.
    pub(super) fn list(&self) -> Vec<Arc<Hook>> {
        self.by_configuration.values().flatten().cloned().collect()
    }
}

/// Why a webhook does not let a request pass.
enum Failure {
    /// It could not be asked, or what it said was no answer (with the code that this is counted as): the failure policy
    /// decides.
    Call(u16, String),
    /// It said no.
    Refused(Status),
    /// What it said cannot be done.
    Impossible(Status),
}

/// No answer, or none that is one.
const UNAVAILABLE: u16 = 503;

/// Measures how a webhook was asked, and what of.
fn measure<T>(hook: &Hook, request: &Request<'_>, step: Step, begin: Instant, result: &Result<T, Failure>) {
    let (code, rejection) = match result {
        Ok(_) => (200, None),
        Err(Failure::Call(code, _)) => (*code, hook.fails_closed.then_some(Rejection::CallFailed)),
        Err(Failure::Refused(status)) => (status.code, Some(Rejection::Refused)),
        Err(Failure::Impossible(_)) => (0, Some(Rejection::Internal)),
    };
    let asked = Asked { took: begin.elapsed(), code, rejection };
    request.core.metrics.admission.webhook(&hook.name, step, request.operation, asked);
}

impl Failure {
    /// What the client is told, if the webhook's failure policy does not let the request pass.
    fn status(self, hook: &Hook) -> Option<Status> {
        match self {
            Self::Refused(status) | Self::Impossible(status) => Some(status),
            Self::Call(_, why) if hook.fails_closed => {
                Some(Status::internal(format!("failed calling webhook {:?}: {why}", hook.name)))
            }
            Self::Call(_, why) => {
                tracing::warn!(webhook = hook.name, why, "a webhook failed, and is ignored");
                None
            }
        }
    }
}
