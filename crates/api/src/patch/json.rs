//! JSON patch, RFC 6902.

use serde_json::Value;

use super::MAX_JSON_OPERATIONS;
use crate::codec::{MAX_DEPTH, MAX_STRICT_ERRORS};
use crate::schema::json_type;
use crate::status::Status;

/// What all `copy` operations of one patch may add, as in upstream; without it ten of them could fill the memory.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

pub(super) fn parse(body: &[u8]) -> Result<(json_patch::Patch, Vec<String>), Status> {
    let decoded = super::decode(body).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    let cannot = |found: &Value, ty: &str| {
        Status::bad_request(format!("json: cannot unmarshal {} into Go value of type {ty}", json_type(found)))
    };
    let Value::Array(operations) = &decoded.value else {
        let why = cannot(&decoded.value, "[]interface {}").message;
        return Err(Status::bad_request(format!("error decoding patch: {why}")));
    };
    if let Some(other) = operations.iter().find(|o| !o.is_object()) {
        return Err(cannot(other, "jsonpatch.Operation"));
    }
    if operations.len() > MAX_JSON_OPERATIONS {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_JSON_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut strict: Vec<String> = decoded.strict.iter().map(|found| format!("json patch {found}")).collect();
    for (i, operation) in operations.iter().enumerate() {
        let keys = operation.as_object().into_iter().flat_map(|operation| operation.keys());
        let unknown = keys.filter(|key| !matches!(key.as_str(), "op" | "path" | "from" | "value"));
        strict.extend(unknown.map(|key| format!("json patch unknown field \"[{i}].{key}\"")));
    }
    strict.truncate(MAX_STRICT_ERRORS);
    // Upstream notices unknown operations and bad paths only when it applies them.
    let patch = serde_json::from_value(decoded.value).map_err(|_| rejected())?;
    Ok((patch, strict))
}

fn rejected() -> Status {
    let details = Some(Box::default());
    Status { details, ..Status::new(422, "Invalid", "the server rejected our request due to an error in our request") }
}

/// Any failing operation, `test` included, is the same 422 in upstream.
pub(super) fn apply(patch: &json_patch::Patch, object: &mut Value) -> Result<(), Status> {
    if apply_tested(patch, object)? { Ok(()) } else { Err(rejected()) }
}

/// Whether all `test` operations hold; if not, `object` is left in between.
pub(super) fn apply_tested(patch: &json_patch::Patch, object: &mut Value) -> Result<bool, Status> {
    let mut copied_bytes = 0;
    for operation in &patch.0 {
        use json_patch::PatchOperation::{Add, Copy, Move, Remove, Replace, Test};
        let grown = match operation {
            Add(add) => Some((&add.path, depth(&add.value))),
            Replace(replace) => Some((&replace.path, depth(&replace.value))),
            Move(moved) => Some((&moved.path, object.pointer(moved.from.as_str()).map_or(0, depth))),
            Copy(copy) => {
                let source = object.pointer(copy.from.as_str());
                copied_bytes += source.map_or(0, size_bytes);
                Some((&copy.path, source.map_or(0, depth)))
            }
            Remove(_) | Test(_) => None,
        };
        if copied_bytes > MAX_COPIED_BYTES || grown.is_some_and(|(path, depth)| path.count() + depth > MAX_DEPTH) {
            return Err(rejected());
        }
        // As upstream's: a field that is not there passes a test for null. So kube-rs adds the first finalizer.
        if let Test(test) = operation
            && test.value.is_null()
            && let Some((parent, _)) = test.path.as_str().rsplit_once('/')
            && object.pointer(parent).is_some_and(Value::is_object)
            && object.pointer(test.path.as_str()).is_none()
        {
            continue;
        }
        match json_patch::patch_unsafe(object, std::slice::from_ref(operation)) {
            Ok(()) => {}
            Err(_) if matches!(operation, Test(_)) => return Ok(false),
            Err(_) => return Err(rejected()),
        }
    }
    Ok(true)
}

/// Levels of nesting; the callers see to it that it is small.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// About how long the value is as JSON.
fn size_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(size_bytes).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(key, value)| key.len() + 3 + size_bytes(value)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{apply, parse};

    #[test]
    fn a_field_that_is_not_there_is_null() {
        let check = |operations: &str, passes: bool| {
            let (patch, _) = parse(operations.as_bytes()).unwrap();
            let mut object = json!({"metadata": {"name": "a"}, "list": [1]});
            assert_eq!(apply(&patch, &mut object).is_ok(), passes, "{operations}");
            object
        };
        let first = r#"[{"op":"test","path":"/metadata/finalizers","value":null},
            {"op":"add","path":"/metadata/finalizers","value":["x"]}]"#;
        assert_eq!(check(first, true)["metadata"]["finalizers"], json!(["x"]));
        check(r#"[{"op":"test","path":"/metadata/name","value":null}]"#, false);
        check(r#"[{"op":"test","path":"/nothing/name","value":null}]"#, false);
        check(r#"[{"op":"test","path":"/list/7","value":null}]"#, false);
        check(r#"[{"op":"test","path":"/metadata/finalizers","value":1}]"#, false);
    }
}
