//! A webhook that authorizes: it is sent SubjectAccessReviews, unless what it said of the same request is still remembered.
//! How long it may take, how often it is tried, how much is remembered and how many are asked at once is bounded.

use std::collections::HashMap;
use std::time::Duration;

use keelson_api::selector::LabelSelector;
use keelson_api::selector::Operator;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::conditions::{Condition, all_hold};
use super::{Attributes, Decision};
use crate::UserInfo;
use crate::webhook::Webhook;

/// Answers that are remembered.
const REMEMBERED: usize = 8192;
/// Longest description of what is asked that is remembered: clients choose it.
const MAX_REMEMBERED_BYTES: usize = 10_000;
/// Reviews that are under way at once; more wait.
const AT_ONCE: usize = 256;

/// How a webhook is asked.
pub(super) struct Settings {
    /// `v1` or `v1beta1`
    pub(super) version: String,
    /// Of one try.
    pub(super) timeout: Duration,
    /// Zero: not remembered.
    pub(super) authorized_ttl: Duration,
    pub(super) unauthorized_ttl: Duration,
    /// Whether a webhook that cannot say refuses (`failurePolicy: Deny`).
    pub(super) deny_on_error: bool,
    pub(super) conditions: Vec<Condition>,
}

/// The webhook.
pub(super) struct WebhookAuthorizer {
    webhook: Webhook,
    settings: Settings,
    known: Mutex<HashMap<String, (Answer, Instant)>>,
    under_way: Semaphore,
}

/// The status of a review.
#[derive(Clone, Debug, Default)]
struct Answer {
    allowed: bool,
    denied: bool,
    reason: String,
}

impl WebhookAuthorizer {
    pub(super) fn new(webhook: Webhook, settings: Settings) -> Self {
        Self { webhook, settings, known: Mutex::default(), under_way: Semaphore::new(AT_ONCE) }
    }

    /// What the webhook says.
    pub(super) async fn decide(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        let spec = spec(user, attributes);
        match all_hold(&self.settings.conditions, &spec) {
            Ok(true) => {}
            Ok(false) => return Decision::default(),
            Err(error) => return self.failed(error),
        }
        let key = spec.to_string();
        let known = self.known.lock().get(&key).filter(|(_, until)| *until > Instant::now()).map(|(a, _)| a.clone());
        let answer = match known {
            Some(answer) => answer,
            None => match self.ask(spec).await {
                Ok(answer) => {
                    if attributes.size() < MAX_REMEMBERED_BYTES {
                        self.remember(key, &answer);
                    }
                    answer
                }
                Err(error) => {
                    tracing::error!(%error, "Failed to make webhook authorizer request");
                    return self.failed(error);
                }
            },
        };
        let Answer { allowed, denied, reason } = answer;
        let error = match (allowed, denied) {
            (true, true) => "webhook subject access review returned both allow and deny response".into(),
            _ => String::new(),
        };
        Decision { allowed: allowed && !denied, denied, reason, error }
    }

    fn failed(&self, error: String) -> Decision {
        Decision { denied: self.settings.deny_on_error, error, ..Decision::default() }
    }

    async fn ask(&self, mut spec: Value) -> Result<Answer, String> {
        let version = self.settings.version.as_str();
        if version == "v1beta1"
            && let Some(map) = spec.as_object_mut()
            && let Some(groups) = map.remove("groups")
        {
            map.insert("group".into(), groups);
        }
        let api_version = format!("authorization.k8s.io/{version}");
        let review = json!({"kind": "SubjectAccessReview", "apiVersion": api_version, "metadata": {}, "spec": spec});
        let place = tokio::time::timeout(self.settings.timeout, self.under_way.acquire()).await;
        let _place = place.map_err(|_| "too many authorization reviews are under way".to_owned())?;
        let answer = self.webhook.call_again(&review, self.settings.timeout).await.map_err(|e| e.to_string())?;
        let text = |field: &str| answer.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        if text("kind") != "SubjectAccessReview" || text("apiVersion") != api_version {
            let (kind, version) = (text("kind"), text("apiVersion"));
            return Err(format!("the webhook answered with kind {kind:?} of {version:?}, not SubjectAccessReview"));
        }
        let flag = |field: &str| match answer.get("status").and_then(|status| status.get(field)) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(format!("the webhook answered with a status.{field} that is no boolean")),
        };
        let reason = answer.pointer("/status/reason").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Answer { allowed: flag("allowed")?, denied: flag("denied")?, reason })
    }

    fn remember(&self, key: String, answer: &Answer) {
        let ttl = if answer.allowed { self.settings.authorized_ttl } else { self.settings.unauthorized_ttl };
        if ttl.is_zero() {
            return;
        }
        let (now, mut known) = (Instant::now(), self.known.lock());
        if known.len() >= REMEMBERED {
            known.retain(|_, (_, until)| *until > now);
            // Any half will do: asking again is no fault.
            let mut odd = false;
            if known.len() >= REMEMBERED {
                known.retain(|_, _| {
                    odd = !odd;
                    odd
                });
            }
        }
        known.insert(key, (answer.clone(), now + ttl));
    }
}

/// A review's spec.
fn spec(user: &UserInfo, attributes: &Attributes) -> Value {
    let Attributes { verb, resource, group, version, subresource, namespace, name, fields, labels, path } = attributes;
    let mut spec = json!({"user": user.name});
    if !user.groups.is_empty() {
        spec["groups"] = user.groups.clone().into();
    }
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        spec["extra"] = user.extra.iter().map(|(key, values)| (key.clone(), Value::from(values.clone()))).collect();
    }
    if resource.is_empty() {
        spec["nonResourceAttributes"] = json!({"path": path, "verb": verb});
        return spec;
    }
    let mut resources = serde_json::Map::new();
    for (key, value) in [
        ("namespace", namespace),
        ("verb", verb),
        ("group", group),
        ("version", version),
        ("resource", resource),
        ("subresource", subresource),
        ("name", name),
    ] {
        if !value.is_empty() {
            resources.insert(key.into(), value.as_str().into());
        }
    }
    let fields: Vec<Value> = fields
        .iter()
        .map(|term| {
            let operator = if term.equal { "In" } else { "NotIn" };
            json!({"key": term.field, "operator": operator, "values": [term.value]})
        })
        .collect();
    if !fields.is_empty() {
        resources.insert("fieldSelector".into(), json!({"requirements": fields}));
    }
    // What does not parse the list itself will refuse.
    let labels = label_requirements(labels);
    if !labels.is_empty() {
        resources.insert("labelSelector".into(), json!({"requirements": labels}));
    }
    spec["resourceAttributes"] = resources.into();
    spec
}

/// Those that the review has operators for.
fn label_requirements(selector: &str) -> Vec<Value> {
    let selector = LabelSelector::parse(selector).unwrap_or_else(|_| LabelSelector::everything());
    let requirements = selector.requirements().iter().filter_map(|requirement| {
        let (operator, valued) = match requirement.operator {
            Operator::In => ("In", true),
            Operator::NotIn => ("NotIn", true),
            Operator::Exists => ("Exists", false),
            Operator::DoesNotExist => ("DoesNotExist", false),
            _ => return None,
        };
        let mut shown = json!({"key": requirement.key, "operator": operator});
        if valued {
            shown["values"] = requirement.values.clone().into();
        }
        Some(shown)
    });
    requirements.collect()
}
