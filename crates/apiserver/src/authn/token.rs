//! Service-account tokens: issued by TokenRequest, checked on every request. A token is as good as the objects it is bound
//! to: the account, and the pod, secret or node it was issued for, must still exist with the same UIDs. That a signature
//! holds is remembered for a while; all else is looked at each time, so that what is deleted lets nobody in.

mod keys;
mod legacy;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answers::{Remembered, fingerprint};
use super::{Outcome, Verified, unverified};
use crate::cache::Cache;
use crate::config::ServiceAccountKeys;
use crate::user::CREDENTIAL_ID;
use crate::{Error, UserInfo};

/// Shortest life that a token may be asked for.
pub(crate) const MIN_SECONDS: i64 = 600;
/// Longest life that a token may be asked for.
pub(crate) const MAX_SECONDS: i64 = 1 << 32;

/// By how much clocks may differ.
const LEEWAY_SECONDS: i64 = 60;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Audiences,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: Kubernetes,
    pub(crate) nbf: i64,
    pub(crate) sub: String,
}

/// One audience or several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audiences {
    Many(Vec<String>),
    One(String),
}

impl Audiences {
    fn list(&self) -> &[String] {
        match self {
            Self::Many(all) => all,
            Self::One(one) => std::slice::from_ref(one),
        }
    }
}

/// The private claims.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kubernetes {
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
    pub(crate) serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) warnafter: Option<i64>,
}

/// An object at the time of issue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    /// Empty for a node that did not exist then.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
}

/// How long, in seconds, it is remembered that a token's signature holds.
const REMEMBER_SECONDS: i64 = 600;

/// What a signature vouches for.
struct Signed {
    claims: Claims,
    user: Arc<UserInfo>,
}

/// Issues and checks.
pub(crate) struct Tokens {
    signing: EncodingKey,
    header: Header,
    verifying: Vec<(Algorithm, DecodingKey)>,
    pub(crate) issuer: String,
    /// Also of tokens that were issued earlier.
    issuers: Vec<String>,
    pub(crate) audiences: Vec<String>,
    /// Seconds that a token may be asked for; longer ones are made shorter.
    pub(crate) max_seconds: Option<i64>,
    /// Whether tokens of pods that ask for the usual life get a longer one.
    pub(crate) extend: bool,
    signed: Mutex<Remembered<Arc<Signed>>>,
    cache: Arc<Cache>,
}

impl Tokens {
    pub(crate) fn new(keys: &ServiceAccountKeys, cache: Arc<Cache>) -> Result<Self, Error> {
        let bad = |what, path: Option<&Path>, why: String| {
            let why = path.map(|path| format!("{}: {why}", path.display())).unwrap_or(why);
            Error::Credentials { what, why }
        };
        let pem = keys.signing_key.load()?;
        let (algorithm, signing) =
            keys::signing_key(&pem).map_err(|why| bad("service account signing key", keys.signing_key.path(), why))?;
        let mut verifying = Vec::new();
        for key in &keys.public_keys {
            verifying.extend(
                keys::public_keys(&key.load()?).map_err(|why| bad("service account public key", key.path(), why))?,
            );
        }
        let audiences = if keys.audiences.is_empty() { vec![keys.issuer.clone()] } else { keys.audiences.clone() };
        let kid =
            Jwk::from_encoding_key(&signing, algorithm).and_then(|jwk| jwk.thumbprint(ThumbprintHash::SHA256)).ok();
        let header = Header { typ: None, kid, ..Header::new(algorithm) };
        let issuers = std::iter::once(&keys.issuer).chain(&keys.other_issuers).cloned().collect();
        let max_seconds = keys.max_token_expiration.and_then(|longest| i64::try_from(longest.as_secs()).ok());
        let (issuer, extend) = (keys.issuer.clone(), keys.extend_token_expiration);
        let signed = Mutex::default();
        Ok(Self { signing, header, verifying, issuer, issuers, audiences, max_seconds, extend, signed, cache })
    }

