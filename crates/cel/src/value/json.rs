//! Values from and to JSON.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::{List, Map, Value};
use crate::error::Error;
use crate::library::time;
use crate::limits;
use crate::types::{Decl, Format, Type};

impl<'a> Value<'a> {
    /// A value of an object, as its declaration says; without one, by its looks. Lists and maps are not copied.
    ///
    /// # Errors
    /// A date, duration or base64 text that is none.
    pub fn from_json(json: &'a Json, decl: Option<&'a Decl>) -> Result<Self, Error> {
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => {
                let double = matches!(decl, Some(Decl { ty: Type::Double, .. }));
                match (number.as_i64(), number.as_u64()) {
                    (Some(value), _) if !double => Self::Int(value),
                    (_, Some(value)) if !double => Self::Uint(value),
                    _ => Self::Double(number.as_f64().unwrap_or_default()),
                }
            }
            Json::String(text) => string(text, decl)?,
            Json::Array(items) => Self::List(List::Json(items, decl)),
            Json::Object(map) => Self::Map(Map::Json(map, decl)),
        })
    }

    /// As JSON; `None` for what JSON has no form for (types, library types, empty optionals), and for what takes more than
    /// [`limits::MEMORY`]: values may share parts that JSON would repeat.
    pub fn to_json(&self) -> Option<Json> {
        self.write(&mut { limits::MEMORY })
    }

    fn write(&self, room: &mut u64) -> Option<Json> {
        take(room, 0)?;
        Some(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => serde_json::Number::from_f64(*value)?.into(),
            Self::String(text) => {
                take(room, text.as_str().len())?;
                text.as_str().into()
            }
            Self::Bytes(bytes) => {
                take(room, bytes.len())?;
                STANDARD.encode(bytes).into()
            }
            Self::Duration(nanos) => time::format_duration(*nanos).into(),
            Self::Timestamp(timestamp) => time::format_timestamp(*timestamp).into(),
            Self::List(List::Json(items, _)) => {
                items.iter().try_for_each(|item| weigh(item, room))?;
                Json::Array(items.to_vec())
            }
            Self::List(list) => Json::Array(list.iter().map(|item| item.ok()?.write(room)).collect::<Option<_>>()?),
            Self::Map(Map::Json(map, _)) => {
                map.iter().try_for_each(|(key, value)| weigh_entry(key, value, room))?;
                Json::Object((*map).clone())
            }
            Self::Map(Map::Owned(map) | Map::Struct(_, map)) => Json::Object(
                map.iter()
                    .map(|(key, value)| {
                        take(room, key.text().len())?;
                        Some((key.text().into_owned(), value.write(room)?))
                    })
                    .collect::<Option<_>>()?,
            ),
            Self::Optional(value) => value.as_ref()?.write(room)?,
            Self::Opaque(opaque) => opaque.text()?.into(),
            Self::Type(_) => return None,
        })
    }
}

/// Room for a value, with so many bytes of text.
fn take(room: &mut u64, text: usize) -> Option<()> {
    *room = room.checked_sub((size_of::<Json>() + text) as u64)?;
    Some(())
}

fn weigh(value: &Json, room: &mut u64) -> Option<()> {
    match value {
        Json::String(text) => take(room, text.len()),
        Json::Array(items) => {
            take(room, 0)?;
            items.iter().try_for_each(|item| weigh(item, room))
        }
        Json::Object(map) => {
            take(room, 0)?;
            map.iter().try_for_each(|(key, value)| weigh_entry(key, value, room))
        }
        _ => take(room, 0),
    }
}

fn weigh_entry(key: &str, value: &Json, room: &mut u64) -> Option<()> {
    take(room, key.len())?;
    weigh(value, room)
}

fn string<'a>(text: &'a str, decl: Option<&'a Decl>) -> Result<Value<'a>, Error> {
    let Some(decl) = decl else { return Ok(Value::borrowed(text)) };
    Ok(match &decl.ty {
        Type::Bytes => {
            let bytes = STANDARD.decode(text).map_err(|_| Error::new("invalid base64"))?;
            Value::Bytes(Arc::from(bytes))
        }
        Type::Duration => Value::Duration(
            time::parse_duration(text).ok_or_else(|| Error::new(format!("unable to parse duration {text:?}")))?,
        ),
        Type::Timestamp => {
            let parsed = if decl.format == Format::Date { time::parse_date(text) } else { time::parse_timestamp(text) };
            Value::Timestamp(parsed.ok_or_else(|| Error::new(format!("unable to parse timestamp {text:?}")))?)
        }
        _ => Value::borrowed(text),
    })
}
