//! JSON patch, RFC 6902.

use serde_json::Value;

use super::MAX_JSON_OPERATIONS;
use crate::status::Status;

pub(super) fn parse(body: &[u8]) -> Result<(json_patch::Patch, Vec<String>), Status> {
    let decoded = super::decode(body).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    let operations = match &decoded.value {
        Value::Array(operations) => operations.len(),
        _ => 0,
    };
    if operations > MAX_JSON_OPERATIONS {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_JSON_OPERATIONS}, got {operations}"
        )));
    }
    let patch =
        serde_json::from_value(decoded.value).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    Ok((patch, decoded.strict))
}

/// Any failing operation, `test` included, is the same 422 in upstream.
pub(super) fn apply(patch: &json_patch::Patch, object: &mut Value) -> Result<(), Status> {
    json_patch::patch(object, patch).map_err(|_| {
        let details = Some(Box::default());
        Status {
            details,
            ..Status::new(422, "Invalid", "the server rejected our request due to an error in our request")
        }
    })
}
