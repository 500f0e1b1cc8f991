//! Component schemas: `k8s-openapi`'s, in the shape that upstream publishes them, with the merge keys of [`crate::schema`].

use serde_json::{Map, Value, json};

use super::{Format, special, types};
use crate::kind::{Kind, Verb};
use crate::schema::{self, Field, ListType, Merge, Schema, Type};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Every schema that the kinds and their operations refer to.
pub(super) fn all(kinds: &[&Kind], format: Format) -> Map<String, Value> {
    let mut roots: Vec<(String, Value)> = Vec::new();
    for kind in kinds {
        let gvk = group_version_kind(&kind.group, &kind.version, &kind.kind);
        roots.push((kind.schema.to_string(), gvk));
        for (group, version, kind) in kind.subresources.iter().filter_map(|s| s.body.as_ref()) {
            let root = (schema_name(group, version, kind), group_version_kind(group, version, kind));
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
    }
    let common = ["APIResourceList", "DeleteOptions", "ListMeta", "ObjectMeta", "Patch", "Status", "WatchEvent"];
    let is_common = |name: &str| name.strip_prefix(META).is_some_and(|n| common.contains(&n.trim_start_matches('.')));
    let mut schemas = definitions(|name| is_common(name) || roots.iter().any(|(root, _)| root == name), format);
    for (name, gvk) in &roots {
        add_kind(&mut schemas, name, gvk.clone());
    }
    for kind in kinds {
        if let Some(custom) = &kind.custom {
            schemas.insert(kind.schema.to_string(), custom.published(kind, format));
        }
    }
    for kind in kinds.iter().filter(|k| k.has_verb(Verb::List)) {
        schemas.insert(format!("{}List", kind.schema), list_of(kind, format));
    }
    for gvk in group_versions_of(kinds) {
        for name in ["DeleteOptions", "WatchEvent"] {
            let (group, version) = &gvk;
            add_kind(&mut schemas, &format!("{META}.{name}"), group_version_kind(group, version, name));
        }
    }
    for name in ["APIResourceList", "Status"] {
        add_kind(&mut schemas, &format!("{META}.{name}"), group_version_kind("", "v1", name));
    }
    schemas
}

/// The schemas of what the server says of itself (`APIGroup`, `Info`), by their full names.
pub(super) fn of_the_server(names: &[&str], format: Format) -> Map<String, Value> {
    let mut schemas = definitions(|name| names.contains(&name), format);
    for name in names {
        if let Some(kind) = name.strip_prefix(META) {
            add_kind(&mut schemas, name, group_version_kind("", "v1", kind.trim_start_matches('.')));
        }
    }
    schemas
}

fn definitions(wanted: impl Fn(&str) -> bool, format: Format) -> Map<String, Value> {
    types::definitions(wanted)
        .into_iter()
        .map(|(name, schema)| (name.clone(), definition(&name, schema, format)))
        .collect()
}

/// `io.k8s.api.core.v1.Pod`
pub(super) fn schema_name(group: &str, version: &str, kind: &str) -> String {
    let package = match group.split('.').next() {
        None | Some("") => "core",
        Some(package) => package,
    };
    format!("io.k8s.api.{package}.{version}.{kind}")
}

pub(super) fn group_version_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}

fn group_versions_of(kinds: &[&Kind]) -> Vec<(String, String)> {
    let mut all: Vec<_> = kinds.iter().map(|k| (k.group.to_string(), k.version.to_string())).collect();
    all.sort();
    all.dedup();
    all
}

fn add_kind(schemas: &mut Map<String, Value>, name: &str, gvk: Value) {
    let Some(Value::Object(schema)) = schemas.get_mut(name) else { return };
    let kinds = schema.entry("x-kubernetes-group-version-kind").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(kinds) = kinds
        && !kinds.contains(&gvk)
    {
        kinds.push(gvk);
    }
}

