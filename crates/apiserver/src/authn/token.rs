//! Service-account tokens: issued by TokenRequest, checked on every request. A token is as good as the objects it is bound
//! to: the account, and the pod, secret or node it was issued for, must still exist with the same UIDs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::config::ServiceAccountKeys;
use crate::user::CREDENTIAL_ID;
use crate::{Error, UserInfo};

/// Shortest life that a token may be asked for.
pub(crate) const MIN_SECONDS: i64 = 600;
/// Longest life that a token may be asked for.
pub(crate) const MAX_SECONDS: i64 = 1 << 32;

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
    pub(crate) uid: String,
}

/// A token that holds.
pub(crate) struct Verified {
    pub(crate) user: UserInfo,
    /// Those of the token that were asked for.
    pub(crate) audiences: Vec<String>,
}

/// Issues and checks.
pub(crate) struct Tokens {
    signing: EncodingKey,
    header: Header,
    verifying: Vec<(Algorithm, DecodingKey)>,
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
    cache: Arc<Cache>,
}

impl Tokens {
    pub(crate) fn new(keys: &ServiceAccountKeys, cache: Arc<Cache>) -> Result<Self, Error> {
        let bad = |what, why: jsonwebtoken::errors::Error| Error::Credentials { what, why: why.to_string() };
        let pem = keys.signing_key.load()?;
        let (algorithm, signing) = match EncodingKey::from_rsa_pem(&pem) {
            Ok(key) => (Algorithm::RS256, key),
            Err(_) => {
                (Algorithm::ES256, EncodingKey::from_ec_pem(&pem).map_err(|e| bad("service account signing key", e))?)
            }
        };
        let mut verifying = Vec::new();
        for key in &keys.public_keys {
            let pem = key.load()?;
            verifying.push(match DecodingKey::from_rsa_pem(&pem) {
                Ok(key) => (Algorithm::RS256, key),
                Err(_) => (
                    Algorithm::ES256,
                    DecodingKey::from_ec_pem(&pem).map_err(|e| bad("service account public key", e))?,
                ),
            });
        }
        let audiences = if keys.audiences.is_empty() { vec![keys.issuer.clone()] } else { keys.audiences.clone() };
        let kid =
            Jwk::from_encoding_key(&signing, algorithm).and_then(|jwk| jwk.thumbprint(ThumbprintHash::SHA256)).ok();
        let header = Header { typ: None, kid, ..Header::new(algorithm) };
        Ok(Self { signing, header, verifying, issuer: keys.issuer.clone(), audiences, cache })
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

    /// Checks signature, issuer, times, audience (one of `audiences`, or of the API's when that is empty) and the bound
    /// objects. The error is for logs and TokenReviews.
    pub(crate) fn verify(&self, token: &str, audiences: &[String]) -> Result<Verified, String> {
        let claims = self.decode(token)?;
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let matching: Vec<String> = claims.aud.list().iter().filter(|a| wanted.contains(a)).cloned().collect();
        if matching.is_empty() {
            let (have, wanted) = (claims.aud.list(), wanted);
            return Err(format!("token audiences {have:?} is invalid for the target audiences {wanted:?}"));
        }
        let now = keelson_client::clock::now().as_second();
        // As upstream, a minute is allowed for clocks that differ, before but not after.
        if now > claims.exp {
            return Err("service account token has expired".into());
        }
        if claims.nbf > now + 60 {
            return Err("service account token is not valid yet".into());
        }
        let user = self.user(&claims)?;
        Ok(Verified { user, audiences: matching })
    }

    fn decode(&self, token: &str) -> Result<Claims, String> {
        let mut last = "no key verifies service account tokens".to_owned();
        for (algorithm, key) in &self.verifying {
            let mut validation = Validation::new(*algorithm);
            validation.set_issuer(&[&self.issuer]);
            validation.validate_aud = false;
            // Judged with the server's own clock, above.
            validation.validate_exp = false;
            validation.required_spec_claims.clear();
            match jsonwebtoken::decode::<Claims>(token, key, &validation) {
                Ok(data) if data.claims.iss == self.issuer => return Ok(data.claims),
                Ok(_) => last = "token issuer does not match".into(),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    fn user(&self, claims: &Claims) -> Result<UserInfo, String> {
        let Kubernetes { namespace, serviceaccount, pod, secret, node, .. } = &claims.kubernetes;
        if claims.sub != format!("system:serviceaccount:{namespace}:{}", serviceaccount.name) {
            return Err("sub claim does not match the service account".into());
        }
        self.check("serviceaccounts", namespace, serviceaccount)?;
        if let Some(secret) = secret {
            self.check("secrets", namespace, secret)?;
        }
        if let Some(pod) = pod {
            self.check("pods", namespace, pod)?;
        }
        if let (None, Some(node)) = (pod, node) {
            self.check("nodes", "", node)?;
        }
        let mut user = UserInfo::service_account(namespace, &serviceaccount.name, &serviceaccount.uid);
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if !claims.jti.is_empty() {
            extra.insert(CREDENTIAL_ID.into(), vec![format!("JTI={}", claims.jti)]);
        }
        for (reference, name, uid) in [(pod, POD_NAME, POD_UID), (node, NODE_NAME, NODE_UID)] {
            if let Some(reference) = reference {
                extra.insert(name.into(), vec![reference.name.clone()]);
                extra.insert(uid.into(), vec![reference.uid.clone()]);
            }
        }
        user.extra = extra;
        Ok(user)
    }

    fn check(&self, resource: &str, namespace: &str, wanted: &Reference) -> Result<(), String> {
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
        let gone = || format!("{resource} {namespace}/{} has been deleted", wanted.name);
        let entry = self.cache.resource("", resource).and_then(|c| c.get(namespace, &wanted.name)).ok_or_else(gone)?;
        let view: View = entry.typed().map_err(|e| e.message)?;
        if view.metadata.uid != wanted.uid {
            return Err(format!("the UID of {resource} {namespace}/{} does not match the token's", wanted.name));
        }
        // A pod that is being deleted keeps its token for its grace period and a little more.
        let leeway = Duration::from_secs(60);
        match view.metadata.deletion_timestamp {
            Some(at) if at + leeway < keelson_client::clock::now() => Err(gone()),
            _ => Ok(()),
        }
    }
}
