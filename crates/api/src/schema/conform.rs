//! Decoding without types: what a Go client would see after `json.Unmarshal` into the type and `json.Marshal` again.
//! Unknown fields, nulls and zero values that `omitempty` omits go; quantities and times become canonical; a value of the
//! wrong type is an error in the words of Go's decoder.

use serde_json::{Number, Value};

use super::{Field, Instead, Schema, Type, json_type};
use crate::codec::MAX_STRICT_ERRORS;
use crate::quantity::Quantity;

/// A value that its field cannot hold. The text is that of Go's decoder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TypeError(pub String);

pub(super) fn conform(schema: &Schema, object: &mut Value) -> Result<Vec<String>, TypeError> {
    let mut run = Run { unknown: Vec::new() };
    run.object(schema, object, None)?;
    Ok(run.unknown)
}

/// Where a value is; a list from the value up to the root.
struct Place<'a> {
    outer: Option<&'a Place<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a Schema, &'a str),
    Index(usize),
    Key(&'a str),
}

struct Run {
    unknown: Vec<String>,
}

type Outer<'a> = Option<&'a Place<'a>>;

impl Run {
    fn object(&mut self, schema: &Schema, value: &mut Value, place: Outer<'_>) -> Result<(), TypeError> {
        let Value::Object(map) = value else {
            if schema.custom {
                return Ok(());
            }
            return Err(mismatch(json_type(value), &go_struct(schema), place));
        };
        let mut error = None;
        map.retain(|key, value| {
            if error.is_some() {
                return true;
            }
            let Some(field) = schema.field(key) else {
                if !schema.preserve_unknown {
                    self.unknown_field(place, key);
                }
                return schema.preserve_unknown;
            };
            if schema.custom {
                let place = Place { outer: place, step: Step::Field(schema, key) };
                if let Err(e) = self.custom(&field.ty, value, Some(&place)) {
                    error = Some(e);
                }
                return true;
            }
            if value.is_null() {
                return false;
            }
            let place = Place { outer: place, step: Step::Field(schema, key) };
            if let Err(e) = self.value(&field.ty, value, Some(&place)) {
                error = Some(e);
            }
            !omitted(field, value)
        });
        error.map_or(Ok(()), Err)
    }

    fn unknown_field(&mut self, place: Outer<'_>, key: &str) {
        if self.unknown.len() < MAX_STRICT_ERRORS {
            let mut path = String::new();
            write_path(place, &mut path);
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(key);
            self.unknown.push(format!("unknown field {path:?}"));
        }
    }

    fn value(&mut self, ty: &Type, value: &mut Value, place: Outer<'_>) -> Result<(), TypeError> {
        match ty {
            Type::Any | Type::Fields => Ok(()),
            Type::Wrapped(inner) => self.value(inner, value, place),
            Type::Struct(link) => self.object(link, value, place),
            Type::List(item) => self.list(ty, item, value, place),
            Type::Map(item) => self.map(ty, item, value, place),
            Type::Or(item, instead) => match (instead, &*value) {
                (Instead::Bool, Value::Bool(_)) => Ok(()),
                (Instead::List, Value::Array(_)) => self.list(ty, item, value, place),
                (Instead::Strings, Value::Array(_)) => self.list(ty, &Type::String, value, place),
                (_, Value::Object(_)) => self.value(item, value, place),
                (Instead::Bool, _) => Err(TypeError("boolean or JSON schema expected".into())),
                _ => Err(mismatch(json_type(value), &go_type(item), place)),
            },
            _ => scalar(ty, value, place),
        }
    }

    /// A value inside a custom resource: only unknown fields go.
    fn custom(&mut self, ty: &Type, value: &mut Value, place: Outer<'_>) -> Result<(), TypeError> {
        match (ty, value) {
            (Type::Struct(_), Value::Null) => Ok(()),
            (Type::Struct(link), value) => self.object(link, value, place),
            (Type::List(item), Value::Array(items)) => items.iter_mut().enumerate().try_for_each(|(i, value)| {
                self.custom(item, value, Some(&Place { outer: place, step: Step::Index(i) }))
            }),
            (Type::Map(item), Value::Object(map)) => map.iter_mut().try_for_each(|(key, value)| {
                self.custom(item, value, Some(&Place { outer: place, step: Step::Key(key) }))
            }),
            _ => Ok(()),
        }
    }

