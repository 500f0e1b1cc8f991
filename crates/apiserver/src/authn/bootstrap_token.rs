//! Bootstrap tokens: Secrets `bootstrap-token-<id>` in `kube-system`, by which machines join before they have an identity.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::answers::fingerprint;
use crate::UserInfo;
use crate::cache::Cache;

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
/// Of an extra group, after `system:bootstrappers:`.
const MAX_GROUP_CHARS: usize = 256;

/// Knows the Secrets.
pub(super) struct BootstrapTokens(pub(super) Arc<Cache>);

impl BootstrapTokens {
    /// The user whose token this is; `None` when it is none or does not hold.
    pub(super) fn user(&self, token: &str) -> Option<Arc<UserInfo>> {
        let (id, secret) = split(token)?;
        let name = format!("bootstrap-token-{id}");
        let entry = self.0.resource("", "secrets")?.get(NAMESPACE, &name)?;
        let held: View = entry.typed().ok()?;
        match held.user(id, secret, keelson_client::clock::now()) {
            Ok(user) => Some(Arc::new(user)),
            Err(why) => {
                tracing::info!(why, "Bootstrap secret {NAMESPACE}/{name} does not let its token in");
                None
            }
        }
    }
}

/// Id and secret of a token.
fn split(token: &str) -> Option<(&str, &str)> {
    let is = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    token.split_once('.').filter(|(id, secret)| is(id, 6) && is(secret, 16))
}

#[derive(Deserialize)]
struct View {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
    metadata: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    deletion_timestamp: Option<jiff::Timestamp>,
}

impl View {
    fn text(&self, key: &str) -> String {
        let decoded = self.data.get(key).and_then(|value| BASE64_STANDARD.decode(value).ok());
        decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn user(&self, id: &str, secret: &str, now: jiff::Timestamp) -> Result<UserInfo, &'static str> {
        if self.metadata.deletion_timestamp.is_some() {
            return Err("it is deleted and awaiting removal");
        }
        if self.kind != SECRET_TYPE {
            return Err("it has another type than bootstrap.kubernetes.io/token");
        }
        // Digests, so that the time this takes tells nothing about the secret.
        if fingerprint(&self.text("token-secret")) != fingerprint(secret) {
            return Err("it has another token-secret");
        }
        if self.text("token-id") != id {
            return Err("it has another token-id");
        }
        let expiration = self.text("expiration");
        // What cannot be read is over, to be on the safe side.
        if !expiration.is_empty() && expiration.parse::<jiff::Timestamp>().map_or(true, |at| at <= now) {
            return Err("it has expired");
        }
        if self.text("usage-bootstrap-authentication") != "true" {
            return Err("it is not marked usage-bootstrap-authentication=true");
        }
        let mut groups = BTreeSet::from([GROUP.to_owned()]);
        let extra = self.text("auth-extra-groups");
        for group in extra.split(',').filter(|_| !extra.is_empty()) {
            if !is_bootstrap_group(group) {
                return Err("its auth-extra-groups must match system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]");
            }
            groups.insert(group.to_owned());
        }
        let user = UserInfo {
            name: format!("system:bootstrap:{id}"),
            groups: groups.into_iter().collect(),
            ..UserInfo::default()
        };
        Ok(user.authenticated())
    }
}

fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=MAX_GROUP_CHARS).contains(&rest.len())
        && rest.bytes().all(|b| plain(b) || matches!(b, b':' | b'-'))
        && rest.bytes().last().is_some_and(plain)
}
