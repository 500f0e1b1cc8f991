//! Declarations from OpenAPI schemas (of CRDs), with the sizes that the schema allows or a request can hold.

mod builtin;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use builtin::declare_builtin;
use keelson_api::validation::names::RESERVED_IN_EXPRESSIONS;
use serde_json::Value as Json;

use crate::limits::REQUEST_BYTES;
use crate::types::{Decl, Field, Format, ListKind, Object, Type};

/// Longest and shortest JSON of values with a format.
const MAX_DURATION: u64 = 32;
const DATE_TIME: u64 = 32;
const DATE: u64 = 12;
const MIN_DATE_TIME: u64 = 21;
const MIN_DURATION: u64 = 3;
/// `""`
const MIN_STRING: u64 = 2;

/// What a schema node declares; `None` for what expressions cannot see (no type, unknown fields only). Fields that
/// cannot be seen are left out of objects. `root` is the root of a resource, where `apiVersion`, `kind`, `metadata.name`
/// and `metadata.generateName` are always there; `name` names its type.
pub fn declare(schema: &Json, root: bool, name: &str) -> Option<Arc<Decl>> {
    decl(schema, root, name).map(Arc::new)
}

/// The name by which expressions know a field: `a-b` is `a__dash__b`. `None` for names that have none.
pub fn escape(name: &str) -> Option<String> {
    if RESERVED_IN_EXPRESSIONS.contains(&name) {
        return Some(format!("__{name}__"));
    }
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

fn flag(schema: &Json, name: &str) -> bool {
    schema.get(name).and_then(Json::as_bool).unwrap_or(false)
}

/// A limit; negative ones count as zero.
fn limit(schema: &Json, name: &str) -> Option<u64> {
    let value = schema.get(name)?;
    value.as_u64().or_else(|| value.as_i64().map(|_| 0)).or_else(|| value.as_f64().map(|value| value.max(0.0) as u64))
}

fn decl(schema: &Json, root: bool, name: &str) -> Option<Decl> {
    if flag(schema, "x-kubernetes-int-or-string") {
        let most = limit(schema, "maxLength").map_or(REQUEST_BYTES - 2, |most| most.saturating_mul(4));
        return Some(Decl::sized(Type::Dyn, most, 1));
    }
    match schema.get("type").and_then(Json::as_str)? {
        "array" => {
            let items_schema = schema.get("items")?;
            let items =
                decl(items_schema, flag(items_schema, "x-kubernetes-embedded-resource"), &format!("{name}.@idx"))?;
            let most = limit(schema, "maxItems").unwrap_or((REQUEST_BYTES - 2) / (items.min_size + 1));
            let mut list = Decl::sized(Type::list(items.ty.clone()), most, 2);
            list.items = Some(Arc::new(items));
            list.list = list_kind(schema);
            Some(list)
        }
        "object" => object(schema, root, name),
        "string" => Some(string(schema)),
        "boolean" => Some(Decl::sized(Type::Bool, 0, 4)),
        "number" => Some(Decl::sized(Type::Double, 0, 1)),
        "integer" => Some(Decl::sized(Type::Int, 0, 1)),
        _ => None,
    }
}

fn list_kind(schema: &Json) -> ListKind {
    match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
            ListKind::Map(keys.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect())
        }
        _ => ListKind::Atomic,
    }
}

fn object(schema: &Json, root: bool, name: &str) -> Option<Decl> {
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        let items = decl(values, flag(values, "x-kubernetes-embedded-resource"), &format!("{name}.@elem"))?;
        let most = limit(schema, "maxProperties").unwrap_or((REQUEST_BYTES - 2) / (items.min_size + 6));
        let mut map = Decl::sized(Type::map(Type::String, items.ty.clone()), most, 2);
        map.items = Some(Arc::new(items));
        return Some(map);
    }
    let required: Vec<&str> =
        schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    let mut fields = BTreeMap::new();
    let mut least = 2;
    let mut add = |key: &str, decl: Decl, defaulted: bool| {
        if required.contains(&key) && !defaulted {
            least += key.len() as u64 + decl.min_size + 4;
        }
        if let Some(name) = escape(key) {
            fields.insert(name, Field { key: key.to_owned(), decl: Arc::new(decl) });
        }
    };
    for (key, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
        if root && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let path = format!("{name}.{}", escape(key).unwrap_or_else(|| key.clone()));
        if let Some(found) = decl(property, flag(property, "x-kubernetes-embedded-resource"), &path) {
            add(key, found, property.get("default").is_some());
        }
    }
    if root {
        for key in ["apiVersion", "kind"] {
            add(key, text(), false);
        }
        add("metadata", metadata(name), false);
    }
    let object = Object { name: name.to_owned(), fields };
    Some(Decl::sized(Type::Object(Arc::new(object)), 0, least))
}

fn text() -> Decl {
    Decl::sized(Type::String, REQUEST_BYTES - 2, MIN_STRING)
}

fn metadata(name: &str) -> Decl {
    let fields = ["name", "generateName"]
        .into_iter()
        .map(|key| (key.to_owned(), Field { key: key.to_owned(), decl: Arc::new(text()) }))
        .collect();
    Decl::sized(Type::Object(Arc::new(Object { name: format!("{name}.metadata"), fields })), 0, 2)
}

fn string(schema: &Json) -> Decl {
    let most = limit(schema, "maxLength");
    let mut decl = match schema.get("format").and_then(Json::as_str) {
        Some("byte") => return Decl::sized(Type::Bytes, most.unwrap_or(REQUEST_BYTES - 2), MIN_STRING),
        Some("duration") => return Decl::sized(Type::Duration, MAX_DURATION, MIN_DURATION),
        Some("date") => {
            let decl = Decl::sized(Type::Timestamp, DATE, DATE);
            return Decl { format: Format::Date, ..decl };
        }
        Some("date-time") => {
            let decl = Decl::sized(Type::Timestamp, DATE_TIME, MIN_DATE_TIME);
            return Decl { format: Format::DateTime, ..decl };
        }
        _ => text(),
    };
    if let Some(most) = most {
        // Characters may take four bytes.
        decl.max_elements = most.saturating_mul(4);
    } else if let Some(values) = schema.get("enum").and_then(Json::as_array).filter(|values| !values.is_empty()) {
        decl.max_elements = values.iter().filter_map(Json::as_str).map(str::len).max().unwrap_or_default() as u64;
    }
    decl
}
