//! Service account tokens for projected volumes, by TokenRequest, made anew at 80 % of their life or after a day.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;

use crate::env::words;
use crate::error::Error;
use crate::pod::view;

/// A token is never kept longer than this, seconds.
const MAX_AGE_SECONDS: i64 = 24 * 3600;
/// Life asked for when the volume says nothing, seconds.
const DEFAULT_LIFE_SECONDS: i64 = 3600;

/// A token.
#[derive(Clone)]
pub(super) struct Token {
    pub text: String,
    /// When the next one is due.
    pub refresh_at: Timestamp,
    expires_at: Timestamp,
}

/// Wait after a token could not be made anew while the old one is good still.
const RETRY: SignedDuration = SignedDuration::from_secs(60);

/// By pod uid, service account, audience and life.
type Key = (String, String, String, i64);

/// Tokens in use, so that a refresh of other files makes no new ones.
pub(super) struct Tokens {
    client: kube::Client,
    known: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    pub(super) fn new(client: kube::Client) -> Self {
        Tokens { client, known: Mutex::default() }
    }

    /// The token for `source` in `pod`.
    pub(super) async fn get(&self, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<Token, Error> {
        let account = view::spec(pod)
            .and_then(|spec| spec.service_account_name.as_deref().or(spec.service_account.as_deref()))
            .unwrap_or("default");
        let life = source.expiration_seconds.unwrap_or(DEFAULT_LIFE_SECONDS);
        let audience = source.audience.clone().unwrap_or_default();
        let key = (view::uid(pod).to_string(), account.to_string(), audience.clone(), life);
        let now = keelson_client::clock::now();
        let known = self.known.lock().get(&key).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.refresh_at > now) {
            return Ok(known.clone());
        }
        match self.make(pod, account, &audience, life, now).await {
            Ok(token) => {
                self.known.lock().insert(key, token.clone());
                Ok(token)
            }
            // As upstream: what is still good is used on.
            Err(error) => match known.filter(|known| known.expires_at > now) {
                Some(mut known) => {
                    tracing::warn!(pod = view::format(pod), %error, "a token is not made anew yet");
                    known.refresh_at = now.saturating_add(RETRY).unwrap_or(now).min(known.expires_at);
                    Ok(known)
                }
                None => Err(error),
            },
        }
    }

    async fn make(&self, pod: &Pod, account: &str, audience: &str, life: i64, now: Timestamp) -> Result<Token, Error> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: if audience.is_empty() { Vec::new() } else { vec![audience.to_string()] },
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                expiration_seconds: Some(life),
            },
            ..Default::default()
        };
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), view::namespace(pod));
        let made = api
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(|error| Error::message(format!("failed to fetch token: {}", words(error))))?;
        let Some(status) = made.status else {
            return Err(Error::message("failed to fetch token: the API server's answer has no status"));
        };
        let expires_at = status.expiration_timestamp.0;
        Ok(Token { text: status.token, refresh_at: refresh_at(now, expires_at), expires_at })
    }

    /// Forgets a pod's tokens.
    pub(super) fn release(&self, pod_uid: &str) {
        self.known.lock().retain(|key, _| key.0 != pod_uid);
    }
}

/// 80 % of the way from `now` to `expiration`, at most a day from now.
fn refresh_at(now: Timestamp, expiration: Timestamp) -> Timestamp {
    let seconds = (expiration.duration_since(now).as_secs() * 8 / 10).clamp(1, MAX_AGE_SECONDS);
    now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(expiration)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// While the API server is away a token is used until it ends, and no longer.
    #[tokio::test(start_paused = true)]
    async fn an_unexpired_token_outlives_the_api_server() {
        let away = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let expires = keelson_client::clock::now().saturating_add(SignedDuration::from_secs(3600)).unwrap();
        let service = {
            let away = away.clone();
            tower::service_fn(move |_: http::Request<kube::client::Body>| {
                let away = away.load(std::sync::atomic::Ordering::SeqCst);
                async move {
                    if away {
                        return Err(std::io::Error::other("no server here"));
                    }
                    let answer = serde_json::json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
                        "metadata": {}, "spec": {"audiences": []},
                        "status": {"token": "t", "expirationTimestamp": expires.to_string()}});
                    Ok(http::Response::new(kube::client::Body::from(answer.to_string().into_bytes())))
                }
            })
        };
        let tokens = Tokens::new(kube::Client::new(service, "default"));
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "uid": "u"}})).unwrap();
        let source = ServiceAccountTokenProjection { path: "t".into(), ..Default::default() };
        assert_eq!(tokens.get(&pod, &source).await.unwrap().text, "t");
        away.store(true, std::sync::atomic::Ordering::SeqCst);
        tokio::time::advance(std::time::Duration::from_secs(3000)).await;
        let kept = tokens.get(&pod, &source).await.unwrap();
        assert_eq!(kept.text, "t");
        assert!(kept.refresh_at > keelson_client::clock::now(), "it is tried again, but not at once");
        tokio::time::advance(std::time::Duration::from_secs(700)).await;
        assert!(tokens.get(&pod, &source).await.is_err(), "it has ended");
    }

    #[test]
    fn refresh_moment() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(refresh_at(at(0), at(3600)), at(2880));
        assert_eq!(refresh_at(at(0), at(31_536_000)), at(86_400));
        assert_eq!(refresh_at(at(100), at(50)), at(101));
    }
}