    fn list(&mut self, ty: &Type, item: &Type, value: &mut Value, place: Outer<'_>) -> Result<(), TypeError> {
        let Value::Array(items) = value else { return Err(mismatch(json_type(value), &go_type(ty), place)) };
        for (i, value) in items.iter_mut().enumerate() {
            if value.is_null() {
                *value = item.zero();
            }
            self.value(item, value, Some(&Place { outer: place, step: Step::Index(i) }))?;
        }
        Ok(())
    }

    fn map(&mut self, ty: &Type, item: &Type, value: &mut Value, place: Outer<'_>) -> Result<(), TypeError> {
        let Value::Object(map) = value else { return Err(mismatch(json_type(value), &go_type(ty), place)) };
        for (key, value) in map.iter_mut() {
            if value.is_null() {
                *value = item.zero();
            }
            self.value(item, value, Some(&Place { outer: place, step: Step::Key(key) }))?;
        }
        Ok(())
    }
}

/// Whether `omitempty` leaves the field out.
fn omitted(field: &Field, value: &Value) -> bool {
    if field.pointer {
        return false;
    }
    match (&field.ty, value) {
        (Type::Struct(_), Value::Object(map)) => field.drop_empty && map.is_empty(),
        (Type::IntOrString, Value::Number(n)) => field.drop_empty && n.as_i64() == Some(0),
        _ if field.required => false,
        (Type::Struct(_) | Type::Or(..) | Type::Any | Type::Fields | Type::Quantity | Type::IntOrString, _) => false,
        (_, Value::String(text)) => text.is_empty(),
        (_, Value::Bool(value)) => !value,
        (_, Value::Number(n)) => n.as_f64() == Some(0.0),
        (_, Value::Array(items)) => items.is_empty(),
        (_, Value::Object(map)) => map.is_empty(),
        (_, Value::Null) => true,
    }
}

fn scalar(ty: &Type, value: &mut Value, place: Outer<'_>) -> Result<(), TypeError> {
    let fits = match (ty, &*value) {
        (Type::Bool, Value::Bool(_)) | (Type::String | Type::Duration, Value::String(_)) => true,
        (Type::Double, Value::Number(n)) => {
            if let Some(n) = whole(n) {
                *value = n.into();
            }
            true
        }
        (Type::Int64, Value::Number(n)) if n.is_i64() => true,
        (Type::Int32 | Type::IntOrString, Value::Number(n)) if is_int32(n) => true,
        (Type::IntOrString, Value::String(_)) => true,
        (Type::Bytes, Value::String(text)) => return check_base64(text),
        (Type::Quantity, Value::String(_) | Value::Number(_)) => return quantity(value),
        (Type::Time, Value::String(text)) => return time(text, 0).map(|canonical| replace(value, canonical)),
        (Type::MicroTime, Value::String(text)) => return time(text, 6).map(|canonical| replace(value, canonical)),
        _ => false,
    };
    if fits {
        return Ok(());
    }
    match (ty, &*value) {
        (Type::Quantity, _) => quantity(value),
        (Type::Int32 | Type::Int64 | Type::IntOrString, Value::Number(n)) => {
            Err(mismatch(&format!("number {n}"), &go_type(ty), place))
        }
        (Type::Time | Type::MicroTime, _) => Err(mismatch(json_type(value), "string", place)),
        _ => Err(mismatch(json_type(value), &go_type(ty), place)),
    }
}

/// A whole number that was written as another: Go writes `1` for 1.0.
fn whole(n: &Number) -> Option<i64> {
    let number = n.as_f64().filter(|f| n.is_f64() && f.fract() == 0.0 && f.abs() < 2_f64.powi(53))?;
    Some(number as i64)
}

fn is_int32(n: &Number) -> bool {
    n.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
}

fn replace(value: &mut Value, canonical: Option<String>) {
    if let Some(canonical) = canonical {
        *value = Value::String(canonical);
    }
}

