//! A patch of an object leaves something of the kind, or is refused, and blows nothing up.

use std::sync::LazyLock;

use keelson_api::apply::{OneVersion, Reset, Writer};
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

/// The first line is applied by one manager, the second by another with force, the third stands for an update by a third.
pub(super) fn apply_configuration(data: &[u8]) {
    let schema = schema_for("apps/v1", "Deployment").expect("a built-in kind");
    let writer = |manager: &'static str| Writer {
        manager,
        api_version: "apps/v1",
        kind: "Deployment",
        schema,
        subresource: "",
        now: "2026-01-02T03:04:05Z",
        reset: Reset::Fields(&[&["f:status"]]),
        versions: &OneVersion,
    };
    let mut live = OBJECT.clone();
    for (line, manager) in data.splitn(3, |byte| *byte == b'\n').zip(["first", "second", "third"]) {
        let Ok(decoded) = keelson_api::codec::json::decode(line) else { continue };
        let mut config = decoded.value;
        if schema.conform(&mut config).is_err() {
            continue;
        }
        let outcome = match manager {
            "third" => {
                let mut new = config;
                keelson_api::apply::update(&writer(manager), Some(&live), &mut new).map(|()| new).map_err(drop)
            }
            _ => keelson_api::apply::apply(&writer(manager), Some(&live), &config, manager == "second").map_err(drop),
        };
        let Ok(mut new) = outcome else { continue };
        assert!(new.to_string().len() <= LARGEST_RESULT_BYTES);
        if schema.conform(&mut new).is_ok() {
            live = new;
        }
    }
}
