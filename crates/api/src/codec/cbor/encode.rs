//! `Value` to CBOR.

use std::ops::Range;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Number, Value};

use super::super::MAX_DEPTH;
use super::{Error, put_array_head, put_head, put_map_head, put_text};
use crate::schema::{Schema, Type};

/// Tag of a byte string that is base64 in formats that have no byte strings.
const EXPECT_BASE64: u64 = 22;

pub(super) fn document(value: &Value, schema: Option<&Schema>, out: &mut Vec<u8>) -> Result<(), Error> {
    match (value, schema) {
        (Value::Object(map), Some(schema)) => object(map, Some(schema), 0, out),
        _ => put(value, None, 0, out),
    }
}

fn object(map: &Map<String, Value>, schema: Option<&Schema>, depth: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    put_map_head(out, map.len());
    fields(map, schema, depth, out, |_, _| {})
}

/// Appends keys and values, sorted as their encodings sort: shorter keys first. Tells where each landed.
pub(super) fn fields(
    map: &Map<String, Value>,
    schema: Option<&Schema>,
    depth: usize,
    out: &mut Vec<u8>,
    mut wrote: impl FnMut(&str, Range<usize>),
) -> Result<(), Error> {
    for (key, value) in sorted(map) {
        let start = out.len();
        put_text(out, key);
        let ty = schema.and_then(|schema| schema.field(key)).map(|field| &field.ty);
        put(value, ty, depth + 1, out).map_err(|e| Error(format!("{key}: {e}")))?;
        wrote(key, start..out.len());
    }
    Ok(())
}

fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    entries
}

fn put(value: &Value, ty: Option<&Type>, depth: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error("exceeded max depth".into()));
    }
    match (value, ty) {
        (_, Some(Type::Wrapped(inner))) => put(value, Some(inner), depth, out)?,
        (Value::Null, _) => out.push(0xf6),
        (Value::Bool(yes), _) => out.push(if *yes { 0xf5 } else { 0xf4 }),
        (Value::Number(n), ty) => number(n, matches!(ty, Some(Type::Double)), out)?,
        (Value::String(text), Some(Type::Bytes)) => {
            let bytes = match BASE64_STANDARD.decode(text) {
                Ok(bytes) => bytes,
                // As Go does, line ends are skipped.
                Err(_) => {
                    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
                    BASE64_STANDARD.decode(text).map_err(|e| Error(e.to_string()))?
                }
            };
            put_head(out, 6, EXPECT_BASE64);
            put_head(out, 2, bytes.len() as u64);
            out.extend_from_slice(&bytes);
        }
        (Value::String(text), _) => put_text(out, text),
        (Value::Array(items), ty) => {
            let item = match ty {
                Some(Type::List(item)) => Some(&**item),
                _ => None,
            };
            put_array_head(out, items.len());
            for value in items {
                put(value, item, depth + 1, out)?;
            }
        }
        (Value::Object(map), Some(Type::Struct(link))) => object(map, Some(link), depth, out)?,
        (Value::Object(map), Some(Type::Map(item))) => {
            put_map_head(out, map.len());
            for (key, value) in sorted(map) {
                put_text(out, key);
                put(value, Some(item), depth + 1, out).map_err(|e| Error(format!("{key}: {e}")))?;
            }
        }
        (Value::Object(map), _) => object(map, None, depth, out)?,
    }
    Ok(())
}

/// Integers beyond 64 bits with a sign are floats, as they are for Go.
fn number(n: &Number, double: bool, out: &mut Vec<u8>) -> Result<(), Error> {
    match n.as_i64() {
        Some(n) if !double => match u64::try_from(n) {
            Ok(n) => put_head(out, 0, n),
            Err(_) => put_head(out, 1, !n.cast_unsigned()),
        },
        _ => float(n.as_f64().ok_or_else(|| Error(format!("number {n} has no CBOR form here")))?, out),
    }
    Ok(())
}

/// The shortest form that keeps the value.
fn float(value: f64, out: &mut Vec<u8>) {
    let single = value as f32;
    if f64::from(single) != value {
        out.push(0xfb);
        out.extend_from_slice(&value.to_be_bytes());
        return;
    }
    let mut half = Vec::with_capacity(3);
    let fits = minicbor::Encoder::new(&mut half).f16(single).is_ok()
        && minicbor::Decoder::new(&half).f16().is_ok_and(|back| back == single);
    if fits {
        out.extend_from_slice(&half);
    } else {
        out.push(0xfa);
        out.extend_from_slice(&single.to_be_bytes());
    }
}
