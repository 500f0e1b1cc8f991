//! Messages to JSON.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Number, Value};

use super::super::MAX_DEPTH;
use super::Error;
use super::wire::{self, Field as Wire};
use crate::schema::{Field, Instead, Schema, Type, format_time};

/// The fields of a message; those that are unknown are skipped.
pub(super) fn message(raw: &[u8], schema: &Schema) -> Result<Map<String, Value>, Error> {
    let mut map = Map::new();
    message_into(raw, schema, &mut map, 0)?;
    Ok(map)
}

/// `depth` counts levels of the JSON, as the JSON decoder does.
fn message_into(mut raw: &[u8], schema: &Schema, map: &mut Map<String, Value>, depth: usize) -> Result<(), Error> {
    check_depth(depth)?;
    while let Some((tag, wire)) = wire::next(&mut raw)? {
        if let Some(inline) = schema.inline.iter().find(|f| f.tag == tag) {
            if let (Type::Struct(link), Wire::Bytes(raw)) = (&inline.ty, wire) {
                message_into(raw, link, map, depth)?;
            }
            continue;
        }
        let Some(field) = schema.fields.iter().find(|f| f.tag == tag) else { continue };
        put(field, wire, map, depth)?;
    }
    Ok(())
}

fn check_depth(depth: usize) -> Result<(), Error> {
    if depth >= MAX_DEPTH { Err(Error("exceeded max depth".into())) } else { Ok(()) }
}

fn put(field: &Field, wire: Wire<'_>, map: &mut Map<String, Value>, depth: usize) -> Result<(), Error> {
    match (&field.ty, wire) {
        (Type::List(item), wire) => {
            let slot = map.entry(field.name.as_ref()).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(items) = slot else { return Ok(()) };
            match (&**item, wire) {
                // Packed.
                (Type::Int32 | Type::Int64 | Type::Bool, Wire::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        let number = Wire::Varint(wire::varint(&mut packed)?);
                        items.push(value(item, number, field, depth + 1)?);
                    }
                }
                (item, wire) => items.push(value(item, wire, field, depth + 1)?),
            }
        }
        (Type::Map(item), Wire::Bytes(mut entry)) => {
            let mut key = String::new();
            let mut found = None;
            while let Some((tag, wire)) = wire::next(&mut entry)? {
                match (tag, wire) {
                    (1, Wire::Bytes(text)) => key = wire::text(text),
                    (2, wire) => found = Some(value(item, wire, field, depth + 1)?),
                    _ => {}
                }
            }
            let found = found.unwrap_or_else(|| item.zero());
            let slot = map.entry(field.name.as_ref()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = slot {
                map.insert(key, found);
            }
        }
        (ty, wire) => {
            let value = value(ty, wire, field, depth)?;
            if !value.is_null() {
                map.insert(field.name.as_ref().to_owned(), value);
            }
        }
    }
    Ok(())
}

fn value(ty: &Type, wire: Wire<'_>, field: &Field, depth: usize) -> Result<Value, Error> {
    Ok(match (ty, wire) {
        (Type::Bool, Wire::Varint(n)) => Value::Bool(n != 0),
        // Negative numbers are sign-extended to 64 bits.
        (Type::Int32, Wire::Varint(n)) => i64::from(n.cast_signed() as i32).into(),
        (Type::Int64, Wire::Varint(n)) => n.cast_signed().into(),
        (Type::Double, Wire::Fixed64(bits)) => {
            let number = Number::from_f64(f64::from_bits(bits));
            Value::Number(number.ok_or_else(|| Error(format!("{}: not a finite number", field.name)))?)
        }
        (Type::String | Type::Duration, Wire::Bytes(text)) => wire::text(text).into(),
        (Type::Bytes, Wire::Bytes(bytes)) => BASE64_STANDARD.encode(bytes).into(),
        (Type::Quantity, Wire::Bytes(raw)) => quantity(raw)?,
        (Type::Time, Wire::Bytes(raw)) => time(raw, 0)?,
        (Type::MicroTime, Wire::Bytes(raw)) => time(raw, 6)?,
        (Type::IntOrString, Wire::Bytes(raw)) => int_or_string(raw)?,
        (Type::Any | Type::Fields, Wire::Bytes(raw)) => embedded_json(raw, field, depth)?,
        (Type::Struct(link), Wire::Bytes(raw)) => {
            let mut map = Map::new();
            message_into(raw, link, &mut map, depth + 1)?;
            Value::Object(map)
        }
        (Type::Wrapped(inner), Wire::Bytes(mut raw)) => {
            let mut items = Vec::new();
            let Type::List(item) = &**inner else { return Err(wrong(field)) };
            while let Some((tag, wire)) = wire::next(&mut raw)? {
                if tag == 1 {
                    items.push(value(item, wire, field, depth + 1)?);
                }
            }
            Value::Array(items)
        }
        (Type::Or(item, instead), Wire::Bytes(raw)) => either(item, *instead, raw, field, depth)?,
        _ => return Err(wrong(field)),
    })
}

