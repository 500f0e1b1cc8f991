//! Bodies of merge patches, RFC 7396, and of strategic merge patches.

use serde_json::Value;

use crate::schema::json_type;
use crate::status::Status;

pub(super) fn parse(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let decoded = super::decode(body).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    if !decoded.value.is_object() {
        return Err(Status::bad_request(format!("error decoding patch: {}", no_map(&decoded.value))));
    }
    Ok((decoded.value, decoded.strict))
}

pub(super) fn parse_strategic(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let decoded = super::decode(body).map_err(|e| Status::bad_request(e.to_string()))?;
    if !decoded.value.is_object() {
        return Err(Status::bad_request(no_map(&decoded.value)));
    }
    Ok((decoded.value, decoded.strict))
}

fn no_map(found: &Value) -> String {
    format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", json_type(found))
}
