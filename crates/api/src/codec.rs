//! Encodings of objects: JSON, YAML and protobuf, to and from `serde_json::Value`. What the fields of a type are is
//! [`crate::schema`]'s; which encoding a request speaks is the API server's.

pub mod json;
pub mod protobuf;
pub mod yaml;

/// Levels of nesting that a document may have.
pub const MAX_DEPTH: usize = 120;

/// At most this many strict errors are kept for one document, as upstream does.
pub const MAX_STRICT_ERRORS: usize = 100;

/// A document that was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    pub value: serde_json::Value,
    /// What only strict field validation minds, such as `duplicate field "spec.replicas"`. The last duplicate wins.
    pub strict: Vec<String>,
}

/// A document that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// The message of a request refused for its unknown or duplicate fields.
pub fn strict_error(strict: &[String]) -> String {
    format!("strict decoding error: {}", strict.join(", "))
}

/// The first bytes of a body, as upstream shows a body that it could not make sense of.
pub fn summarize(body: &[u8]) -> String {
    const SHOWN_BYTES: usize = 30;
    let (head, tail) = match body.get(..SHOWN_BYTES) {
        Some(head) if body.len() > SHOWN_BYTES => (head, " ..."),
        _ => (body, ""),
    };
    match head.first() {
        None => "empty payload".into(),
        Some(b'{') => format!("{}{tail}", String::from_utf8_lossy(head)),
        Some(_) => {
            let hex: String = head.iter().map(|b| format!("{b:02x}")).collect();
            format!("{hex}{tail}")
        }
    }
}
