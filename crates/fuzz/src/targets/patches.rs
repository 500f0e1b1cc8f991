//! A patch of an object leaves something of the kind, or is refused, and blows nothing up.

use std::sync::LazyLock;

use keelson_api::codec::protobuf::schema_for;
use keelson_api::patch::{Patch, PatchType};
use serde_json::Value;

/// A patch may copy within the object, but only so much.
const LARGEST_RESULT_BYTES: usize = 16 << 20;

static OBJECT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("deployment.json")).expect("a Deployment in JSON"));

pub(super) fn json(data: &[u8]) {
    apply(PatchType::Json, data);
}

pub(super) fn merge(data: &[u8]) {
    apply(PatchType::Merge, data);
}

pub(super) fn strategic(data: &[u8]) {
    apply(PatchType::Strategic, data);
}

fn apply(kind: PatchType, data: &[u8]) {
    let Ok((patch, _)) = Patch::parse(kind, data) else { return };
    let schema = schema_for("apps/v1", "Deployment").expect("a built-in kind");
    let mut object = OBJECT.clone();
    if patch.apply(&mut object, schema).is_err() {
        return;
    }
    let size = object.to_string().len();
    assert!(size <= LARGEST_RESULT_BYTES, "{} bytes of patch make {size} bytes", data.len());
    if schema.conform(&mut object).is_err() {
        return;
    }
    let conformed = object.clone();
    assert_eq!(schema.conform(&mut object), Ok(Vec::new()));
    assert!(object == conformed, "conforms only at the second time");
}
