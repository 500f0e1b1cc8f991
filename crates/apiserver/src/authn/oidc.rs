//! Tokens of OpenID Connect issuers. The issuer's keys decide whether a token is its own; the configuration says for whom
//! the token must be, and what user its claims make.

mod mapping;
mod provider;
mod settings;

use std::sync::Arc;

use keelson_api::status::FieldError;

use self::mapping::Mapping;
use self::provider::Provider;
pub(super) use self::settings::JwtAuthenticator;
use super::answers::{Remembered, fingerprint};
use super::unverified;
use crate::UserInfo;

/// How long, in seconds, a user is remembered by a token, as upstream.
const REMEMBER_SECONDS: i64 = 10;

/// One issuer.
pub(super) struct Issuer {
    url: String,
    audiences: Vec<String>,
    mapping: Mapping,
    provider: Provider,
    known: parking_lot::Mutex<Remembered<Arc<UserInfo>>>,
}

impl Issuer {
    /// Checks and compiles a configuration. Errors are below `path`.
    pub(super) fn new(jwt: JwtAuthenticator, path: &str, own_issuers: &[String]) -> Result<Self, Vec<FieldError>> {
        let mut errors = settings::validate_issuer(&jwt.issuer, &format!("{path}.issuer"), own_issuers);
        let mapping = Mapping::compile(&jwt, path, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let provider = Provider::new(&jwt.issuer).map_err(|why| {
            vec![FieldError::invalid(format!("{path}.issuer.certificateAuthority"), "<omitted>", &why)]
        })?;
        let known = parking_lot::Mutex::default();
        Ok(Self { url: jwt.issuer.url, audiences: jwt.issuer.audiences, mapping, provider, known })
    }

    /// Finds the issuer, trying until it is there.
    pub(super) async fn discover(&self) {
        self.provider.discover().await;
    }

    /// The user whose token this is; `None` when it is another issuer's.
    pub(super) async fn verify(&self, token: &str) -> Result<Option<Arc<UserInfo>>, String> {
        let Some(says) = unverified(token) else { return Ok(None) };
        let issuer = says.get("iss").and_then(|issuer| issuer.as_str()).unwrap_or_default();
        if !same_issuer(issuer, &self.url) {
            return Ok(None);
        }
        let now = keelson_client::clock::now().as_second();
        let key = fingerprint(token);
        let known = self.known.lock().get(&key, now);
        if known.is_some() {
            return Ok(known);
        }
        let claims =
            self.provider.verify(token, &self.audiences, now).await.map_err(|e| format!("oidc: verify token: {e}"))?;
        let ends = claims.get("exp").and_then(provider::seconds).unwrap_or(now);
        let user = Arc::new(self.mapping.user(claims)?.authenticated());
        self.known.lock().put(key, user.clone(), now, ends.min(now + REMEMBER_SECONDS));
        Ok(Some(user))
    }
}

/// Google's tokens may leave out the scheme.
fn same_issuer(said: &str, known: &str) -> bool {
    said == known || (said == "accounts.google.com" && known == "https://accounts.google.com")
}
