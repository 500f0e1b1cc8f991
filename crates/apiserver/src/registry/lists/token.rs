//! Continue tokens: where a list goes on and at which revision, in upstream's form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keelson_api::status::Status;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

/// A place in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The revision of the pages so far; `None` goes on with the newest, which may not fit to them.
    pub(super) revision: Option<u64>,
    /// The next key, without the list's prefix.
    pub(super) start: String,
    /// Objects from there on at that revision, when they were counted: no page has to count them again.
    pub(super) left: Option<usize>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
    /// Ours; upstream's tokens do without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<usize>,
}

impl Token {
    /// As it stands in `metadata.continue`.
    pub(super) fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let wire = Wire { v: VERSION.into(), rv, start: self.start.clone(), left: self.left };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    /// From the `continue` parameter; 400 for what this server cannot have made.
    pub(super) fn decode(text: &str) -> Result<Self, Status> {
        let bad = |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| bad(&e.to_string()))?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
        if wire.v != VERSION {
            return Err(bad(&format!("server does not recognize this encoded version {:?}", wire.v)));
        }
        if wire.rv == 0 {
            return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if wire.start.is_empty() {
            return Err(bad("encoded start key empty (version meta.k8s.io/v1)"));
        }
        let parts = wire.start.strip_prefix('/').unwrap_or(&wire.start);
        if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad(&wire.start));
        }
        Ok(Self { revision: u64::try_from(wire.rv).ok(), start: parts.to_owned(), left: wire.left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back() {
        for (revision, left) in [(Some(7), Some(3)), (Some(7), None), (None, None)] {
            let token = Token { revision, start: "default/a?b>c".into(), left };
            let text = token.encode();
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");
            assert_eq!(Token::decode(&text).unwrap(), token);
        }
    }

    #[test]
    fn tokens_of_others_are_refused() {
        for (json, why) in [
            ("", "EOF while parsing"),
            (r#"{"v":"v9","rv":1,"start":"a"}"#, "server does not recognize this encoded version \"v9\""),
            (
                r#"{"v":"meta.k8s.io/v1","start":"a"}"#,
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (r#"{"v":"meta.k8s.io/v1","rv":1}"#, "encoded start key empty (version meta.k8s.io/v1)"),
            (r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../secrets/a"}"#, "../secrets/a"),
            (r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a//b"}"#, "a//b"),
        ] {
            let error = Token::decode(&URL_SAFE_NO_PAD.encode(json)).unwrap_err();
            assert_eq!(error.code, 400);
            let head = "invalid continue token: continue key is not valid: ";
            assert!(error.message.starts_with(&format!("{head}{why}")), "{}", error.message);
        }
        assert!(Token::decode("!").unwrap_err().message.starts_with("invalid continue token: "));
    }
}