    /// Signs.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, String> {
        jsonwebtoken::encode(&self.header, claims, &self.signing).map_err(|e| e.to_string())
    }

    /// The public keys, as `/openid/v1/jwks` shows them.
    pub(crate) fn jwks(&self) -> Value {
        let keys = self.verifying.iter().filter_map(|(algorithm, key)| {
            let mut jwk = Jwk::from_decoding_key(key, Some(*algorithm)).ok()?;
            jwk.common.key_id = jwk.thumbprint(ThumbprintHash::SHA256).ok();
            let mut value = serde_json::to_value(jwk).ok()?;
            value.as_object_mut()?.insert("use".into(), "sig".into());
            Some(value)
        });
        json!({"keys": keys.collect::<Vec<_>>()})
    }

    /// `/.well-known/openid-configuration`
    pub(crate) fn openid(&self, jwks_uri: &str) -> Value {
        let mut algorithms: Vec<String> = self.verifying.iter().map(|(a, _)| format!("{a:?}")).collect();
        algorithms.dedup();
        json!({
            "issuer": self.issuer, "jwks_uri": jwks_uri, "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": algorithms,
        })
    }

    /// Issuers whose tokens are taken for this cluster's.
    pub(crate) fn issuers(&self) -> &[String] {
        &self.issuers
    }

    /// Checks signature, issuer, times, audiences (one of `audiences`) and the bound objects. A token of another issuer is not
    /// judged. The error is for logs and TokenReviews.
    pub(crate) fn verify(&self, token: &str, audiences: &[String]) -> Outcome {
        let now = keelson_client::clock::now().as_second();
        let key = fingerprint(token);
        let known = self.signed.lock().get(&key, now);
        let signed = match known {
            Some(signed) => signed,
            None => {
                let issuer = unverified(token).and_then(|claims| claims.get("iss")?.as_str().map(str::to_owned));
                match issuer {
                    Some(issuer) if issuer == legacy::ISSUER => return self.verify_legacy(token, audiences),
                    Some(issuer) if self.issuers.contains(&issuer) => {}
                    _ => return Ok(None),
                }
                let signed = Arc::new(self.decode(token)?);
                let until = signed.claims.exp.min(now + REMEMBER_SECONDS);
                self.signed.lock().put(key, signed.clone(), now, until);
                signed
            }
        };
        let claims = &signed.claims;
        let matching = intersection(claims.aud.list(), audiences);
        if matching.is_empty() {
            let (have, wanted) = (claims.aud.list(), audiences);
            return Err(format!("token audiences {have:?} is invalid for the target audiences {wanted:?}"));
        }
        // As upstream, a minute is allowed for clocks that differ.
        if now > claims.exp + LEEWAY_SECONDS {
            return Err("service account token has expired".into());
        }
        if claims.nbf > now + LEEWAY_SECONDS {
            return Err("service account token is not valid yet".into());
        }
        self.check_bound(claims)?;
        Ok(Some(Verified { user: signed.user.clone(), audiences: matching }))
    }

    fn decode(&self, token: &str) -> Result<Signed, String> {
        let claims: Claims = self.claims(token)?;
        if !self.issuers.contains(&claims.iss) {
            return Err("token issuer does not match".into());
        }
        let user = Arc::new(user(&claims)?);
        Ok(Signed { claims, user })
    }

    /// The claims of a token that one of the keys has signed.
    fn claims<T: serde::de::DeserializeOwned>(&self, token: &str) -> Result<T, String> {
        let mut last = "no key verifies service account tokens".to_owned();
        for (algorithm, key) in &self.verifying {
            let mut validation = Validation::new(*algorithm);
            validation.validate_aud = false;
            // Judged with the server's own clock.
            validation.validate_exp = false;
            validation.required_spec_claims.clear();
            match jsonwebtoken::decode::<T>(token, key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    fn check_bound(&self, claims: &Claims) -> Result<(), String> {
        let Kubernetes { namespace, serviceaccount, pod, secret, node, .. } = &claims.kubernetes;
        self.check_account(namespace, serviceaccount)?;
        if let Some(secret) = secret {
            self.check("secret", namespace, secret)?;
        }
        if let Some(pod) = pod {
            self.check("pod", namespace, pod)?;
        }
        // A pod's token says only where the pod was.
        if let (None, Some(node)) = (pod, node) {
            self.check("node", "", node)?;
        }
        Ok(())
    }

    fn check_account(&self, namespace: &str, wanted: &Reference) -> Result<(), String> {
        let name = &wanted.name;
        match self.look_up("serviceaccounts", namespace, name) {
            Found::Missing => Err(format!("serviceaccounts {name:?} not found")),
            Found::Deleted => Err(format!("service account {namespace}/{name} has been deleted")),
            Found::Uid(uid) if uid != wanted.uid => {
                Err(format!("service account UID ({uid}) does not match claim ({})", wanted.uid))
            }
            Found::Uid(_) => Ok(()),
        }
    }

    fn check(&self, what: &str, namespace: &str, wanted: &Reference) -> Result<(), String> {
        match self.look_up(&format!("{what}s"), namespace, &wanted.name) {
            Found::Missing | Found::Deleted => Err("service account token has been invalidated".into()),
            Found::Uid(uid) if uid != wanted.uid => {
                let label = what.get(..1).unwrap_or_default().to_uppercase() + what.get(1..).unwrap_or_default();
                let label = if what == "secret" { what } else { label.as_str() };
                Err(format!("{label} UID ({uid}) does not match service account {what} ref claim ({})", wanted.uid))
            }
            Found::Uid(_) => Ok(()),
        }
    }

    fn look_up(&self, resource: &str, namespace: &str, name: &str) -> Found {
        #[derive(Deserialize)]
        struct View {
            metadata: Meta,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Meta {
            uid: String,
            #[serde(default)]
            deletion_timestamp: Option<jiff::Timestamp>,
        }
        let entry = self.cache.resource("", resource).and_then(|cache| cache.get(namespace, name));
        let Some(Ok(view)) = entry.as_ref().map(|entry| entry.typed::<View>()) else { return Found::Missing };
        // What is being deleted keeps its tokens for its grace period and a little more.
        match view.metadata.deletion_timestamp {
            Some(at) if at.as_second() + LEEWAY_SECONDS < keelson_client::clock::now().as_second() => Found::Deleted,
            _ => Found::Uid(view.metadata.uid),
        }
    }
}

/// What there is under a name.
enum Found {
    Missing,
    /// Its time is over.
    Deleted,
    Uid(String),
}

/// Those of `have` that are wanted.
pub(super) fn intersection(have: &[String], wanted: &[String]) -> Vec<String> {
    have.iter().filter(|audience| wanted.contains(audience)).cloned().collect()
}

fn user(claims: &Claims) -> Result<UserInfo, String> {
    let Kubernetes { namespace, serviceaccount, pod, node, .. } = &claims.kubernetes;
    if claims.sub != format!("system:serviceaccount:{namespace}:{}", serviceaccount.name) {
        return Err("sub claim does not match the service account".into());
    }
    let mut user = UserInfo::service_account(namespace, &serviceaccount.name, &serviceaccount.uid);
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if !claims.jti.is_empty() {
        extra.insert(CREDENTIAL_ID.into(), vec![format!("JTI={}", claims.jti)]);
    }
    for (reference, name, uid) in [(pod, POD_NAME, POD_UID), (node, NODE_NAME, NODE_UID)] {
        let Some(reference) = reference else { continue };
        extra.insert(name.into(), vec![reference.name.clone()]);
        if !reference.uid.is_empty() {
            extra.insert(uid.into(), vec![reference.uid.clone()]);
        }
    }
    user.extra = extra;
    Ok(user)
}
