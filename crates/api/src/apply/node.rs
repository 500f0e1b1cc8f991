//! How a value of some type is owned: as one thing, or by its parts.

use serde_json::Value;

use super::element;
use crate::schema::{Field, ListType, Merge, Schema, Type};

/// What ownership does with a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node<'a> {
    Scalar,
    /// A list, map or struct with one owner.
    Atomic,
    /// Each field has its owners.
    Struct(&'a Schema),
    /// Each key has its owners.
    Map(&'a Type),
    /// A list of scalars of which each has its owners.
    Set,
    /// A list of structs that are known by some of their fields.
    Keyed(&'a Schema, &'a Merge),
    /// No type is known: maps are owned by key, everything else as one.
    Deduced,
}

impl<'a> Node<'a> {
    /// `free` is whether values without a type are owned by their parts: those that a CRD leaves open are, the untyped
    /// parts of built-in types are not.
    fn new(ty: &'a Type, merge: Option<&'a Merge>, free: bool) -> Self {
        let list_type = merge.map_or(ListType::Unset, |merge| merge.list_type);
        match (ty, list_type) {
            (Type::Struct(_) | Type::Map(_), ListType::Atomic) => Self::Atomic,
            (Type::Struct(link), _) if link.atomic => Self::Atomic,
            (Type::Struct(link), _) => Self::Struct(link),
            (Type::Map(item), _) => Self::Map(item),
            (Type::List(_), ListType::Set) => Self::Set,
            (Type::List(item), ListType::Map) => match (&**item, merge) {
                (Type::Struct(link), Some(merge)) => Self::Keyed(link, merge),
                _ => Self::Atomic,
            },
            (Type::List(_), _) => Self::Atomic,
            (Type::Wrapped(inner), _) => Self::new(inner, merge, free),
            (Type::Any, ListType::Atomic) => Self::Atomic,
            (Type::Any, _) if free => Self::Deduced,
            (Type::Any | Type::Fields, _) => Self::Atomic,
            _ => Self::Scalar,
        }
    }

    /// A field of `schema`.
    pub(super) fn of_field(schema: &Schema, field: &'a Field) -> Self {
        Self::new(&field.ty, field.merge.as_deref(), schema.name.is_empty())
    }

    /// A list.
    pub(super) fn of_list(ty: &'a Type, merge: Option<&'a Merge>) -> Self {
        Self::new(ty, merge, false)
    }

    /// What is under a key of a struct or map.
    pub(super) fn below(self, name: &str) -> Self {
        match self {
            Self::Struct(schema) => match schema.field(name) {
                Some(field) => Self::of_field(schema, field),
                None => Self::Deduced,
            },
            Self::Map(item) => Self::new(item, None, true),
            _ => Self::Deduced,
        }
    }

    /// A struct of which Go always has every field that it does not point to.
    pub(super) fn whole(self) -> Option<&'a Schema> {
        match self {
            Self::Struct(schema) if !schema.name.is_empty() => Some(schema),
            _ => None,
        }
    }

    /// Whether the struct has a field of this name.
    pub(super) fn declares(self, name: &str) -> bool {
        matches!(self, Self::Struct(schema) if schema.field(name).is_some())
    }

    /// The type of a list's items.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Keyed(schema, _) => Self::Struct(schema),
            _ => Self::Scalar,
        }
    }

    /// The path element of an item of a set or list map.
    pub(super) fn element(self, item: &Value) -> Result<String, String> {
        match self {
            Self::Keyed(schema, merge) => element::key(item, schema, merge),
            _ => element::value(item),
        }
    }

    /// With what is not known decided by a value.
    pub(super) fn deduced(self, value: &Value) -> Self {
        match (self, value) {
            (Self::Deduced, Value::Object(_)) => self,
            (Self::Deduced, Value::Array(_)) => Self::Atomic,
            (Self::Deduced, _) => Self::Scalar,
            _ => self,
        }
    }
}

/// Whether a value has no parts.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
