//! Expressions: compiled, and where that works run on an object, within their limits.

use std::sync::{Arc, LazyLock};

use keelson_api::jsonpath::JsonPath;
use keelson_cel::{Bindings, Decl, Env, Value, declare, limits};
use serde_json::{Value as Json, json};

/// Cost that one run may have here: less than in production, so that runs are many.
const COST: u64 = limits::PER_CALL_LIMIT / 10;

static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
    json!({"type": "object", "properties": {
        "replicas": {"type": "integer"},
        "name": {"type": "string", "maxLength": 64},
        "ratio": {"type": "number"},
        "when": {"type": "string", "format": "date-time"},
        "items": {"type": "array", "maxItems": 16, "items": {"type": "object", "properties": {
            "key": {"type": "string"}, "value": {"type": "integer"}}}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "any": {"x-kubernetes-preserve-unknown-fields": true, "type": "object"},
        "port": {"x-kubernetes-int-or-string": true},
        "text": {"type": "string"},
        "long": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    }})
});
static OBJECT: LazyLock<Json> = LazyLock::new(|| {
    json!({"replicas": 3, "name": "wéb", "ratio": 0.5, "when": "2026-01-02T03:04:05Z",
        "items": [{"key": "a", "value": 1}, {"key": "b", "value": -9_223_372_036_854_775_808_i64}],
        "labels": {"a": "b", "c": ""}, "any": {"x": [null, {"y": 1.5}]}, "port": "http",
        // As large as objects are that somebody means to slow the server down with.
        "text": "é1 ".repeat(20_000), "long": (0..5_000).collect::<Vec<_>>(),
        "set": (0..1_000).map(|n| format!("item-{n}")).collect::<Vec<_>>()})
});
static DECLARED: LazyLock<Arc<Decl>> = LazyLock::new(|| declare(&SCHEMA, false, "self").expect("a schema with a type"));
static ENV: LazyLock<Env> =
    LazyLock::new(|| Env::new().variable("self", DECLARED.clone()).variable("oldSelf", DECLARED.clone()));

pub(super) fn cel(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Ok(program) = ENV.compile(source) else { return };
    let _ = program.estimated_cost();
    let object = || Value::from_json(&OBJECT, Some(&DECLARED)).expect("the object is of its type");
    let run = program.evaluate(&Bindings::new().with("self", object()).with("oldSelf", object()), COST);
    if let Ok(value) = run.value {
        let _ = value.to_json();
    }
}

pub(super) fn json_path(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    let Ok(path) = JsonPath::parse(path) else { return };
    let _ = path.find(&OBJECT);
    assert_eq!(path.first(&OBJECT), path.find(&OBJECT).ok().and_then(|found| found.first().copied()));
}
