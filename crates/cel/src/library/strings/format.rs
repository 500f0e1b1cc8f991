//! `format`: `%s %d %f %e %b %x %X %o %%`.

use std::fmt::Write;

use crate::budget::Budget;
use crate::error::Error;
use crate::library::{Args, no_overload, time};
use crate::value::{List, Map, Value};

/// The most decimals of `%f` and `%e`.
const PRECISION: usize = 100;

pub(in crate::library) fn format<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    let [Value::String(pattern), Value::List(values)] = args else { return no_overload() };
    let mut out = String::new();
    let mut next = 0;
    let mut rest = pattern.as_str().chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if rest.peek() == Some(&'%') {
            rest.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if rest.peek() == Some(&'.') {
            rest.next();
            let mut digits = String::new();
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let wanted: usize = digits.parse().map_err(|_| Error::new("error while parsing precision"))?;
            if wanted > PRECISION {
                return Err(Error::new(format!("precision {wanted} exceeds the limit of {PRECISION}")));
            }
            precision = Some(wanted);
        }
        let verb = rest.next().ok_or_else(|| Error::new("unexpected end of string"))?;
        let value = values.get(next).ok_or_else(|| Error::new(format!("index {next} out of range")))??;
        next += 1;
        clause(&mut out, verb, precision, &value, budget)?;
        budget.fits(out.len() as u64)?;
    }
    Ok(Value::text(out))
}

fn clause(
    out: &mut String,
    verb: char,
    precision: Option<usize>,
    value: &Value<'_>,
    budget: &Budget,
) -> Result<(), Error> {
    let wrong = |what: &str| {
        let found = value.ty().runtime_name();
        Err(Error::new(format!("error during formatting: {what} clause cannot be used on {found}")))
    };
    let number = |value: &Value<'_>| match value {
        Value::Double(value) => Some(*value),
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    };
    let written = match (verb, value) {
        ('s', _) => {
            shown(out, value, 0, budget)?;
            return Ok(());
        }
        ('d', Value::Int(value)) => write!(out, "{value}"),
        ('d', Value::Uint(value)) => write!(out, "{value}"),
        ('d', Value::Double(value)) if !value.is_finite() => write!(out, "{}", special(*value)),
        ('d', _) => return wrong("decimal"),
        ('f', _) => match number(value) {
            Some(value) if !value.is_finite() => write!(out, "{}", special(value)),
            Some(value) => write!(out, "{value:.*}", precision.unwrap_or(6)),
            None => return wrong("fixed-point"),
        },
        ('e', _) => match number(value) {
            Some(value) if !value.is_finite() => write!(out, "{}", special(value)),
            Some(value) => {
                let text = format!("{value:.*e}", precision.unwrap_or(6));
                let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let exponent: i32 = exponent.parse().unwrap_or_default();
                let digits: String = format!("{:02}", exponent.abs()).chars().map(superscript).collect();
                write!(out, "{mantissa} × 10{}{digits}", if exponent < 0 { "⁻" } else { "" })
            }
            None => return wrong("scientific"),
        },
        ('b', Value::Bool(value)) => write!(out, "{}", i32::from(*value)),
        ('b', Value::Int(value)) => signed(out, *value, |magnitude| format!("{magnitude:b}")),
        ('b', Value::Uint(value)) => write!(out, "{value:b}"),
        ('b', _) => return wrong("binary"),
        ('o', Value::Int(value)) => signed(out, *value, |magnitude| format!("{magnitude:o}")),
        ('o', Value::Uint(value)) => write!(out, "{value:o}"),
        ('o', _) => return wrong("octal"),
        ('x' | 'X', _) => {
            let text = match value {
                Value::Int(value) => {
                    format!("{}{:x}", if *value < 0 { "-" } else { "" }, value.unsigned_abs())
                }
                Value::Uint(value) => format!("{value:x}"),
                Value::String(text) => hex(text.as_str().as_bytes()),
                Value::Bytes(bytes) => hex(bytes),
                _ => return wrong("hex"),
            };
            out.push_str(&if verb == 'X' { text.to_ascii_uppercase() } else { text });
            Ok(())
        }
        _ => {
            return Err(Error::new(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{verb}\""
            )));
        }
    };
    written.map_err(|_| Error::new("formatting failed"))
}

fn signed(out: &mut String, value: i64, digits: fn(u64) -> String) -> std::fmt::Result {
    write!(out, "{}{}", if value < 0 { "-" } else { "" }, digits(value.unsigned_abs()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn special(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

fn superscript(digit: char) -> char {
    "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(digit.to_digit(10).unwrap_or_default() as usize).unwrap_or(digit)
}

/// `%s`
fn shown(out: &mut String, value: &Value<'_>, depth: usize, budget: &Budget) -> Result<(), Error> {
    if depth > 50 {
        return Err(Error::CostLimit);
    }
    budget.fits(out.len() as u64)?;
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Uint(value) => out.push_str(&value.to_string()),
        Value::Double(value) if !value.is_finite() => out.push_str(special(*value)),
        Value::Double(value) => out.push_str(&value.to_string()),
        Value::String(text) => out.push_str(text.as_str()),
        Value::Bytes(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Value::Duration(nanos) => out.push_str(&time::format_duration(*nanos)),
        Value::Timestamp(timestamp) => out.push_str(&time::format_timestamp(*timestamp)),
        Value::Type(ty) => out.push_str(&ty.runtime_name()),
        Value::List(list) => list_shown(out, list, depth, budget)?,
        Value::Map(map) => map_shown(out, map, depth, budget)?,
        Value::Opaque(opaque) => match opaque.text() {
            Some(text) => out.push_str(&text),
            None => return no_overload(),
        },
        Value::Optional(_) => {
            return Err(Error::new(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, \
                 lists, types, durations, and timestamps, was given optional_type",
            ));
        }
    }
    Ok(())
}

fn list_shown(out: &mut String, list: &List<'_>, depth: usize, budget: &Budget) -> Result<(), Error> {
    out.push('[');
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        shown(out, &item?, depth + 1, budget)?;
    }
    out.push(']');
    Ok(())
}

fn map_shown(out: &mut String, map: &Map<'_>, depth: usize, budget: &Budget) -> Result<(), Error> {
    out.push('{');
    let mut keys = map.keys();
    keys.sort();
    for (index, key) in keys.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        shown(out, &key.value(), depth + 1, budget)?;
        out.push_str(": ");
        if let Some(value) = map.entry(key) {
            shown(out, &value?, depth + 1, budget)?;
        }
    }
    out.push('}');
    Ok(())
}
