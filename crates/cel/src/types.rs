//! What an expression's value may be, and what a schema says about a value: its type, how large it may get, how its list
//! is keyed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type of the checker. Equality of objects goes by name.
#[derive(Clone, Debug)]
pub enum Type {
    /// Anything; overloads are chosen at run time.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    /// The type of types.
    Type,
    List(Arc<Type>),
    /// Key, value.
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    /// Fields with names of their own.
    Object(Arc<Object>),
    /// A type of a library.
    Opaque(OpaqueType),
    /// A type variable, while checking.
    Param(u32),
    /// Already reported.
    Error,
}

/// Types that Kubernetes' libraries add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpaqueType {
    Quantity,
    Ip,
    Cidr,
    Url,
    Format,
    Semver,
    Authorizer,
    PathCheck,
    GroupCheck,
    ResourceCheck,
    Decision,
}

impl OpaqueType {
    pub const ALL: [Self; 11] = [
        Self::Quantity,
        Self::Ip,
        Self::Cidr,
        Self::Url,
        Self::Format,
        Self::Semver,
        Self::Authorizer,
        Self::PathCheck,
        Self::GroupCheck,
        Self::ResourceCheck,
        Self::Decision,
    ];

    /// The name that expressions and messages use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quantity => "kubernetes.Quantity",
            Self::Ip => "net.IP",
            Self::Cidr => "net.CIDR",
            Self::Url => "kubernetes.URL",
            Self::Format => "kubernetes.NamedFormat",
            Self::Semver => "kubernetes.Semver",
            Self::Authorizer => "kubernetes.authorization.Authorizer",
            Self::PathCheck => "kubernetes.authorization.PathCheck",
            Self::GroupCheck => "kubernetes.authorization.GroupCheck",
            Self::ResourceCheck => "kubernetes.authorization.ResourceCheck",
            Self::Decision => "kubernetes.authorization.Decision",
        }
    }
}

/// A type with named fields.
#[derive(Debug, Default)]
pub struct Object {
    /// As messages and `type()` give it.
    pub name: String,
    /// By the name that expressions use (escaped).
    pub fields: BTreeMap<String, Field>,
}

/// A field of an [`Object`].
#[derive(Clone, Debug)]
pub struct Field {
    /// The JSON key.
    pub key: String,
    pub decl: Arc<Decl>,
}

/// A type and what is known about the sizes of its values.
#[derive(Clone, Debug)]
pub struct Decl {
    pub ty: Type,
    /// The most characters, bytes, items or entries that a value has.
    pub max_elements: u64,
    /// The fewest bytes of a value's JSON.
    pub min_size: u64,
    /// Of a list's items or a map's values.
    pub items: Option<Arc<Decl>>,
    /// Items are a set or keyed: decides what `==` and `+` mean.
    pub list: ListKind,
    /// Of the JSON string, what a date, duration or bytes is written as.
    pub format: Format,
}

/// `x-kubernetes-list-type`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    /// With its `x-kubernetes-list-map-keys`.
    Map(Vec<String>),
}

/// How a JSON string becomes a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    None,
    /// `2006-01-02`
    Date,
    /// RFC 3339.
    DateTime,
}

impl Decl {
    /// A value of a type of which no sizes are known.
    pub fn new(ty: Type) -> Arc<Self> {
        Arc::new(Self::sized(ty, u64::MAX, 0))
    }

    pub(crate) fn sized(ty: Type, max_elements: u64, min_size: u64) -> Self {
        Self { ty, max_elements, min_size, items: None, list: ListKind::Atomic, format: Format::None }
    }

    /// The field that an expression calls `name`.
    pub fn field(&self, name: &str) -> Option<&Field> {
        match &self.ty {
            Type::Object(object) => object.fields.get(name),
            _ => None,
        }
    }
}

impl Type {
    pub fn list(items: Self) -> Self {
        Self::List(Arc::new(items))
    }

    pub fn map(keys: Self, values: Self) -> Self {
        Self::Map(Arc::new((keys, values)))
    }

    pub fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// What `type()` prints: no parameters.
    pub fn runtime_name(&self) -> String {
        match self {
            Self::Null => "null_type".into(),
            Self::List(_) => "list".into(),
            Self::Map(_) => "map".into(),
            Self::Optional(_) => "optional_type".into(),
            Self::Duration => "google.protobuf.Duration".into(),
            Self::Timestamp => "google.protobuf.Timestamp".into(),
            Self::Type => "type".into(),
            other => other.to_string(),
        }
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b) || a.name == b.name,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Param(a), Self::Param(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Type {
    /// As cel-go's error messages write types.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dyn => "dyn",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "duration",
            Self::Timestamp => "timestamp",
            Self::Type => "type",
            Self::Error => "!error!",
            Self::Opaque(opaque) => opaque.name(),
            Self::Object(object) => &object.name,
            Self::Param(id) => return write!(f, "_var{id}"),
            Self::List(items) => return write!(f, "list({items})"),
            Self::Optional(of) => return write!(f, "optional_type({of})"),
            Self::Map(entry) => return write!(f, "map({}, {})", entry.0, entry.1),
        })
    }
}
