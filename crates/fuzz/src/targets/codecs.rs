//! What is accepted can be written, and read back as the same.

use keelson_api::codec;
use serde_json::Value;

pub(super) fn json(data: &[u8]) {
    let Ok(decoded) = codec::json::decode(data) else { return };
    let written = decoded.value.to_string();
    let again = codec::json::decode(written.as_bytes()).expect("what was written can be read");
    assert!(again.value == decoded.value, "was written as another value");
    assert!(again.strict.is_empty(), "what was written has no duplicates");
    conform(&decoded.value);
}

pub(super) fn yaml(data: &[u8]) {
    let Ok(decoded) = codec::yaml::decode(data) else { return };
    let written = codec::yaml::encode(&decoded.value).expect("what was read can be written");
    let again = codec::yaml::decode(written.as_bytes()).expect("what was written can be read");
    assert!(again.value == decoded.value, "was written as another value");
}

pub(super) fn protobuf(data: &[u8]) {
    let Ok(object) = codec::protobuf::decode_any(data) else { return };
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let schema = codec::protobuf::schema_for(text("apiVersion"), text("kind")).expect("it was read by this schema");
    let written = codec::protobuf::encode(&object, schema).expect("what was read can be written");
    let again = codec::protobuf::decode(&written, schema).expect("what was written can be read");
    assert!(again == object, "was written as another object");
}

pub(super) fn cbor(data: &[u8]) {
    let Ok(decoded) = codec::cbor::decode(data) else { return };
    let written = codec::cbor::encode(&decoded.value, None).expect("what was read can be written");
    let again = codec::cbor::decode(&written).expect("what was written can be read");
    assert!(again.value == decoded.value, "was written as another value");
    let _ = codec::cbor::decode_sequence(data);
    conform(&decoded.value);
}

/// As an object of a kind with a deep schema: pruned once, it stays as it is, and goes through protobuf unchanged.
fn conform(value: &Value) {
    let schema = codec::protobuf::schema_for("apps/v1", "Deployment").expect("a built-in kind");
    let mut object = value.clone();
    if schema.conform(&mut object).is_err() || !object.is_object() {
        return;
    }
    let mut again = object.clone();
    assert_eq!(schema.conform(&mut again), Ok(Vec::new()));
    assert!(again == object, "conforms only at the second time");
    codec::protobuf::encode(&object, schema).expect("an object that conforms can be written");
}
