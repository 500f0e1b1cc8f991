//! Tokens in Secrets of type `kubernetes.io/service-account-token`: without an end, good for as long as their Secret holds
//! them and their account exists.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::{Reference, Tokens, intersection};
use crate::UserInfo;
use crate::authn::answers::fingerprint;
use crate::authn::{Outcome, Verified};

/// Of all clusters' tokens of this kind.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
/// Label of Secrets whose tokens nobody has used for long; the day since when they let nobody in.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

impl Tokens {
    pub(super) fn verify_legacy(&self, token: &str, audiences: &[String]) -> Outcome {
        let claims: Claims = self.claims(token)?;
        let account = Reference { name: claims.account.clone(), uid: claims.uid.clone() };
        if claims.iss != ISSUER {
            return Err("token issuer does not match".into());
        }
        let matching = intersection(&self.audiences, audiences);
        if matching.is_empty() {
            let have = &self.audiences;
            return Err(format!("token audiences {have:?} is invalid for the target audiences {audiences:?}"));
        }
        if claims.sub != format!("system:serviceaccount:{}:{}", claims.namespace, claims.account) {
            return Err("sub claim does not match the service account".into());
        }
        let invalidated = self.check_secret(&claims, token)?;
        self.check_account(&claims.namespace, &account)?;
        if invalidated {
            let Claims { namespace, secret, account, .. } = &claims;
            return Err(format!(
                "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. \
                 Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
                 '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            ));
        }
        let user = UserInfo::service_account(&claims.namespace, &claims.account, &claims.uid);
        Ok(Some(Verified { user: user.into(), audiences: matching }))
    }

    /// Whether the Secret, which holds the token, says that it is no longer good.
    fn check_secret(&self, claims: &Claims, token: &str) -> Result<bool, String> {
        #[derive(Deserialize)]
        struct View {
            #[serde(default)]
            data: Data,
            metadata: Meta,
        }
        #[derive(Default, Deserialize)]
        struct Data {
            #[serde(default)]
            token: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Meta {
            #[serde(default)]
            deletion_timestamp: Option<jiff::Timestamp>,
            #[serde(default)]
            labels: BTreeMap<String, String>,
        }
        let entry = self.cache.resource("", "secrets").and_then(|cache| cache.get(&claims.namespace, &claims.secret));
        let gone = || "service account token has been invalidated".to_owned();
        let entry = entry.ok_or_else(gone)?;
        let view: View = entry.typed().map_err(|_| gone())?;
        let held = BASE64_STANDARD.decode(&view.data.token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if view.metadata.deletion_timestamp.is_some() {
            return Err(gone());
        }
        // Digests, so that the time this takes tells nothing about the token.
        if held.is_none_or(|held| fingerprint(&held) != fingerprint(token)) {
            return Err("service account token does not match server's copy".into());
        }
        Ok(view.metadata.labels.get(INVALID_SINCE).is_some_and(|since| !since.is_empty()))
    }
}
