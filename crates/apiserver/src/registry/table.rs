//! Tables: what `kubectl get` prints.

use keelson_api::kind::{Cell, Kind};
use serde_json::{Value, json};

use super::render::partial;

/// `includeObject`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// One row.
pub(crate) fn row(kind: &Kind, object: Value, include: Include, beta: bool) -> Value {
    let now = keelson_client::clock::now();
    let mut cells = Vec::with_capacity(kind.columns.len() + 1);
    if !has_name(kind) {
        cells.push(object.pointer("/metadata/name").cloned().unwrap_or_default());
    }
    let age = kind.columns.is_empty();
    if age {
        cells.push(object.pointer("/metadata/creationTimestamp").cloned().unwrap_or_default());
    }
    cells.extend(kind.columns.iter().map(|column| match &column.cell {
        Cell::Fn(cell) => cell(&object, now),
        Cell::Path(path) => path.first(&object).map_or(Value::Null, |value| found(&column.type_, value, now)),
    }));
    let object = match include {
        Include::None => Value::Null,
        Include::Metadata => partial(object, beta),
        Include::Object => object,
    };
    if object.is_null() { json!({"cells": cells}) } else { json!({"cells": cells, "object": object}) }
}

/// What a column of this type shows of the value that its path found.
fn found(type_: &str, value: &Value, now: jiff::Timestamp) -> Value {
    match (type_, value) {
        ("string", Value::String(_)) => value.clone(),
        ("string", value) => go_text(value).into(),
        ("integer", Value::Number(n)) => match n.as_i64() {
            Some(n) => n.into(),
            // A cast, as upstream's is: fractions are cut off, what is too large becomes the largest.
            None => n.as_f64().map_or(Value::Null, |n| (n as i64).into()),
        },
        ("number", Value::Number(n)) => n.as_f64().map_or(Value::Null, Value::from),
        ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match text.parse::<jiff::Timestamp>() {
            Ok(at) => keelson_api::kinds::human_duration(now.duration_since(at).as_secs()).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

/// As Go prints a value: `map[a:1 b:[2 3]]`.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

/// A table of one object.
pub(crate) fn of_one(kind: &Kind, object: Value, include: Include, beta: bool, with_columns: bool) -> Value {
    let revision = object.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let rows = vec![row(kind, object, include, beta)];
    table(kind, rows, json!({ "resourceVersion": revision }), beta, with_columns)
}

/// The whole table.
pub(crate) fn table(kind: &Kind, rows: Vec<Value>, metadata: Value, beta: bool, with_columns: bool) -> Value {
    let columns = if with_columns { columns(kind) } else { Vec::new() };
    let api_version = if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" };
    let columns = if with_columns { Value::Array(columns) } else { Value::Null };
    json!({
        "kind": "Table", "apiVersion": api_version, "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn has_name(kind: &Kind) -> bool {
    kind.columns.iter().any(|column| column.name == "Name")
}

pub(crate) fn columns(kind: &Kind) -> Vec<Value> {
    let definition = |name: &str, type_: &str, format: &str, description: &str, priority: i32| json!({"name": name, "type": type_, "format": format, "description": description, "priority": priority});
    let mut all = Vec::new();
    if !has_name(kind) {
        let description = "Name must be unique within a namespace. Is required when creating resources, although some \
            resources may allow a client to request the generation of an appropriate name automatically. Name is \
            primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: \
            https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
        all.push(definition("Name", "string", "name", description, 0));
    }
    if kind.columns.is_empty() {
        let description = "CreationTimestamp is a timestamp representing the server time when this object was created.";
        all.push(definition("Created At", "date", "", description, 0));
    }
    all.extend(kind.columns.iter().map(|c| definition(&c.name, &c.type_, &c.format, &c.description, c.priority)));
    all
}
