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
pub(crate) fn row(kind: &Kind, object: Value, include: Include) -> Value {
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
        // No custom resources are served yet, and no built-in kind has such a column.
        Cell::JsonPath(_) => Value::Null,
    }));
    let object = match include {
        Include::None => Value::Null,
        Include::Metadata => partial(object),
        Include::Object => object,
    };
    if object.is_null() { json!({"cells": cells}) } else { json!({"cells": cells, "object": object}) }
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

fn columns(kind: &Kind) -> Vec<Value> {
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
