//! An issuer as a server: where its keys are, what they are now, and whether they have signed a token. Keys are got anew when
//! a token comes that none of them has signed, but only so often: anybody can send such tokens.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use super::settings::IssuerSettings;
use crate::webhook::fetch::Fetcher;

/// Between attempts to find the issuer, as upstream's.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(10);
/// Keys may be got this often at once, and once more each second.
const BURST: f64 = 5.0;
const PER_SECOND: f64 = 1.0;
/// For waiting for keys that somebody else gets, and for getting them.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nobody tries again after keys could not be got.
const FAILED_PAUSE: Duration = Duration::from_secs(5);
/// Most keys of an issuer.
const MAX_KEYS: usize = 100;
/// How much earlier than it says a token may be used, as upstream's.
const LEEWAY_SECONDS: i64 = 300;
pub(super) const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
];

/// See above.
pub(super) struct Provider {
    issuer: String,
    discovery_url: String,
    /// That tokens may be signed by.
    algorithms: Vec<Algorithm>,
    fetcher: Fetcher,
    jwks_uri: OnceCell<String>,
    keys: ArcSwapOption<Vec<Key>>,
    refresh: Mutex<Refresh>,
}

struct Key {
    id: Option<String>,
    /// The only one that the key is for, when it says so.
    algorithm: Option<Algorithm>,
    kind: Kind,
    decoding: DecodingKey,
}

#[derive(PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
}

/// How keys were got lately.
struct Refresh {
    budget: Budget,
    failed: Option<(Instant, String)>,
}

