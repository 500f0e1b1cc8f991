//! What objects look like: one small tree for built-in kinds and (later) for those that CRDs bring. Pruning, type checks,
//! strategic merge patch, server-side apply and the protobuf codec all read it.
//!
//! The built-in types come from `schema/types.txt`, our own table of field names, protobuf tags, types and merge keys; a
//! test holds it against `k8s-openapi`. A type is parsed when it is first asked for. Descriptions are not here: they are
//! long, and only [`crate::openapi`] wants them.

mod builtin;
mod conform;
mod equal;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;

pub use builtin::{builtin, link as builtin_link, names};
pub use conform::TypeError;
pub(crate) use conform::format_time;

/// Static for built-in types, owned for those that a CRD brings.
pub type Str = Cow<'static, str>;

/// A type with named fields.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// `io.k8s.api.apps.v1.DeploymentSpec`; empty for types of a CRD.
    pub name: Str,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Protobuf messages whose fields are, in JSON, fields of this type (`volumeSource` of `Volume`).
    pub inline: Vec<Field>,
    /// Keeps fields that it does not know (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
    /// Server-side apply owns it as one value.
    pub atomic: bool,
    /// A CRD's: values of a wrong type, nulls and empty values stay, for validation to judge.
    pub custom: bool,
}

/// A field of a [`Schema`].
#[derive(Clone, Debug)]
pub struct Field {
    /// The JSON key.
    pub name: Str,
    /// Its protobuf tag; 0 when it has none (`apiVersion` and `kind`, which the envelope carries).
    pub tag: u32,
    pub ty: Type,
    /// Always written, also when zero.
    pub required: bool,
    /// Absent and zero differ (a pointer, in Go).
    pub pointer: bool,
    /// A struct that is the same as absent when it is empty.
    pub drop_empty: bool,
    /// How lists, maps and structs are merged; `None` for the defaults (replaced as a whole in strategic merge patches,
    /// except that structs and maps are merged).
    pub merge: Option<Box<Merge>>,
}

impl Field {
    /// A string without anything special.
    pub(crate) fn plain(name: Str) -> Self {
        Self { name, tag: 0, ty: Type::String, required: false, pointer: false, drop_empty: false, merge: None }
    }
}

/// How a field is merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Strategic merge patch merges it (`patchStrategy: merge`).
    pub patch_merge: bool,
    /// Strategic merge patch replaces it, a struct or map (`patchStrategy: replace`).
    pub patch_replace: bool,
    /// `patchStrategy: retainKeys`
    pub retain_keys: bool,
    /// What identifies an item of a list of structs in strategic merge patches; empty for lists of primitives.
    pub patch_key: Str,
    pub list_type: ListType,
    /// `x-kubernetes-list-map-keys`
    pub list_map_keys: Vec<Str>,
    /// What an absent one of these keys stands for.
    pub key_defaults: Vec<(Str, Value)>,
}

/// `x-kubernetes-list-type`, and for structs and maps `x-kubernetes-map-type: atomic`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Not said.
    #[default]
    Unset,
    Atomic,
    Set,
    Map,
}

/// What a value may be.
#[derive(Clone, Debug)]
pub enum Type {
    Bool,
    Int32,
    Int64,
    Double,
    String,
    /// Base64 in JSON.
    Bytes,
    /// An amount such as `100m`; a string, or a number.
    Quantity,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// `metav1.Duration`: `1h2m3s`
    Duration,
    IntOrString,
    /// Any JSON (`RawExtension`).
    Any,
    /// Any JSON object (`FieldsV1`).
    Fields,
    Struct(Link),
    List(Box<Type>),
    /// Keys are strings.
    Map(Box<Type>),
    /// In JSON what it holds, in protobuf a message with this as its field 1 (`ExtraValue`).
    Wrapped(Box<Type>),
    /// A struct, or something simpler in its place (`JSONSchemaPropsOrBool`).
    Or(Box<Type>, Instead),
}

/// What may stand in place of a struct. In protobuf it is field 1 of a message that has the struct as field 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    Bool,
    /// A list of such structs; here the struct is field 1 and the list field 2.
    List,
    /// A list of strings, likewise.
    Strings,
}

/// Leads to another type. Built-in types may refer to each other in circles.
#[derive(Clone, Debug)]
pub enum Link {
    /// Parsed when first followed.
    BuiltIn(builtin::Id),
    Owned(Arc<Schema>),
}

impl Deref for Link {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match self {
            Self::BuiltIn(id) => id.get(),
            Self::Owned(schema) => schema,
        }
    }
}

impl Schema {
    /// The field that a JSON key names, also when an inline message holds it.
    pub fn field(&self, name: &str) -> Option<&Field> {
        if let Ok(at) = self.fields.binary_search_by(|f| f.name.as_ref().cmp(name)) {
            return self.fields.get(at);
        }
        self.inline.iter().find_map(|inline| match &inline.ty {
            Type::Struct(link) => link.field(name),
            _ => None,
        })
    }

    /// The last part of the name, as Go calls the type: `DeploymentSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// Makes `object` what decoding it into the type would: drops nulls and unknown fields, puts quantities and times into
    /// their canonical form. Returns `unknown field "spec.foo"` for each dropped field, for strict validation to judge.
    pub fn conform(&self, object: &mut Value) -> Result<Vec<String>, TypeError> {
        conform::conform(self, object)
    }
}

impl Type {
    /// What Go's zero value is in JSON.
    pub(crate) fn zero(&self) -> Value {
        match self {
            Self::Bool => Value::Bool(false),
            Self::Int32 | Self::Int64 | Self::Double | Self::IntOrString => 0.into(),
            Self::String | Self::Bytes => "".into(),
            Self::Quantity => "0".into(),
            Self::Time | Self::MicroTime | Self::Duration | Self::Any | Self::Fields => Value::Null,
            Self::List(_) | Self::Wrapped(_) => Value::Array(Vec::new()),
            Self::Struct(_) | Self::Map(_) | Self::Or(..) => Value::Object(serde_json::Map::new()),
        }
    }
}

/// The name that error messages use for the type of a JSON value.
pub fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