fn quantity(value: &mut Value) -> Result<(), TypeError> {
    let canonical = Quantity::from_value(value).map_err(|e| TypeError(e.to_string()))?.to_string();
    if value.as_str() != Some(&canonical) {
        *value = Value::String(canonical);
    }
    Ok(())
}

/// The time in UTC with so many digits below the second, unless `text` already is that.
fn time(text: &str, digits: u8) -> Result<Option<String>, TypeError> {
    let layout = if digits == 0 { "2006-01-02T15:04:05Z07:00" } else { "2006-01-02T15:04:05.000000Z07:00" };
    let Ok(time) = text.parse::<jiff::Timestamp>() else {
        let why = format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"");
        return Err(TypeError(why));
    };
    let canonical = format_time(time, digits);
    Ok((canonical != text).then_some(canonical))
}

/// RFC 3339 in UTC, cut off after so many digits below the second.
pub(crate) fn format_time(time: jiff::Timestamp, digits: u8) -> String {
    let printer = jiff::fmt::temporal::DateTimePrinter::new().precision(Some(digits));
    let unit = if digits == 0 { jiff::Unit::Second } else { jiff::Unit::Microsecond };
    let rounding = jiff::TimestampRound::new().smallest(unit).mode(jiff::RoundMode::Floor);
    printer.timestamp_to_string(&time.round(rounding).unwrap_or(time))
}

fn check_base64(text: &str) -> Result<(), TypeError> {
    use base64::Engine as _;
    // Go's decoder skips line ends.
    let has_lines = text.bytes().any(|b| matches!(b, b'\r' | b'\n'));
    let decoded = if has_lines {
        let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        base64::prelude::BASE64_STANDARD.decode(joined)
    } else {
        base64::prelude::BASE64_STANDARD.decode(text)
    };
    match decoded {
        Ok(_) => Ok(()),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(TypeError(format!("illegal base64 data at input byte {at}")))
        }
        Err(_) => Err(TypeError(format!("illegal base64 data at input byte {}", text.len() / 4 * 4))),
    }
}

fn mismatch(found: &str, wanted: &str, place: Outer<'_>) -> TypeError {
    let mut fields = Vec::new();
    let mut owner = None;
    let mut next = place;
    while let Some(Place { outer, step }) = next {
        if let Step::Field(schema, name) = step {
            owner = owner.or(Some(schema.short_name()));
            fields.push(*name);
        }
        next = *outer;
    }
    fields.reverse();
    TypeError(match owner {
        Some(owner) => {
            format!("json: cannot unmarshal {found} into Go struct field {owner}.{} of type {wanted}", fields.join("."))
        }
        None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
    })
}

fn write_path(place: Outer<'_>, out: &mut String) {
    let Some(Place { outer, step }) = place else { return };
    write_path(*outer, out);
    match step {
        Step::Field(_, name) | Step::Key(name) => {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(name);
        }
        Step::Index(i) => out.push_str(&format!("[{i}]")),
    }
}

fn go_struct(schema: &Schema) -> String {
    let mut parts = schema.name.rsplit('.');
    match (parts.next(), parts.next()) {
        (Some(name), Some(package)) => format!("{package}.{name}"),
        _ => "map[string]interface {}".into(),
    }
}

fn go_type(ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".into(),
        Type::Int32 | Type::IntOrString => "int32".into(),
        Type::Int64 => "int64".into(),
        Type::Double => "float64".into(),
        Type::String | Type::Duration => "string".into(),
        Type::Bytes => "[]uint8".into(),
        Type::Quantity => "resource.Quantity".into(),
        Type::Time => "v1.Time".into(),
        Type::MicroTime => "v1.MicroTime".into(),
        Type::Any => "runtime.RawExtension".into(),
        Type::Fields => "v1.FieldsV1".into(),
        Type::Struct(link) => go_struct(link),
        Type::List(item) => format!("[]{}", go_type(item)),
        Type::Map(item) if matches!(**item, Type::Quantity) => "v1.ResourceList".into(),
        Type::Map(item) => format!("map[string]{}", go_type(item)),
        Type::Wrapped(_) => "v1.ExtraValue".into(),
        Type::Or(item, _) => go_type(item),
    }
}
