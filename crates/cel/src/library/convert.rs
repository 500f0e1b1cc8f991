//! Conversions between types.

use std::sync::Arc;

use super::{Args, go, no_overload, time};
use crate::error::Error;
use crate::value::Value;

pub(super) fn type_of<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [value] = args else { return no_overload() };
    Ok(Value::Type(value.ty()))
}

pub(super) fn same<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [value] = args else { return no_overload() };
    Ok(value.clone())
}

fn type_error(from: &str, to: &str) -> Error {
    Error::new(format!("type conversion error from '{from}' to '{to}'"))
}

pub(super) fn to_bool<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Bool(match args {
        [Value::Bool(value)] => *value,
        [Value::String(text)] => match text.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            _ => return Err(type_error("string", "bool")),
        },
        _ => return no_overload(),
    }))
}

pub(super) fn to_bytes<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Bytes(match args {
        [Value::Bytes(bytes)] => bytes.clone(),
        [Value::String(text)] => Arc::from(text.as_str().as_bytes()),
        _ => return no_overload(),
    }))
}

pub(super) fn to_double<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Double(match args {
        [Value::Double(value)] => *value,
        [Value::Int(value)] => *value as f64,
        [Value::Uint(value)] => *value as f64,
        [Value::String(text)] => go::parse_float(text.as_str()).ok_or_else(|| type_error("string", "double"))?,
        _ => return no_overload(),
    }))
}

pub(super) fn to_int<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let overflow = || Error::new("integer overflow");
    Ok(Value::Int(match args {
        [Value::Int(value)] | [Value::Duration(value)] => *value,
        [Value::Uint(value)] => i64::try_from(*value).map_err(|_| overflow())?,
        [Value::Double(value)] if value.abs() < 9_223_372_036_854_775_807.0 => *value as i64,
        [Value::Double(_)] => return Err(overflow()),
        [Value::Timestamp(timestamp)] => timestamp.as_second(),
        [Value::String(text)] => text.as_str().parse().map_err(|_| type_error("string", "int"))?,
        _ => return no_overload(),
    }))
}

pub(super) fn to_uint<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let overflow = || Error::new("unsigned integer overflow");
    Ok(Value::Uint(match args {
        [Value::Uint(value)] => *value,
        [Value::Int(value)] => u64::try_from(*value).map_err(|_| overflow())?,
        [Value::Double(value)] if (0.0..18_446_744_073_709_551_615.0).contains(value) => *value as u64,
        [Value::Double(_)] => return Err(overflow()),
        // Unlike ours, Go's reader of unsigned numbers takes no sign.
        [Value::String(text)] if text.as_str().starts_with('+') => return Err(type_error("string", "uint")),
        [Value::String(text)] => text.as_str().parse().map_err(|_| type_error("string", "uint"))?,
        _ => return no_overload(),
    }))
}

pub(super) fn to_string<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(match args {
        [Value::String(_)] => return same(args),
        [Value::Bool(value)] => Value::text(value.to_string()),
        [Value::Int(value)] => Value::text(value.to_string()),
        [Value::Uint(value)] => Value::text(value.to_string()),
        [Value::Double(value)] => Value::text(go::format_float(*value)),
        [Value::Duration(nanos)] => Value::text(time::format_duration(*nanos)),
        [Value::Timestamp(timestamp)] => Value::text(time::format_timestamp(*timestamp)),
        [Value::Bytes(bytes)] => Value::text(
            std::str::from_utf8(bytes).map_err(|_| Error::new("invalid UTF-8 in bytes, cannot convert to string"))?,
        ),
        [Value::Opaque(opaque)] => match opaque.text() {
            Some(text) => Value::text(text),
            None => return no_overload(),
        },
        _ => return no_overload(),
    })
}
