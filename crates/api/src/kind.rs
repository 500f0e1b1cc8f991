//! What a kind *is*: the data every generic code path reads. Built-in kinds and custom resources are values of
//! the same type, so there is one path for all of them. What is special about one kind is its [`Strategy`].

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;

use crate::apply::Reset;
use crate::crd::Custom;
use crate::jsonpath::JsonPath;
use crate::schema::{self, Schema};
use crate::status::FieldError;

mod build;

/// Static for built-in kinds, owned for those that a CRD brings.
pub type Str = Cow<'static, str>;

/// One resource of one group version.
#[derive(Debug)]
pub struct Kind {
    /// Empty for the core group.
    pub group: Str,
    pub version: Str,
    /// `Pod`
    pub kind: Str,
    /// `PodList`
    pub list_kind: Str,
    /// Plural, lower case: `pods`
    pub resource: Str,
    pub singular: Str,
    pub scope: Scope,
    pub short_names: Vec<Str>,
    pub categories: Vec<Str>,
    /// Empty means all of them; the review kinds have only `create`.
    pub verbs: Vec<Verb>,
    pub subresources: Vec<Subresource>,
    /// Printer columns after `Name`, which every table has (unless a column here is itself called `Name`).
    pub columns: Vec<Column>,
    /// The schema's name: `io.k8s.api.core.v1.Pod`. A built-in kind's is looked up by it in [`crate::schema`].
    pub schema: Str,
    /// What a CRD brings.
    pub custom: Option<Arc<Custom>>,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`. A kind that is stored as another lists its own names
    /// for the same values first and in the same order, so that both use one index.
    pub field_selectors: Vec<FieldPath>,
    /// Set when objects are stored in the form and under the key of another kind (`events.k8s.io` keeps core events).
    pub storage: Option<Storage>,
    /// The feature gate without which the kind is not served; its group version must be asked for, too (`--runtime-config`).
    pub gate: Option<&'static str>,
    /// What every request for the kind is warned of: `v1 Endpoints is deprecated in v1.33+; use …`.
    pub deprecated: Option<Str>,
    /// Whether a delete that is carried out at once answers with the object; most kinds answer with a `Status`.
    pub returns_deleted: bool,
    /// How the generic `scale` subresource reads and writes the object.
    pub scale: Option<ScaleMap>,
    pub strategy: StrategyRef,
}

/// A kind's strategy: static for built-in kinds, owned for those that a CRD brings.
#[derive(Clone, Debug)]
pub enum StrategyRef {
    BuiltIn(&'static dyn Strategy),
    Owned(Arc<dyn Strategy>),
}

impl Deref for StrategyRef {
    type Target = dyn Strategy;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::BuiltIn(strategy) => *strategy,
            Self::Owned(strategy) => &**strategy,
        }
    }
}

/// The kind whose stored form a kind shares, and the way there and back. Both hooks are total: they leave alone what they
/// do not know. They change `apiVersion` too.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    pub group: &'static str,
    pub version: &'static str,
    pub resource: &'static str,
    /// From the stored form to this kind.
    pub from_stored: fn(&mut Value),
    /// From this kind to the stored form. This kind's own strategy has run before.
    pub to_stored: fn(&mut Value),
}

/// The `scale` subresource: where an `autoscaling/v1 Scale` finds its fields in the object.
#[derive(Clone, Debug)]
pub struct ScaleMap {
    /// `spec.replicas`: field names from the root on.
    pub spec_replicas: Vec<Str>,
    /// `status.replicas`
    pub status_replicas: Vec<Str>,
    /// `status.selector`
    pub selector: ScaleSelector,
    /// Without `spec.replicas` there is no scale (custom resources).
    pub must_exist: bool,
}

/// Where the scale's selector comes from, as a string (`app=web,tier in (a,b)`).
#[derive(Clone, Debug)]
pub enum ScaleSelector {
    /// Made from the object.
    Fn(fn(&Value) -> String),
    /// A string field.
    Path(Vec<Str>),
    /// The kind has none.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

/// A subresource as discovery shows it. `status` and `scale` are served generically; the rest by the API server's own
/// handlers, looked up by (resource, name).
#[derive(Clone, Debug)]
pub struct Subresource {
    /// `status`, `scale`, `log`, `exec`, …
    pub name: Str,
    /// Group, version and kind of its body where they differ from the parent's (`autoscaling/v1 Scale`).
    pub body: Option<(Str, Str, Str)>,
    pub verbs: Vec<Verb>,
}

/// A printer column.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: Str,
    /// OpenAPI type: `string`, `integer`, `date`, …
    pub type_: Str,
    /// `name` for the column that holds the name, else empty.
    pub format: Str,
    pub description: Str,
    /// 0 is always shown; above 0 only with `-o wide`.
    pub priority: i32,
    pub cell: Cell,
}

/// How a column's value is found.
#[derive(Clone, Debug)]
pub enum Cell {
    /// From the whole object and the time now (for ages).
    Fn(fn(&Value, jiff::Timestamp) -> Value),
    /// A CRD's `jsonPath`.
    Path(JsonPath),
}

/// A field a client may select on, and how it is read (missing reads as the empty string).
#[derive(Clone, Debug)]
pub struct FieldPath {
    /// `spec.nodeName`
    pub path: Str,
    pub source: FieldSource,
}

/// How a selectable field is read.
#[derive(Clone, Debug)]
pub enum FieldSource {
    Fn(fn(&Value) -> Cow<'_, str>),
    /// A CRD's `selectableFields`.
    Path(JsonPath),
}

impl FieldPath {
    /// The field's value; empty when it is missing.
    pub fn get<'v>(&self, object: &'v Value) -> Cow<'v, str> {
        match &self.source {
            FieldSource::Fn(get) => get(object),
            FieldSource::Path(path) => match path.first(object) {
                Some(Value::String(text)) => Cow::Borrowed(text),
                Some(value @ (Value::Bool(_) | Value::Number(_))) => Cow::Owned(value.to_string()),
                _ => Cow::Borrowed(""),
            },
        }
    }
}

/// Which write is being judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write<'a> {
    Create,
    /// The stored object. A write to the main resource: status must not change.
    Update(&'a Value),
    /// The stored object. A write to a subresource (`status`, `ephemeralcontainers`, `resize`, …).
    Subresource(&'a str, &'a Value),
}

/// What is special about a kind. Every method has the common case as its default; none does IO, reads a clock or draws
/// random numbers. Objects are whole: `apiVersion`, `kind`, `metadata`, …
pub trait Strategy: Send + Sync + std::fmt::Debug {
    /// Fills in upstream's defaults. Also run on objects read from old versions, so it must be idempotent.
    fn default(&self, _object: &mut Value) {}

    /// Fixes up an object before validation: a create drops `status`; an update keeps the old `status` (a status update
    /// keeps everything but `status`) and bumps `metadata.generation` when `spec` changed. See [`crate::kinds::prepare`].
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        crate::kinds::prepare(object, write);
    }

    /// Writes down what only the server knows: who asks, and the time. Runs after `prepare`.
    fn stamp(&self, _object: &mut Value, _write: Write<'_>, _stamp: &Stamp<'_>) {}

    /// Every rule that the object breaks, in upstream's words, fields by their JSON path. `metadata` is checked generically.
    fn validate(&self, _object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        Vec::new()
    }

    /// Warnings for the client (`Warning: 299`), for accepted objects.
    fn warnings(&self, _object: &Value, _write: Write<'_>) -> Vec<String> {
        Vec::new()
    }

    /// Which names are allowed; most kinds take a DNS subdomain.
    fn name_rule(&self) -> NameRule {
        NameRule::DnsSubdomain
    }

    /// Seconds of grace for a delete with the options' `gracePeriodSeconds` (`None` when not given). `None` means that
    /// the kind is deleted at once (all but pods).
    fn grace_period_seconds(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether `update` of an object that is not there creates it (`events`, `leases`, …).
    fn create_on_update(&self) -> bool {
        false
    }

    /// Whether an update may come without a resourceVersion.
    fn unconditional_update(&self) -> bool {
        true
    }

    /// Why an object of this name can never be deleted, if that is so.
    fn kept(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// Called when a delete marks the object (its `deletionTimestamp` is set): a namespace becomes `Terminating`.
    fn mark_deleted(&self, _object: &mut Value) {}

    /// Whether something besides `metadata.finalizers` keeps a deleted object (a namespace's `spec.finalizers`).
    fn held(&self, _object: &Value) -> bool {
        false
    }

    /// Fields that writes to an endpoint (`""` for the object, else a subresource) do not change and so do not own; `None`
    /// for the common case, see [`Kind::reset_fields`].
    fn reset_fields(&self, _subresource: &str) -> Option<Reset> {
        None
    }

    /// Propagation policy used when the delete options name none.
    fn default_propagation(&self) -> Propagation {
        Propagation::Background
    }
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    pub now: jiff::Timestamp,
    pub user: &'a str,
    pub uid: &'a str,
    pub groups: &'a [String],
    pub extra: &'a std::collections::BTreeMap<String, Vec<String>>,
}

/// What becomes of an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// Rule for `metadata.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, 253 bytes.
    DnsSubdomain,
    /// RFC 1123 label, 63 bytes (namespaces).
    DnsLabel,
    /// RFC 1035 label, 63 bytes (services).
    Dns1035Label,
    /// Anything that can be one path segment: not `.`, `..`, no `/` nor `%` (RBAC kinds).
    PathSegment,
    /// An address in canonical form (`ipaddresses`).
    Ip,
}

