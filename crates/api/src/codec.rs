//! Encodings of objects: JSON, YAML, protobuf and CBOR, to and from `serde_json::Value`. What the fields of a type are is
//! [`crate::schema`]'s; which encoding a request speaks is the API server's.

pub mod cbor;
pub mod convert;
pub mod json;
pub mod protobuf;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
pub mod yaml;

use crate::schema::Schema;

/// Levels of nesting that a document may have.
pub const MAX_DEPTH: usize = 120;

/// At most this many strict errors are kept for one document, as upstream does.
pub const MAX_STRICT_ERRORS: usize = 100;

/// How documents are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    #[default]
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

impl Encoding {
    /// All of them, in the order in which upstream names them.
    pub const ALL: [Self; 4] = [Self::Json, Self::Yaml, Self::Protobuf, Self::Cbor];

    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
            Self::Cbor => "application/cbor",
        }
    }

    /// By media type, without parameters.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.media_type() == media_type)
    }

    /// What a document looks like; YAML, when like nothing else.
    pub fn detect(document: &[u8]) -> Self {
        let first = document.iter().find(|byte| !byte.is_ascii_whitespace());
        match first {
            _ if document.starts_with(&protobuf::MAGIC) => Self::Protobuf,
            _ if document.starts_with(&cbor::MAGIC) => Self::Cbor,
            // A CBOR map; no text starts so.
            Some(0xa0..=0xbf) => Self::Cbor,
            Some(b'{') => Self::Json,
            _ => Self::Yaml,
        }
    }

    /// Reads a document of any type; protobuf only of types that we know.
    pub fn decode(self, document: &[u8]) -> Result<Decoded, Error> {
        match self {
            Self::Json => json::decode(document),
            Self::Yaml => yaml::decode(document),
            Self::Cbor => cbor::decode(document),
            Self::Protobuf => Ok(Decoded { value: protobuf::decode_any(document)?, strict: Vec::new() }),
        }
    }

    /// A document. Protobuf needs a schema, to which the value conforms.
    pub fn encode(self, value: &serde_json::Value, schema: Option<&Schema>) -> Result<Vec<u8>, Error> {
        match (self, schema) {
            (Self::Json, _) => serde_json::to_vec(value).map_err(|e| Error(e.to_string())),
            (Self::Yaml, _) => yaml::encode(value).map(String::into_bytes),
            (Self::Cbor, schema) => cbor::encode(value, schema),
            (Self::Protobuf, Some(schema)) => protobuf::encode(value, schema),
            (Self::Protobuf, None) => Err(Error("the type has no protobuf form".into())),
        }
    }
}

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
