//! Path elements as `FieldsV1` spells them: `f:` and a field's name, `k:` and the keys of an item of a list map, `v:` and an
//! item of a set, `i:` and an index.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::schema::{Merge, Schema, Type};

/// A field of a struct or a key of a map.
pub(super) fn field(name: &str) -> String {
    let mut key = String::with_capacity(2 + name.len());
    key.push_str("f:");
    key.push_str(name);
    key
}

/// The name of a field, if the element is one.
pub(super) fn field_name(element: &str) -> Option<&str> {
    element.strip_prefix("f:")
}

/// An item of a set; an error for what is no scalar.
pub(super) fn value(item: &Value) -> Result<String, String> {
    match item {
        Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
        Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
        scalar => {
            let mut element = String::from("v:");
            write_json(scalar, &mut element);
            Ok(element)
        }
    }
}

/// An item of a list map, by its keys. A key that is absent has its default; an error when there is none.
pub(super) fn key(item: &Value, schema: &Schema, merge: &Merge) -> Result<String, String> {
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut keys: Vec<(&str, Cow<'_, Value>)> = Vec::with_capacity(merge.list_map_keys.len());
    for name in &merge.list_map_keys {
        let value = match map.get(name.as_ref()) {
            Some(value) => Cow::Borrowed(value),
            None => Cow::Owned(default(name, schema, merge).ok_or_else(|| {
                format!("associative list with keys has an element that omits key field {name:?} (and doesn't have default value)")
            })?),
        };
        keys.push((name, value));
    }
    keys.sort_unstable_by_key(|(name, _)| *name);
    let mut key = String::with_capacity(48);
    key.push_str("k:{");
    for (i, (name, value)) in keys.iter().enumerate() {
        key.push_str(if i == 0 { "\"" } else { ",\"" });
        key.push_str(name);
        key.push_str("\":");
        write_json(value, &mut key);
    }
    key.push('}');
    Ok(key)
}

fn write_json(value: &Value, out: &mut String) {
    match value {
        // As almost all of them are: nothing to escape.
        Value::String(text) if text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') => {
            out.push('"');
            out.push_str(text);
            out.push('"');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn default(name: &str, schema: &Schema, merge: &Merge) -> Option<Value> {
    if let Some((_, value)) = merge.key_defaults.iter().find(|(key, _)| key == name) {
        return Some(value.clone());
    }
    // Go's zero value is what a field that is always written stands for. Types of CRDs have no such fields.
    let field = schema.field(name).filter(|field| field.required && !field.pointer && !schema.name.is_empty())?;
    matches!(field.ty, Type::String | Type::Int32 | Type::Int64 | Type::Bool).then(|| field.ty.zero())
}

/// One spelling for an element that a client wrote; `None` for kinds that are not known.
pub(super) fn normalize(element: &str) -> Result<Option<String>, String> {
    let Some((kind, rest)) = element.split_at_checked(2) else {
        return Err("key must be 2 characters long:".into());
    };
    if !kind.ends_with(':') {
        return Err(format!("missing colon: {element}"));
    }
    let json = || serde_json::from_str::<Value>(rest).map_err(|e| format!("{element}: {e}"));
    Ok(match kind {
        "f:" => Some(element.to_owned()),
        "v:" => Some(format!("v:{}", json()?)),
        "k:" => match json()? {
            Value::Object(keys) => Some(format!("k:{}", Value::Object(keys))),
            _ => return Err(format!("{element}: keys are an object")),
        },
        "i:" => Some(format!("i:{}", rest.parse::<i64>().map_err(|e| format!("{element}: {e}"))?)),
        _ => None,
    })
}

/// An element as messages show it: `.name`, `[name="a"]`, `[="a"]`, `[0]`.
pub(super) fn show(element: &str) -> String {
    match element.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("i:", index)) => format!("[{index}]"),
        Some(("k:", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let shown: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", shown.join(","))
        }
        _ => element.to_owned(),
    }
}