/// A struct or what stands in its place.
fn either(item: &Type, instead: Instead, mut raw: &[u8], field: &Field, depth: usize) -> Result<Value, Error> {
    let (mut allows, mut schema, mut list) = (false, None, Vec::new());
    while let Some((tag, wire)) = wire::next(&mut raw)? {
        match (instead, tag) {
            (Instead::Bool, 1) => allows = value(&Type::Bool, wire, field, depth)? == true,
            (Instead::Bool, 2) | (_, 1) => schema = Some(value(item, wire, field, depth)?),
            (Instead::List, 2) => list.push(value(item, wire, field, depth)?),
            (Instead::Strings, 2) => list.push(value(&Type::String, wire, field, depth)?),
            _ => {}
        }
    }
    Ok(match (schema, instead) {
        (Some(schema), _) => schema,
        (None, Instead::Bool) => allows.into(),
        (None, _) => list.into(),
    })
}

fn wrong(field: &Field) -> Error {
    Error(format!("proto: wrong wireType for field {}", field.name))
}

fn quantity(mut raw: &[u8]) -> Result<Value, Error> {
    let mut text = String::new();
    while let Some((tag, wire)) = wire::next(&mut raw)? {
        if let (1, Wire::Bytes(bytes)) = (tag, wire) {
            text = wire::text(bytes);
        }
    }
    Ok(if text.is_empty() { "0".into() } else { text.into() })
}

/// Null for the empty message, which is the zero time.
fn time(mut raw: &[u8], digits: u8) -> Result<Value, Error> {
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    while let Some((tag, wire)) = wire::next(&mut raw)? {
        match (tag, wire) {
            (1, Wire::Varint(n)) => seconds = n.cast_signed(),
            (2, Wire::Varint(n)) => nanos = n.cast_signed() as i32,
            _ => {}
        }
    }
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|e| Error(format!("time out of range: {e}")))?;
    Ok(format_time(time, digits).into())
}

fn int_or_string(mut raw: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    while let Some((tag, wire)) = wire::next(&mut raw)? {
        match (tag, wire) {
            (1, Wire::Varint(n)) => is_text = n == 1,
            (2, Wire::Varint(n)) => number = n.cast_signed() as i32,
            (3, Wire::Bytes(bytes)) => text = wire::text(bytes),
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// `RawExtension` and `FieldsV1` carry JSON.
fn embedded_json(mut raw: &[u8], field: &Field, depth: usize) -> Result<Value, Error> {
    let mut json: &[u8] = &[];
    while let Some((tag, wire)) = wire::next(&mut raw)? {
        if let (1, Wire::Bytes(bytes)) = (tag, wire) {
            json = bytes;
        }
    }
    if json.is_empty() {
        return Ok(Value::Null);
    }
    let decoded = super::super::json::decode_at(json, depth + 1).map_err(|e| Error(format!("{}: {e}", field.name)))?;
    Ok(decoded.value)
}
