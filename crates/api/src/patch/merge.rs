//! Bodies of merge patches, RFC 7396, and of strategic merge patches.

use serde_json::Value;

use crate::status::Status;

pub(super) fn parse(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let decoded = super::decode(body).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    if !decoded.value.is_object() {
        return Err(Status::bad_request("Invalid JSON Patch"));
    }
    Ok((decoded.value, decoded.strict))
}

pub(super) fn parse_strategic(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let decoded = super::decode(body).map_err(|e| Status::bad_request(e.to_string()))?;
    if !decoded.value.is_object() {
        let found = crate::schema::json_type(&decoded.value);
        let message = format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
        return Err(Status::bad_request(message));
    }
    Ok((decoded.value, decoded.strict))
}
