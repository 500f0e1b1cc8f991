//! The three patches: JSON (RFC 6902), merge (RFC 7396) and strategic merge, which reads the schema. Server-side apply is
//! not here.

mod json;
mod merge;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub(crate) use strategic::show_value;

use crate::codec;
use crate::schema::Schema;
use crate::status::{FieldError, Status};

/// Operations that one JSON patch may have, as in upstream.
pub const MAX_JSON_OPERATIONS: usize = 10_000;

/// What a patch's body is, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

impl PatchType {
    /// By media type, without parameters.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }
}

/// A patch that was read and can be applied any number of times.
#[derive(Clone, Debug)]
pub enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// Reads a patch's body. The strings are what strict field validation minds (duplicate keys).
    pub fn parse(kind: PatchType, body: &[u8]) -> Result<(Self, Vec<String>), Status> {
        match kind {
            PatchType::Json => json::parse(body).map(|(patch, strict)| (Self::Json(patch), strict)),
            PatchType::Merge => merge::parse(body).map(|(patch, strict)| (Self::Merge(patch), strict)),
            PatchType::Strategic => {
                merge::parse_strategic(body).map(|(patch, strict)| (Self::Strategic(patch), strict))
            }
        }
    }

    /// The object as the patch makes it. The caller then conforms it to its schema. `object` is spent, also on error.
    pub fn apply(&self, object: &mut Value, schema: &Schema) -> Result<(), Status> {
        match self {
            Self::Json(patch) => json::apply(patch, object),
            Self::Merge(patch) => {
                json_patch::merge(object, patch);
                Ok(())
            }
            Self::Strategic(patch) => strategic::apply(object, patch, schema),
        }
    }

    /// As [`Patch::apply`]; `false` when a `test` of a JSON patch does not hold.
    pub fn apply_tested(&self, object: &mut Value, schema: &Schema) -> Result<bool, Status> {
        match self {
            Self::Json(patch) => json::apply_tested(patch, object),
            other => other.apply(object, schema).map(|()| true),
        }
    }

    /// 422 for a patch whose result is not an object of the kind: `patched` is the result, `why` the decode error. Upstream
    /// shows the result, but of strategic merge patches, which it does not decode, the patch.
    pub fn undecodable(&self, patched: &Value, why: &str) -> Status {
        let error = match self {
            Self::Json(_) | Self::Merge(_) => FieldError::invalid("patch", patched.to_string(), why),
            Self::Strategic(patch) => FieldError::invalid("patch", show_value(patch), &strategic::cannot_restore(why)),
        };
        Status::invalid("", "", "", &[error])
    }
}

fn decode(body: &[u8]) -> Result<codec::Decoded, codec::Error> {
    codec::json::decode(body)
}
