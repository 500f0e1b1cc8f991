//! Who asks, and whether the API server lets them: client certificates (checked in the TLS handshake) or bearer tokens by
//! TokenReview; then SubjectAccessReview on `nodes/<subresource>`. Answers are remembered for a while.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::context::Context;

/// Answers remembered at most.
const CACHE_SIZE: usize = 1024;

/// An authenticated caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct User {
    pub(super) name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The user a client certificate names: CN, and O as groups.
    pub(super) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<User> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate.as_ref()).ok()?;
        let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_string();
        let organizations = parsed.subject().iter_organization();
        let mut groups: Vec<String> = organizations.filter_map(|o| o.as_str().ok()).map(str::to_string).collect();
        groups.push("system:authenticated".into());
        Some(User { name, groups, ..User::default() })
    }
}

/// Answers that are good until a moment.
struct Cache<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Cache(Mutex::default())
    }

    fn get(&self, key: &K) -> Option<V> {
        let cache = self.0.lock();
        cache.get(key).filter(|(_, until)| Instant::now() < *until).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, ttl: Duration) {
        let now = Instant::now();
        let mut cache = self.0.lock();
        if cache.len() >= CACHE_SIZE {
            cache.retain(|_, (_, until)| now < *until);
        }
        if cache.len() >= CACHE_SIZE {
            cache.clear();
        }
        cache.insert(key, (value, now + ttl));
    }
}

/// User, verb, subresource: one answer serves all paths.
type Question = (User, &'static str, &'static str);

/// Asks the API server.
pub(super) struct Auth {
    ctx: Arc<Context>,
    /// By the token's hash: the token itself is not kept.
    tokens: Cache<[u8; 32], Option<User>>,
    allowed: Cache<Question, bool>,
}

impl Auth {
    pub(super) fn new(ctx: &Arc<Context>) -> Auth {
        Auth { ctx: ctx.clone(), tokens: Cache::new(), allowed: Cache::new() }
    }

    /// The caller; `None` for nobody known.
    pub(super) async fn authenticate(&self, certificate: Option<User>, headers: &HeaderMap) -> Option<User> {
        if certificate.is_some() {
            return certificate;
        }
        if !self.ctx.config.authentication_webhook {
            return None;
        }
        let header = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
            return None;
        }
        let token = token.trim();
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&key) {
            return known;
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_string()), audiences: None },
            ..Default::default()
        };
        let api = Api::<TokenReview>::all(self.ctx.client.clone());
        let status = match api.create(&PostParams::default(), &review).await {
            Ok(review) => review.status.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "the API server does not review a token");
                return None;
            }
        };
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        self.tokens.put(key, user.clone(), self.ctx.config.authentication_webhook_cache_ttl);
        user
    }

    /// Whether `user` may do this on any of the node's `subresources`.
    pub(super) async fn authorize(
        &self,
        user: &User,
        verb: &'static str,
        path: &str,
        subresources: &[&'static str],
    ) -> bool {
        for subresource in subresources {
            if self.ask(user, verb, path, subresource).await {
                return true;
            }
        }
        false
    }

    async fn ask(&self, user: &User, verb: &'static str, path: &str, subresource: &'static str) -> bool {
        let question = (user.clone(), verb, subresource);
        if let Some(known) = self.allowed.get(&question) {
            return known;
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.into()),
                    name: Some(self.ctx.config.node_name.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let api = Api::<SubjectAccessReview>::all(self.ctx.client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(review) => {
                let allowed = review.status.is_some_and(|status| status.allowed);
                let config = &self.ctx.config;
                let ttl = if allowed {
                    config.authorization_webhook_cache_authorized_ttl
                } else {
                    config.authorization_webhook_cache_unauthorized_ttl
                };
                self.allowed.put(question, allowed, ttl);
                allowed
            }
            Err(error) => {
                tracing::warn!(user = user.name, path, %error, "the API server does not review an access");
                false
            }
        }
    }
}
