//! Tokens that another server knows: it is sent a TokenReview, and its answer is kept for a while. A server that is slow or
//! gone costs those whose tokens nobody else knows up to half a minute, and others nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::answers::Answers;
use super::token::intersection;
use super::{Outcome, Verified};
use crate::config::{TokenReviewVersion, WebhookAuthentication};
use crate::webhook::Webhook;
use crate::{Error, UserInfo};

/// Questions under way at once; more wait their turn within the same time.
const CONCURRENCY: usize = 256;

/// The server.
pub(super) struct TokenWebhook {
    asker: Arc<Asker>,
    answers: Answers,
}

struct Asker {
    webhook: Webhook,
    api_version: &'static str,
    timeout: Duration,
    /// Of answers that name no audience.
    implicit: Vec<String>,
    permits: Semaphore,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    status: ReviewStatus,
}

#[derive(Default, Deserialize)]
struct ReviewStatus {
    #[serde(default, deserialize_with = "nullable")]
    authenticated: bool,
    #[serde(default, deserialize_with = "nullable")]
    audiences: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    error: String,
    #[serde(default, deserialize_with = "nullable")]
    user: User,
}

#[derive(Default, Deserialize)]
struct User {
    #[serde(default, deserialize_with = "nullable")]
    username: String,
    #[serde(default, deserialize_with = "nullable")]
    uid: String,
    #[serde(default, deserialize_with = "nullable")]
    groups: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    extra: BTreeMap<String, Option<Vec<String>>>,
}

/// Go's encoder writes `null` for what is empty, and its decoder reads it so.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

impl TokenWebhook {
    pub(super) fn new(config: &WebhookAuthentication, implicit: &[String]) -> Result<Self, Error> {
        let asker = Asker {
            webhook: Webhook::from_kubeconfig(&config.kubeconfig)?,
            api_version: match config.version {
                TokenReviewVersion::V1 => "authentication.k8s.io/v1",
                TokenReviewVersion::V1Beta1 => "authentication.k8s.io/v1beta1",
            },
            timeout: config.timeout,
            implicit: implicit.to_vec(),
            permits: Semaphore::new(CONCURRENCY),
        };
        Ok(Self { asker: Arc::new(asker), answers: Answers::new(config.cache_ttl) })
    }

    pub(super) async fn verify(&self, token: &str, audiences: &[String]) -> Outcome {
        let ask = || {
            let (asker, token, audiences) = (self.asker.clone(), token.to_owned(), audiences.to_vec());
            async move {
                let answer = tokio::time::timeout(asker.timeout, asker.ask(&token, &audiences)).await;
                answer.unwrap_or_else(|_| Err(failed("context deadline exceeded".into())))
            }
        };
        self.answers.get(token, audiences, ask).await
    }
}

/// It is a fault of the server's, or of its configuration: the log says so.
fn failed(why: String) -> String {
    tracing::error!(why, "Failed to make webhook authenticator request");
    why
}

impl Asker {
    async fn ask(&self, token: &str, audiences: &[String]) -> Outcome {
        let _permit = self.permits.acquire().await.map_err(|e| e.to_string())?;
        let mut spec = json!({"token": token});
        if !audiences.is_empty() {
            spec["audiences"] = audiences.into();
        }
        let review = json!({
            "kind": "TokenReview", "apiVersion": self.api_version, "metadata": {"creationTimestamp": null}, "spec": spec,
            "status": {"user": {}},
        });
        let answer = self.webhook.call_again(&review, self.timeout).await.map_err(|e| failed(e.to_string()))?;
        self.judge(answer, audiences)
    }

    fn judge(&self, answer: Value, audiences: &[String]) -> Outcome {
        let review: Review =
            serde_json::from_value(answer).map_err(|e| failed(format!("the answer is no TokenReview: {e}")))?;
        if review.kind != "TokenReview" || review.api_version != self.api_version {
            let (kind, version) = (review.kind, review.api_version);
            return Err(format!(
                "the answer is a {kind:?} of {version:?}, not a TokenReview of {:?}",
                self.api_version
            ));
        }
        let ReviewStatus { authenticated, audiences: named, error, user } = review.status;
        let matching = intersection(if named.is_empty() { &self.implicit } else { &named }, audiences);
        if !audiences.is_empty() && matching.is_empty() {
            return Ok(None);
        }
        if !authenticated {
            return if error.is_empty() { Ok(None) } else { Err(error) };
        }
        let User { username: name, uid, groups, extra } = user;
        let extra = extra.into_iter().map(|(key, values)| (key, values.unwrap_or_default())).collect();
        let user = Arc::new(UserInfo { name, uid, groups, extra }.authenticated());
        Ok(Some(Verified { user, audiences: matching }))
    }
}
