//! Signatures of `cluster-info`: for each token a JWS (HS256, its content left out) of the kubeconfig.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use ring::hmac;
use serde_json::json;

use super::{left, text};
use crate::common::objects::{is_deleting, name};

const KUBECONFIG: &str = "kubeconfig";
const PREFIX: &str = "jws-kubeconfig-";

/// The map with the signatures that it should have; `None` when it has them.
pub(super) fn signed(map: &ConfigMap, secrets: &[Arc<Secret>], now: jiff::Timestamp) -> Option<ConfigMap> {
    let data = map.data.as_ref()?;
    let content = data.get(KUBECONFIG)?;
    let mut wanted: BTreeMap<String, String> = data
        .iter()
        .filter(|(key, _)| !key.starts_with(PREFIX))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for (id, secret) in secrets.iter().filter_map(|secret| signer(secret, now)) {
        wanted.insert(format!("{PREFIX}{id}"), signature(content, id, secret));
    }
    (wanted != *data).then(|| ConfigMap { data: Some(wanted), ..map.clone() })
}

/// Id and secret of a token that may sign.
fn signer(secret: &Secret, now: jiff::Timestamp) -> Option<(&str, &str)> {
    let (id, key) = (text(secret, "token-id"), text(secret, "token-secret"));
    let named = name(&secret.metadata).strip_prefix("bootstrap-token-") == Some(id);
    let over = is_deleting(&secret.metadata) || left(secret, now).is_some_and(|left| left.is_zero());
    let may = named && !id.is_empty() && !key.is_empty() && !over && text(secret, "usage-bootstrap-signing") == "true";
    may.then_some((id, key))
}

fn signature(content: &str, id: &str, secret: &str) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(json!({"alg": "HS256", "kid": id}).to_string().as_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{header}.{}", encode(content.as_bytes())).as_bytes());
    format!("{header}..{}", encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn secret(id: &str, change: Value) -> Arc<Secret> {
        let mut data = json!({"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true"});
        for (key, value) in change.as_object().unwrap() {
            data[key] = value.clone();
        }
        let encode = |value: &Value| base64::prelude::BASE64_STANDARD.encode(value.as_str().unwrap());
        let data: Value =
            data.as_object().unwrap().iter().map(|(key, value)| (key.clone(), Value::from(encode(value)))).collect();
        let secret = json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "data": data});
        Arc::new(serde_json::from_value(secret).unwrap())
    }

    #[test]
    fn tokens_that_may_sign_sign_and_others_signatures_go() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": "cluster-info"},
            "data": {"kubeconfig": "content", "jws-kubeconfig-gone12": "x..y", "other": "stays"},
        }))
        .unwrap();
        let secrets = [
            secret("abcdef", json!({})),
            secret("later1", json!({"expiration": "2026-01-01T00:00:01Z"})),
            secret("over12", json!({"expiration": "2026-01-01T00:00:00Z"})),
            secret("broken", json!({"expiration": "soon"})),
            secret("mayno1", json!({"usage-bootstrap-signing": "false"})),
        ];
        let signed_map = signed(&map, &secrets, now).unwrap();
        let keys: Vec<&String> = signed_map.data.as_ref().unwrap().keys().collect();
        assert_eq!(keys, ["jws-kubeconfig-abcdef", "jws-kubeconfig-later1", "kubeconfig", "other"]);
        // Whoever knows the token can check it.
        let jws = &signed_map.data.as_ref().unwrap()["jws-kubeconfig-abcdef"];
        let whole = jws.replacen("..", &format!(".{}.", BASE64_URL_SAFE_NO_PAD.encode("content")), 1);
        let header = jsonwebtoken::decode_header(&whole).unwrap();
        assert_eq!((header.alg, header.kid.as_deref()), (jsonwebtoken::Algorithm::HS256, Some("abcdef")));
        let key = jsonwebtoken::DecodingKey::from_secret(b"0123456789abcdef");
        let (message, tag) = whole.rsplit_once('.').unwrap();
        assert!(jsonwebtoken::crypto::verify(tag, message.as_bytes(), &key, header.alg).unwrap());
        assert_eq!(signed(&signed_map, &secrets, now), None, "nothing is left to do");
    }
}