/// How often something may still be done.
struct Budget {
    left: f64,
    counted: Instant,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Provider {
    pub(super) fn new(settings: &IssuerSettings) -> Result<Self, String> {
        let authority = Some(settings.certificate_authority.as_bytes()).filter(|pem| !pem.is_empty());
        let discovery_url = match settings.discovery_url.as_str() {
            "" => format!("{}/.well-known/openid-configuration", settings.url.trim_end_matches('/')),
            url => url.to_owned(),
        };
        Ok(Self {
            issuer: settings.url.clone(),
            discovery_url,
            algorithms: match settings.algorithms.as_slice() {
                [] => ALGORITHMS.to_vec(),
                some => some.to_vec(),
            },
            fetcher: Fetcher::new(authority)?,
            jwks_uri: OnceCell::new(),
            keys: ArcSwapOption::empty(),
            refresh: Mutex::new(Refresh { budget: Budget { left: BURST, counted: Instant::now() }, failed: None }),
        })
    }

    /// Finds where the keys are, trying until it is known.
    pub(super) async fn discover(&self) {
        while let Err(why) = self.jwks_uri.get_or_try_init(|| self.find_keys()).await {
            tracing::error!(why, issuer = self.issuer, "oidc authenticator: initializing plugin");
            tokio::time::sleep(DISCOVERY_PAUSE).await;
        }
    }

    async fn find_keys(&self) -> Result<String, String> {
        let document = self.fetcher.json(&self.discovery_url).await?;
        let found: Discovery = serde_json::from_value(document)
            .map_err(|e| format!("oidc: failed to decode provider discovery object: {e}"))?;
        if found.issuer != self.issuer {
            let (expected, got) = (&self.issuer, found.issuer);
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {expected:?} got {got:?}"
            ));
        }
        Ok(found.jwks_uri)
    }

    /// The claims of a token that the issuer signed, for one of the audiences, and that is good now (seconds).
    pub(super) async fn verify(
        &self,
        token: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<Map<String, Value>, String> {
        let Some(jwks_uri) = self.jwks_uri.get() else { return Err("oidc: authenticator not initialized".into()) };
        // Before any key is looked for: what is not good anyhow must not make the issuer work.
        let says = crate::authn::unverified(token).ok_or("oidc: malformed jwt")?;
        judge(&says, audiences, now)?;
        let header = jsonwebtoken::decode_header(token).map_err(|e| format!("oidc: malformed jwt: {e}"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(format!("oidc: id token signed with unsupported algorithm, got {:?}", header.alg));
        }
        let keys = self.keys.load_full();
        if let Some(claims) = keys.as_ref().and_then(|keys| signed_by(keys, token, &header)) {
            return Ok(claims);
        }
        let keys = self.newer(jwks_uri, keys).await?;
        signed_by(&keys, token, &header)
            .ok_or_else(|| "failed to verify signature: failed to verify id token signature".to_owned())
    }

    /// The keys, got anew unless somebody else just has, or could not. All who wait are told within the same time.
    async fn newer(&self, jwks_uri: &str, old: Option<Arc<Vec<Key>>>) -> Result<Arc<Vec<Key>>, String> {
        let fail = |why: &str| format!("failed to verify signature: {why}");
        let late = "fetching keys: context deadline exceeded";
        let deadline = Instant::now() + KEYS_TIMEOUT;
        let refresh = tokio::time::timeout_at(deadline, self.refresh.lock()).await;
        let mut refresh = refresh.map_err(|_| fail(late))?;
        if let Some(now) = self.keys.load_full()
            && !old.is_some_and(|old| Arc::ptr_eq(&old, &now))
        {
            return Ok(now);
        }
        if let Some((when, why)) = &refresh.failed
            && when.elapsed() < FAILED_PAUSE
        {
            return Err(fail(why));
        }
        if !refresh.budget.take() {
            return Err(fail("the issuer's keys were got too often"));
        }
        let document = tokio::time::timeout_at(deadline, self.fetcher.json(jwks_uri)).await;
        let document = match document {
            Ok(document) => document.map_err(|why| format!("fetching keys: {why}")),
            Err(_) => Err(late.to_owned()),
        };
        refresh.failed = document.as_ref().err().map(|why| (Instant::now(), why.clone()));
        let keys = Arc::new(keys_of(&document.map_err(|why| fail(&why))?));
        self.keys.store(Some(keys.clone()));
        Ok(keys)
    }
}

impl Budget {
    fn take(&mut self) -> bool {
        let gained = self.counted.elapsed().as_secs_f64() * PER_SECOND;
        *self = Self { left: (self.left + gained).min(BURST), counted: Instant::now() };
        let may = self.left >= 1.0;
        self.left -= if may { 1.0 } else { 0.0 };
        may
    }
}

/// Whether what a token says of itself makes it good.
fn judge(claims: &Map<String, Value>, audiences: &[String], now: i64) -> Result<(), String> {
    let named: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !named.iter().any(|name| audiences.iter().any(|audience| audience == name)) {
        return Err(format!("oidc: expected audience in {audiences:?} got {named:?}"));
    }
    let ends = claims.get("exp").and_then(seconds).unwrap_or_default();
    if ends < now {
        return Err(format!("oidc: token is expired (Token Expiry: {})", show(ends)));
    }
    match claims.get("nbf").and_then(seconds) {
        Some(begins) if now + LEEWAY_SECONDS < begins => {
            Err(format!("oidc: current time {} before the nbf (not before) time: {}", show(now), show(begins)))
        }
        _ => Ok(()),
    }
}

/// A time of a claim.
pub(super) fn seconds(claim: &Value) -> Option<i64> {
    // Fractions are allowed, and cut off.
    claim.as_i64().or_else(|| claim.as_f64().filter(|at| at.abs() < 1e15).map(|at| at as i64))
}

fn show(at: i64) -> String {
    jiff::Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}

/// The claims, when one of the keys has signed the token.
fn signed_by(keys: &[Key], token: &str, header: &jsonwebtoken::Header) -> Option<Map<String, Value>> {
    let mut validation = Validation::new(header.alg);
    validation.validate_aud = false;
    // Judged with the server's own clock.
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    let may = |key: &&Key| {
        let named = header.kid.is_none() || key.id.is_none() || header.kid == key.id;
        named && key.algorithm.is_none_or(|only| only == header.alg) && key.kind.verifies(header.alg)
    };
    keys.iter()
        .filter(may)
        .find_map(|key| jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, &validation).ok())
        .map(|token| token.claims)
}

impl Kind {
    fn verifies(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::ES256 => *self == Self::P256,
            Algorithm::ES384 => *self == Self::P384,
            _ => *self == Self::Rsa,
        }
    }
}

/// Those of a JWK set that can verify tokens. What is not understood is passed over: an issuer may have keys of other kinds.
fn keys_of(document: &Value) -> Vec<Key> {
    let all = document.get("keys").and_then(Value::as_array).into_iter().flatten();
    all.filter_map(key_of).take(MAX_KEYS).collect()
}

fn key_of(value: &Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let kind = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Kind::Rsa,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Kind::P256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => Kind::P384,
        // A shared secret in a set that anybody may read verifies nothing.
        _ => return None,
    };
    let algorithm = value.get("alg").and_then(|name| serde_json::from_value(name.clone()).ok());
    Some(Key { id: jwk.common.key_id.clone(), algorithm, kind, decoding: DecodingKey::from_jwk(&jwk).ok()? })
}