impl Kind {
    /// `v1` or `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `deployments.apps`, as error messages name it.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.resource.to_string() } else { format!("{}.{}", self.resource, self.group) }
    }

    /// The kind's schema; `None` for a built-in kind that is not in the table, which a test rules out.
    pub fn structure(&self) -> Option<&Schema> {
        match &self.custom {
            Some(custom) => Some(&custom.structure),
            None => schema::builtin(&self.schema),
        }
    }

    /// Whether the resource offers `verb`.
    pub fn has_verb(&self, verb: Verb) -> bool {
        self.verbs.is_empty() || self.verbs.contains(&verb)
    }

    /// Whether objects are kept. Reviews and bindings are answered, not kept; component statuses are computed.
    pub fn is_stored(&self) -> bool {
        self.has_verb(Verb::Create) && self.has_verb(Verb::Get)
    }

    /// Fields that writes to an endpoint do not change: of an object that has a status, writes to the object itself leave
    /// that alone, and writes to the status all else but metadata, which custom resources do not let them change either.
    pub fn reset_fields(&self, subresource: &str) -> Reset {
        if let Some(reset) = self.strategy.reset_fields(subresource) {
            return reset;
        }
        match subresource {
            "status" if self.custom.is_some() => Reset::AllBut(&[&["f:status"]]),
            "status" => Reset::AllBut(&[&["f:metadata"], &["f:status"]]),
            _ if self.subresource("status").is_some() => Reset::Fields(&[&["f:status"]]),
            _ => Reset::Fields(&[]),
        }
    }

    /// The subresource called `name`.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}
