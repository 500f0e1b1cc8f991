//! Values of expressions. Those that come from objects borrow their JSON and are converted when they are looked at.

pub(crate) mod compare;
mod json;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value as Json;

use crate::error::Error;
pub(crate) use crate::library::opaque::Opaque;
use crate::types::{Decl, Object, Type};

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    Type(Type),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Value<'a>>>),
    Opaque(Opaque<'a>),
}

/// A string, borrowed or shared.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// With the list's own declaration.
    Json(&'a [Json], Option<&'a Decl>),
    Owned(Arc<Vec<Value<'a>>>, Option<&'a Decl>),
    /// Two lists, one after the other.
    Joined(Arc<Joined<'a>>),
}

/// See [`List::Joined`].
#[derive(Debug)]
pub struct Joined<'a> {
    left: List<'a>,
    right: List<'a>,
    len: usize,
}

/// A map, or an object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// With the declaration of the map or object.
    Json(&'a serde_json::Map<String, Json>, Option<&'a Decl>),
    Owned(Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// Made by an expression (`Object{…}`).
    Struct(Arc<Object>, Arc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// A key of a map. Numbers that are equal are the same key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key<'a> {
    Bool(bool),
    Int(i64),
    /// Above the largest `i64`.
    Uint(u64),
    String(Text<'a>),
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl<'a> Value<'a> {
    /// A string of its own.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    pub fn borrowed(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }

    pub fn list(items: Vec<Self>) -> Self {
        Self::List(List::Owned(Arc::new(items), None))
    }

    pub(crate) fn some(self) -> Self {
        Self::Optional(Some(Arc::new(self)))
    }

    pub(crate) fn map(entries: BTreeMap<Key<'a>, Value<'a>>) -> Self {
        Self::Map(Map::Owned(Arc::new(entries)))
    }

    /// The value's type, as `type()` tells it.
    pub fn ty(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Duration(_) => Type::Duration,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Type(_) => Type::Type,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(map) => match map.object() {
                Some(object) => Type::Object(object.clone()),
                None => Type::map(Type::Dyn, Type::Dyn),
            },
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Opaque(opaque) => Type::Opaque(opaque.ty()),
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text.as_str()),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// What the cost model takes for its size: characters, bytes, items, entries; 1 for anything else.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::String(text) => text.as_str().chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            // Objects have no size.
            Self::Map(map) if map.object().is_none() => map.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Opaque(opaque) => opaque.size(),
            _ => 1,
        }
    }

    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) | Self::Duration(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::String(text) => text.as_str().is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
            Self::Optional(value) => value.is_none(),
            Self::Timestamp(_) | Self::Type(_) | Self::Opaque(_) => false,
        }
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Owned(items, _) => items.len(),
            Self::Joined(joined) => joined.len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<Result<Value<'a>, Error>> {
        match self {
            Self::Json(items, decl) => Some(Value::from_json(items.get(index)?, items_of(*decl))),
            Self::Owned(items, _) => Some(Ok(items.get(index)?.clone())),
            Self::Joined(joined) => match index.checked_sub(joined.left.len()) {
                None => joined.left.get(index),
                Some(rest) => joined.right.get(rest),
            },
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, Error>> + '_ {
        (0..self.len()).map_while(|index| self.get(index))
    }

    pub(crate) fn decl(&self) -> Option<&'a Decl> {
        match self {
            Self::Json(_, decl) | Self::Owned(_, decl) => *decl,
            Self::Joined(_) => None,
        }
    }

    /// One list after the other, without copying either.
    pub(crate) fn joined(left: Self, right: Self) -> Result<Self, Error> {
        let len = left.len().checked_add(right.len()).filter(|len| *len <= u32::MAX as usize);
        let len = len.ok_or_else(|| Error::new("list too long"))?;
        if left.is_empty() {
            return Ok(right);
        }
        if right.is_empty() {
            return Ok(left);
        }
        Ok(Self::Joined(Arc::new(Joined { left, right, len })))
    }
}

pub(crate) fn items_of(decl: Option<&Decl>) -> Option<&Decl> {
    decl.and_then(|decl| decl.items.as_deref())
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Owned(map) | Self::Struct(_, map) => map.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The object type, when it is no map.
    pub(crate) fn object(&self) -> Option<&Arc<Object>> {
        match self {
            Self::Json(_, Some(decl)) => match &decl.ty {
                Type::Object(object) => Some(object),
                _ => None,
            },
            Self::Struct(object, _) => Some(object),
            _ => None,
        }
    }

    /// What is under a key or field name. Fields of objects that are null count as absent.
    pub fn get(&self, key: &Value<'_>) -> Option<Result<Value<'a>, Error>> {
        match self {
            Self::Json(map, decl) => {
                let Value::String(name) = key else { return None };
                let name = name.as_str();
                let Some(decl) = decl else { return Some(Value::from_json(map.get(name)?, None)) };
                if let Type::Object(object) = &decl.ty {
                    let field = object.fields.get(name)?;
                    let value = map.get(&field.key).filter(|value| !value.is_null())?;
                    return Some(Value::from_json(value, Some(&field.decl)));
                }
                Some(Value::from_json(map.get(name)?, decl.items.as_deref()))
            }
            Self::Owned(map) | Self::Struct(_, map) => map.get(&Key::of(key)?).cloned().map(Ok),
        }
    }

    /// The keys as they are stored; of objects, the JSON keys.
    pub fn keys(&self) -> Vec<Key<'a>> {
        match self {
            Self::Json(map, _) => map.keys().map(|key| Key::String(Text::Borrowed(key))).collect(),
            Self::Owned(map) | Self::Struct(_, map) => map.keys().cloned().collect(),
        }
    }

    /// Entries with the JSON keys of objects.
    pub(crate) fn entry(&self, key: &Key<'a>) -> Option<Result<Value<'a>, Error>> {
        match (self, key) {
            (Self::Json(map, decl), Key::String(name)) => {
                let value = map.get(name.as_str())?;
                let decl = match decl {
                    Some(decl) => match &decl.ty {
                        Type::Object(object) => {
                            object.fields.values().find(|field| field.key == name.as_str()).map(|field| &*field.decl)
                        }
                        _ => decl.items.as_deref(),
                    },
                    None => None,
                };
                Some(Value::from_json(value, decl))
            }
            (Self::Owned(map) | Self::Struct(_, map), key) => map.get(key).cloned().map(Ok),
            _ => None,
        }
    }
}

impl<'a> Key<'a> {
    /// The key that a value is; `None` for values that cannot be keys.
    pub fn of(value: &Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Uint(value) => i64::try_from(*value).map_or(Self::Uint(*value), Self::Int),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 9e15 => Self::Int(*value as i64),
            Value::String(text) => Self::String(text.clone()),
            _ => return None,
        })
    }

    pub fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Uint(value) => Value::Uint(*value),
            Self::String(text) => Value::String(text.clone()),
        }
    }

    /// As a JSON key.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Bool(value) => value.to_string().into(),
            Self::Int(value) => value.to_string().into(),
            Self::Uint(value) => value.to_string().into(),
            Self::String(text) => text.as_str().into(),
        }
    }
}