fn list_of(kind: &Kind, format: Format) -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "description": format!("{0}List is a list of {0} objects.", kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("The version of this representation: the group and version of the objects."),
            "kind": text(&format!("Always {}List.", kind.kind)),
            "items": {
                "description": "The objects.",
                "type": "array",
                "items": reference(&kind.schema, None, true, format),
            },
            "metadata": reference(&format!("{META}.ListMeta"), Some("What is said of the list itself.".into()), true, format),
        },
        "x-kubernetes-group-version-kind": [group_version_kind(&kind.group, &kind.version, &kind.list_kind)],
    })
}

fn reference(name: &str, description: Option<Value>, default: bool, format: Format) -> Value {
    let mut out = Map::new();
    match format {
        Format::V2 => {
            out.insert("$ref".into(), format.reference(name));
        }
        Format::V3 if default && has_zero(name) || description.is_some() => {
            out.insert("allOf".into(), json!([{ "$ref": format.reference(name) }]));
            if default && has_zero(name) {
                out.insert("default".into(), json!({}));
            }
        }
        Format::V3 => {
            out.insert("$ref".into(), format.reference(name));
        }
    }
    if let Some(description) = description {
        out.insert("description".into(), description);
    }
    Value::Object(out)
}

/// Whether `{}` is a value of the type: not of those that are no objects in JSON, or any JSON at all.
fn has_zero(name: &str) -> bool {
    let scalars = ["Quantity", "Time", "MicroTime", "Duration", "IntOrString", "RawExtension", "FieldsV1", "JSON"];
    let short = name.rsplit('.').next().unwrap_or_default();
    !scalars.contains(&short) && !short.starts_with("JSONSchemaPropsOr")
}

fn definition(name: &str, mut definition: Value, format: Format) -> Value {
    let mut description = definition.get_mut("description").map(Value::take);
    if name.ends_with("meta.v1.WatchEvent")
        && let Some(Value::String(text)) = &mut description
        && let Some(at) = text.find("\n\nObject is:")
    {
        // `k8s-openapi` has the field's description with the type's.
        definition["properties"]["object"]["description"] = text.split_off(at).trim().into();
    }
    let described = |mut value: Value| {
        if let Some(description) = &description {
            value["description"] = description.clone();
        }
        value
    };
    match (name.rsplit('.').next().unwrap_or_default(), format) {
        ("IntOrString", Format::V2) => return described(json!({ "type": "string", "format": "int-or-string" })),
        ("IntOrString", Format::V3) => {
            let either = json!([{ "type": "integer" }, { "type": "string" }]);
            return described(json!({ "format": "int-or-string", "oneOf": either }));
        }
        // Any JSON, and schemas with something simpler in their place: there is no type for either.
        (short, _) if short == "JSON" || short.starts_with("JSONSchemaPropsOr") => return described(json!({})),
        ("Quantity", Format::V2) => return described(json!({ "type": "string" })),
        ("Quantity", Format::V3) => return described(json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] })),
        _ => {}
    }
    let known = schema::builtin(name);
    fix_required(name, known, &mut definition);
    if let Some(Value::Object(properties)) = definition.get_mut("properties") {
        for (key, property) in properties {
            let field = known.and_then(|schema| schema.field(key));
            let mut value = field_schema(property.take(), known, field, format);
            if format == Format::V3
                && let Some(default) = special::default(name, key)
            {
                value["default"] = default;
            }
            if let Some(values) = special::values(name, key) {
                let below = ["items", "additionalProperties"].into_iter().find(|below| value[below].is_object());
                match below {
                    Some(below) => value[below]["enum"] = values,
                    None => value["enum"] = values,
                }
            }
            if special::is_atomic(name, key) {
                value["x-kubernetes-list-type"] = "atomic".into();
            }
            if special::is_granular(name, key) {
                value["x-kubernetes-map-type"] = "granular".into();
            }
            *property = value;
        }
    }
    let mut definition = described(definition);
    if known.is_some_and(|schema| schema.atomic) {
        definition["x-kubernetes-map-type"] = "atomic".into();
    }
    if let Some(union) = special::union(name) {
        definition["x-kubernetes-unions"] = json!([union]);
    }
    definition
}

