//! JSON to messages. Objects must conform to their schema; what does not is an error, never a wrong message.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use super::Error;
use super::wire::{put_bytes, put_nested, put_tag, put_varint};
use crate::schema::{Instead, Schema, Type};

const VARINT: u8 = 0;
const FIXED64: u8 = 1;

/// Appends the message for `object`.
pub(super) fn message(object: &Value, schema: &Schema, out: &mut Vec<u8>) -> Result<(), Error> {
    match object {
        Value::Object(map) => fields(map, schema, out),
        Value::Null => Ok(()),
        other => Err(wrong(other, schema.short_name())),
    }
}

fn fields(map: &Map<String, Value>, schema: &Schema, out: &mut Vec<u8>) -> Result<(), Error> {
    for (key, value) in map {
        let Ok(at) = schema.fields.binary_search_by(|f| f.name.as_ref().cmp(key)) else { continue };
        let Some(field) = schema.fields.get(at).filter(|f| f.tag != 0) else { continue };
        put(field.tag, &field.ty, value, key, out)?;
    }
    for inline in &schema.inline {
        if let Type::Struct(link) = &inline.ty
            && map.keys().any(|key| link.field(key).is_some())
        {
            put_nested(out, inline.tag, |out| fields(map, link, out))?;
        }
    }
    Ok(())
}

fn put(tag: u32, ty: &Type, value: &Value, name: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    match (ty, value) {
        (_, Value::Null) => {}
        (Type::Bool, Value::Bool(yes)) => put_number(out, tag, u64::from(*yes)),
        (Type::Int32 | Type::Int64, Value::Number(n)) => {
            let number = n.as_i64().ok_or_else(|| wrong(value, name))?;
            put_number(out, tag, number.cast_unsigned());
        }
        (Type::Double, Value::Number(n)) => {
            let number = n.as_f64().ok_or_else(|| wrong(value, name))?;
            put_tag(out, tag, FIXED64);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        (Type::String | Type::Duration, Value::String(text)) => put_bytes(out, tag, text.as_bytes()),
        (Type::Bytes, Value::String(text)) => {
            let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
            let bytes = BASE64_STANDARD.decode(text).map_err(|e| Error(format!("{name}: {e}")))?;
            put_bytes(out, tag, &bytes);
        }
        (Type::Quantity, Value::String(text)) => {
            put_nested(out, tag, |out| {
                put_bytes(out, 1, text.as_bytes());
                Ok::<_, Error>(())
            })?;
        }
        (Type::Time | Type::MicroTime, Value::String(text)) => {
            let time: jiff::Timestamp = text.parse().map_err(|e| Error(format!("{name}: {e}")))?;
            put_nested(out, tag, |out| {
                put_number(out, 1, time.as_second().cast_unsigned());
                put_number(out, 2, i64::from(time.subsec_nanosecond()).cast_unsigned());
                Ok::<_, Error>(())
            })?;
        }
        (Type::IntOrString, Value::Number(n)) => {
            let number = n.as_i64().ok_or_else(|| wrong(value, name))?;
            put_nested(out, tag, |out| {
                put_number(out, 1, 0);
                put_number(out, 2, number.cast_unsigned());
                put_bytes(out, 3, b"");
                Ok::<_, Error>(())
            })?;
        }
        (Type::IntOrString, Value::String(text)) => {
            put_nested(out, tag, |out| {
                put_number(out, 1, 1);
                put_number(out, 2, 0);
                put_bytes(out, 3, text.as_bytes());
                Ok::<_, Error>(())
            })?;
        }
        (Type::Any | Type::Fields, value) => {
            let json = serde_json::to_vec(value).map_err(|e| Error(format!("{name}: {e}")))?;
            put_nested(out, tag, |out| {
                put_bytes(out, 1, &json);
                Ok::<_, Error>(())
            })?;
        }
        (Type::Struct(link), Value::Object(map)) => put_nested(out, tag, |out| fields(map, link, out))?,
        (Type::List(item), Value::Array(items)) => {
            for value in items {
                // An item cannot be left out: its place is its meaning.
                let zero = value.is_null().then(|| item.zero());
                put(tag, item, zero.as_ref().unwrap_or(value), name, out)?;
            }
        }
        (Type::Map(item), Value::Object(map)) => {
            for (key, value) in map {
                put_nested(out, tag, |out| {
                    put_bytes(out, 1, key.as_bytes());
                    put(2, item, value, name, out)
                })?;
            }
        }
        (Type::Wrapped(inner), value) => put_nested(out, tag, |out| put(1, inner, value, name, out))?,
        (Type::Or(item, instead), value) => put_nested(out, tag, |out| match (instead, value) {
            (Instead::Bool, Value::Bool(_)) => put(1, &Type::Bool, value, name, out),
            (Instead::Bool, _) => {
                put_number(out, 1, 1);
                put(2, item, value, name, out)
            }
            (Instead::List, Value::Array(items)) => items.iter().try_for_each(|value| put(2, item, value, name, out)),
            (Instead::Strings, Value::Array(items)) => {
                items.iter().try_for_each(|value| put(2, &Type::String, value, name, out))
            }
            _ => put(1, item, value, name, out),
        })?,
        (_, other) => return Err(wrong(other, name)),
    }
    Ok(())
}

fn put_number(out: &mut Vec<u8>, tag: u32, number: u64) {
    put_tag(out, tag, VARINT);
    put_varint(out, number);
}

fn wrong(value: &Value, name: &str) -> Error {
    Error(format!("{name}: {} has no protobuf form here", crate::schema::json_type(value)))
}
