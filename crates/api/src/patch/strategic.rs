//! Strategic merge patch: maps are merged, lists are merged by the keys that the schema names, and directives
//! (`$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…`, `$setElementOrder/…`) say the rest. Lists keep upstream's order.

mod list;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::schema::{Merge, Schema, Type};
use crate::status::Status;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Merges `patch` into `object`.
pub(super) fn apply(object: &mut Value, patch: &Value, schema: &Schema) -> Result<(), Status> {
    let (Value::Object(original), Value::Object(patch)) = (object, patch) else {
        return Err(Status::bad_request("strategic merge patch format is not supported"));
    };
    merge_map(original, patch, Level::Struct(schema))
}

/// The type of the map that is being merged.
#[derive(Clone, Copy)]
enum Level<'a> {
    Struct(&'a Schema),
    MapOf(&'a Type),
    /// Any JSON: nothing below has merge keys.
    Unknown,
}

impl<'a> Level<'a> {
    fn of(ty: &'a Type) -> Self {
        match ty {
            Type::Struct(link) => Self::Struct(link),
            Type::Map(item) => Self::MapOf(item),
            Type::List(item) | Type::Wrapped(item) => Self::of(item),
            _ => Self::Unknown,
        }
    }

    /// What lies under `key` (for a list, the type of its items), and how it is merged.
    fn below(self, key: &str) -> (Self, Option<&'a Merge>) {
        match self {
            Self::Struct(schema) => match schema.field(key) {
                Some(field) => (Self::of(&field.ty), field.merge.as_deref()),
                None => (Self::Unknown, None),
            },
            Self::MapOf(item) => (Self::of(item), None),
            Self::Unknown => (Self::Unknown, None),
        }
    }
}

fn merge_map(original: &mut Map<String, Value>, patch: &Map<String, Value>, level: Level<'_>) -> Result<(), Status> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => {
            *original = patch.clone();
            original.remove(DIRECTIVE);
            return Ok(());
        }
        Some(Value::String(directive)) if directive == "delete" => {
            original.clear();
            return Ok(());
        }
        Some(other) => return Err(bad_directive(other, patch)),
    }
    retain_keys(original, patch)?;
    let ordered = list::merge_ordered(original, patch, level)?;
    for (key, value) in patch {
        if key == RETAIN_KEYS || key.starts_with(ELEMENT_ORDER) || ordered.contains(&key.as_str()) {
            continue;
        }
        let (key, is_delete_list) = match key.strip_prefix(DELETE_FROM) {
            Some(key) => (key, true),
            None => (key.as_str(), false),
        };
        merge_field(original, key, value, is_delete_list, level)?;
    }
    Ok(())
}

fn merge_field(
    original: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    is_delete_list: bool,
    level: Level<'_>,
) -> Result<(), Status> {
    if value.is_null() {
        original.remove(key);
        return Ok(());
    }
    let (below, merge) = level.below(key);
    match (original.get_mut(key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            if merge.is_some_and(|m| m.patch_replace) {
                *old = new.clone();
                return Ok(());
            }
            merge_map(old, new, below)
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            *old = list::merge(std::mem::take(old), new, below, merge, is_delete_list)?;
            Ok(())
        }
        (Some(Value::Bool(_)), Value::Bool(_))
        | (Some(Value::Number(_)), Value::Number(_))
        | (Some(Value::String(_)), Value::String(_)) => {
            original.insert(key.to_owned(), value.clone());
            Ok(())
        }
        _ if is_delete_list => Ok(()),
        _ => {
            match without_directives(value) {
                Some(value) => original.insert(key.to_owned(), value),
                None => original.remove(key),
            };
            Ok(())
        }
    }
}

/// Drops what `$retainKeys` does not list.
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), Status> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let bad = || Status::bad_request("invalid patch format of retainKeys");
    let keys = keys.as_array().ok_or_else(bad)?;
    let listed = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    for (key, value) in patch {
        let directive = key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(ELEMENT_ORDER);
        if !value.is_null() && !directive && !listed(key) {
            return Err(bad());
        }
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

/// A value of the patch that meets nothing in the object: its nulls and directives mean nothing there. `None` for a map
/// that says it is to be deleted.
fn without_directives(value: &Value) -> Option<Value> {
    match value {
        Value::Object(map) => {
            if map.get(DIRECTIVE).is_some_and(|d| d == "delete") {
                return None;
            }
            let is_directive = |key: &str| {
                key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(ELEMENT_ORDER) || key.starts_with(DELETE_FROM)
            };
            let kept = map.iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
            Some(kept.filter_map(|(key, value)| Some((key.clone(), without_directives(value)?))).collect())
        }
        Value::Array(items) => {
            let is_marker =
                |item: &Value| item.get(DIRECTIVE).is_some() && item.as_object().is_some_and(|m| m.len() == 1);
            Some(items.iter().filter(|item| !is_marker(item)).filter_map(without_directives).collect())
        }
        other => Some(other.clone()),
    }
}

fn bad_directive(directive: &Value, patch: &Map<String, Value>) -> Status {
    let directive = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    failed(format!("unknown patch type: {directive} in map: {}", show(patch)))
}

/// Errors that upstream does not map to a status of their own.
fn failed(message: String) -> Status {
    Status::new(500, "", message)
}

/// A map as Go's `%v` prints it.
fn show(map: &Map<String, Value>) -> String {
    let items: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", show_value(value))).collect();
    format!("map[{}]", items.join(" "))
}

pub(crate) fn show_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Object(map) => show(map),
        Value::Array(items) => format!("[{}]", items.iter().map(show_value).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

/// A decode error as upstream says it here, where it goes from map to struct without a decoder.
pub(super) fn cannot_restore(why: &str) -> String {
    let parts = why.strip_prefix("json: cannot unmarshal ").and_then(|why| why.split_once(" into Go "));
    let Some((found, wanted)) = parts.and_then(|(found, rest)| Some((found, rest.rsplit_once(" of type ")?.1))) else {
        return why.to_owned();
    };
    let kind = match found.split(' ').next().unwrap_or_default() {
        "array" => "slice",
        "object" => "map",
        "number" => "int64",
        other => other,
    };
    match wanted {
        wanted if wanted.starts_with("[]") => format!("cannot restore slice from {kind}"),
        wanted if wanted.starts_with("map[") => format!("cannot restore map from {kind}"),
        wanted if wanted.contains('.') => format!("cannot restore struct from: {kind}"),
        wanted => format!("unrecognized type: {wanted}"),
    }
}