/// `k8s-openapi` requires what its types always hold; upstream, what a request must.
fn fix_required(name: &str, known: Option<&Schema>, definition: &mut Value) {
    let Some(definition) = definition.as_object_mut() else { return };
    let mut required = match definition.remove("required") {
        Some(Value::Array(required)) => required,
        _ => Vec::new(),
    };
    let is_reference = |schema: &Schema| {
        schema.short_name() == "LocalObjectReference" || schema.inline.iter().any(|f| f.name == "localObjectReference")
    };
    required.retain(|key| match key.as_str() {
        Some("metadata") => name.ends_with("core.v1.Event"),
        Some("name") => !known.is_some_and(is_reference),
        _ => true,
    });
    match name {
        "io.k8s.api.core.v1.Event" => required.sort_by_key(|key| key != "metadata"),
        "io.k8s.api.events.v1.Event" => required.push("eventTime".into()),
        _ => {}
    }
    if !required.is_empty() {
        definition.insert("required".into(), required.into());
    }
}

fn field_schema(property: Value, owner: Option<&Schema>, field: Option<&Field>, format: Format) -> Value {
    let inline_default = field.is_some_and(|f| f.drop_empty || f.required && matches!(f.ty, Type::Struct(_)));
    let mut out = convert(property, inline_default, format);
    if let (Some(field), Value::Object(out)) = (field, &mut out) {
        if field.required && !field.pointer && owner.is_some() && format == Format::V3 {
            let default: Option<Value> = match field.ty {
                Type::String => Some("".into()),
                Type::Bool => Some(false.into()),
                Type::Int32 | Type::Int64 => Some(0.into()),
                _ => None,
            };
            if let Some(default) = default {
                out.insert("default".into(), default);
            }
        }
        if let Some(merge) = &field.merge {
            annotate(out, merge, &field.ty);
        }
    }
    out
}

/// References in the format's own form, also inside arrays and maps.
fn convert(mut value: Value, default: bool, format: Format) -> Value {
    if let Some(name) = value.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
        let description = value.get("description").cloned();
        return reference(name, description, default, format);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = value.get_mut(key).filter(|inner| inner.is_object()) {
            let mut converted = convert(inner.take(), true, format);
            if format == Format::V3 {
                let zero: Option<Value> = match converted.get("type").and_then(Value::as_str) {
                    Some("string") if converted.get("format").is_none() => Some("".into()),
                    Some("integer" | "number") => Some(0.into()),
                    Some("boolean") => Some(false.into()),
                    _ => None,
                };
                if let Some(zero) = zero {
                    converted["default"] = zero;
                }
            }
            *inner = converted;
        }
    }
    value
}

fn annotate(out: &mut Map<String, Value>, merge: &Merge, ty: &Type) {
    let mut strategies = Vec::new();
    if merge.patch_merge {
        strategies.push("merge");
    }
    if merge.patch_replace {
        strategies.push("replace");
    }
    if merge.retain_keys {
        strategies.push("retainKeys");
    }
    if !strategies.is_empty() {
        out.insert("x-kubernetes-patch-strategy".into(), strategies.join(",").into());
    }
    if !merge.patch_key.is_empty() {
        out.insert("x-kubernetes-patch-merge-key".into(), merge.patch_key.as_ref().into());
    }
    let list_type = match (merge.list_type, ty) {
        (ListType::Unset, _) => return,
        (ListType::Atomic, Type::List(_)) => "atomic",
        (ListType::Atomic, _) => {
            out.insert("x-kubernetes-map-type".into(), "atomic".into());
            return;
        }
        (ListType::Set, _) => "set",
        (ListType::Map, _) => "map",
    };
    out.insert("x-kubernetes-list-type".into(), list_type.into());
    if !merge.list_map_keys.is_empty() {
        out.insert("x-kubernetes-list-map-keys".into(), json!(merge.list_map_keys));
    }
}
