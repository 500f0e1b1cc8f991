//! Definitions as kinds: what the registry serves, and how objects change from one version to another.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use super::node::{Node, entries};
use crate::jsonpath::JsonPath;
use crate::kind::{
    Cell, Column, FieldPath, FieldSource, Kind, ScaleMap, ScaleSelector, Scope, Str, Strategy, StrategyRef,
    Subresource, Verb, Write,
};
use crate::kinds::{age_column, prepare};
use crate::schema::Schema;
use crate::selector::LabelSelector;
use crate::status::FieldError;
use crate::validation::View;

/// What a custom kind has beside what all kinds have.
#[derive(Debug)]
pub struct Custom {
    pub node: Arc<Node>,
    pub structure: Schema,
    /// `openAPIV3Schema` as written, for the OpenAPI documents.
    pub schema: Value,
    /// The definition: `crontabs.stable.example.com`.
    pub definition: String,
    /// The compiled expressions of the schema, for who can compile them.
    pub rules: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Changes with the schema.
    pub digest: u64,
    /// The version that objects are stored in.
    pub storage_version: String,
}

impl Custom {
    fn new(node: Arc<Node>, schema: Value, definition: String, storage_version: String) -> Self {
        let mut hasher = DefaultHasher::new();
        schema.to_string().hash(&mut hasher);
        let (structure, digest) = (node.structure(), hasher.finish());
        Self { structure, node, schema, definition, rules: OnceLock::new(), digest, storage_version }
    }
}

/// A served or stored version.
#[derive(Clone, Debug)]
pub struct Version {
    pub kind: Arc<Kind>,
    pub served: bool,
    pub storage: bool,
}

/// A definition, ready to be served.
#[derive(Debug)]
pub struct Definition {
    /// `crontabs.stable.example.com`
    pub name: String,
    /// In order of preference.
    pub versions: Vec<Version>,
    /// `spec.conversion.webhook`, when that is how versions are converted.
    pub webhook: Option<Value>,
}

impl Definition {
    /// The kind that objects are stored as.
    pub fn storage(&self) -> Option<&Arc<Kind>> {
        self.versions.iter().find(|version| version.storage).map(|version| &version.kind)
    }

    /// The kind of an `apiVersion`.
    pub fn kind_of(&self, api_version: &str) -> Option<&Arc<Kind>> {
        self.versions.iter().map(|version| &version.kind).find(|kind| kind.api_version() == api_version)
    }

    /// Makes what was stored under an older schema, or came from a webhook, what the schema of its version makes of it:
    /// prunes and defaults. Objects of versions that are no more stay as they are.
    pub fn normalize(&self, object: &mut Value) {
        let kind = object["apiVersion"].as_str().and_then(|version| self.kind_of(version));
        if let Some(custom) = kind.and_then(|kind| kind.custom.as_ref()) {
            // Metadata that cannot be read was written by somebody else than this server, and is left to be seen.
            let _ = custom.structure.conform(object);
            custom.node.fill(object);
        }
    }
}

/// Reads a definition that has been accepted. Its names are those of the status.
pub fn kinds(object: &Value) -> Definition {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (spec, names) = (&object["spec"], &object["status"]["acceptedNames"]);
    let strings = |value: &Value| -> Vec<Str> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(|s| s.to_owned().into()).collect()
    };
    let definition = text(&object["metadata"]["name"]);
    let group = text(&spec["group"]);
    let stored = spec["versions"].as_array().into_iter().flatten().find(|version| version["storage"] == true);
    let storage_version = stored.map(|version| text(&version["name"])).unwrap_or_default();
    let mut versions: Vec<Version> = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|version| {
            let name = text(&version["name"]);
            let schema = version["schema"]["openAPIV3Schema"].clone();
            let node = Arc::new(Node::parse(&schema));
            let kind = text(&names["kind"]);
            let strategy = CustomResource::new(version, node.clone());
            let deprecated = (version["deprecated"] == true).then(|| match version["deprecationWarning"].as_str() {
                Some(warning) => warning.to_owned().into(),
                None => format!("{group}/{name} {kind} is deprecated").into(),
            });
            let kind = Kind {
                group: group.clone().into(),
                version: name.clone().into(),
                schema: schema_name(&group, &name, &kind).into(),
                kind: kind.into(),
                list_kind: text(&names["listKind"]).into(),
                resource: text(&names["plural"]).into(),
                singular: text(&names["singular"]).into(),
                scope: if spec["scope"] == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
                short_names: strings(&names["shortNames"]),
                categories: strings(&names["categories"]),
                subresources: subresources(version),
                columns: columns(&version["additionalPrinterColumns"]),
                field_selectors: selectable(&version["selectableFields"]),
                gate: None,
                deprecated,
                scale: scale(&version["subresources"]["scale"]),
                strategy: StrategyRef::Owned(Arc::new(strategy)),
                custom: Some(Arc::new(Custom::new(node, schema, definition.clone(), storage_version.clone()))),
                ..Kind::custom()
            };
            Version { kind: Arc::new(kind), served: version["served"] == true, storage: version["storage"] == true }
        })
        .collect();
    versions.sort_by(|a, b| compare_versions(&b.kind.version, &a.kind.version));
    let webhook = (spec["conversion"]["strategy"] == "Webhook").then(|| spec["conversion"]["webhook"].clone());
    Definition { name: definition, versions, webhook }
}

/// `com.example.stable.v1.CronTab`
fn schema_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.rsplit('.').collect();
    parts.extend([version, kind]);
    parts.join(".")
}

/// Orders versions as Kubernetes prefers them: `v2` over `v1` over `v1beta2` over `v1alpha1` over all else, which goes by
/// the alphabet.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    // Stability, major, minor.
    fn parse(version: &str) -> Option<(u8, u64, u64)> {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at(end);
        let major = major.parse().ok()?;
        let minor = |text: &str| if text.is_empty() { None } else { text.parse().ok() };
        match (rest, rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            ("", ..) => Some((2, major, 0)),
            (_, Some(n), _) => Some((1, major, minor(n)?)),
            (_, _, Some(n)) => Some((0, major, minor(n)?)),
            _ => None,
        }
    }
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

fn subresources(version: &Value) -> Vec<Subresource> {
    let verbs = vec![Verb::Get, Verb::Patch, Verb::Update];
    let mut all = Vec::new();
    if version["subresources"]["status"].is_object() {
        all.push(Subresource { name: "status".into(), body: None, verbs: verbs.clone() });
    }
    if version["subresources"]["scale"].is_object() {
        let body = Some(("autoscaling".into(), "v1".into(), "Scale".into()));
        all.push(Subresource { name: "scale".into(), body, verbs });
    }
    all
}

fn columns(columns: &Value) -> Vec<Column> {
    let columns = columns.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |column: &Value, key: &str| Str::from(column[key].as_str().unwrap_or_default().to_owned());
    let found: Vec<Column> = columns
        .iter()
        .filter_map(|column| {
            let path = column["jsonPath"].as_str()?;
            let description = match column["description"].as_str() {
                None | Some("") => format!("Custom resource definition column (in JSONPath format): {path}").into(),
                Some(text) => text.to_owned().into(),
            };
            Some(Column {
                name: text(column, "name"),
                type_: text(column, "type"),
                format: text(column, "format"),
                description,
                priority: column["priority"].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0),
                cell: Cell::Path(JsonPath::parse(path).ok()?),
            })
        })
        .collect();
    if columns.is_empty() { vec![age_column()] } else { found }
}

fn selectable(fields: &Value) -> Vec<FieldPath> {
    let fields = fields.as_array().into_iter().flatten();
    fields
        .filter_map(|field| {
            let text = field["jsonPath"].as_str()?;
            let path = JsonPath::parse(text).ok()?;
            Some(FieldPath { path: path.fields()?.join(".").into(), source: FieldSource::Path(path) })
        })
        .collect()
}

/// The names in a path such as `.spec.replicas`.
fn steps(path: &Value) -> Vec<Str> {
    let path = path.as_str().unwrap_or_default();
    path.split('.').filter(|part| !part.is_empty()).map(|part| part.to_owned().into()).collect()
}

fn scale(scale: &Value) -> Option<ScaleMap> {
    scale.is_object().then(|| ScaleMap {
        spec_replicas: steps(&scale["specReplicasPath"]),
        status_replicas: steps(&scale["statusReplicasPath"]),
        selector: match steps(&scale["labelSelectorPath"]) {
            path if path.is_empty() => ScaleSelector::None,
            path => ScaleSelector::Path(path),
        },
        must_exist: true,
    })
}

/// The strategy of all custom kinds.
#[derive(Debug)]
struct CustomResource {
    node: Arc<Node>,
    has_status: bool,
    /// `subresources.scale`
    scale: Value,
}

impl CustomResource {
    fn new(version: &Value, node: Arc<Node>) -> Self {
        let subresources = &version["subresources"];
        let scale = subresources["scale"].clone();
        Self { node, has_status: subresources["status"].is_object(), scale }
    }

    fn check_scale(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let at = |key: &str| {
            let path = self.scale[key].as_str()?;
            let value = path.split('.').filter(|part| !part.is_empty()).try_fold(object, |value, part| value.get(part));
            Some((path, value?))
        };
        for key in ["specReplicasPath", "statusReplicasPath"] {
            let Some((path, value)) = at(key) else { continue };
            let Some(n) = value.as_i64() else {
                errors.push(FieldError::invalid(path, value.clone(), "should be an integer"));
                continue;
            };
            if n < 0 {
                errors.push(FieldError::invalid(path, n, "should be a non-negative integer"));
            } else if n > i64::from(i32::MAX) {
                let why = format!("should be less than or equal to {}", i32::MAX);
                errors.push(FieldError::invalid(path, n, &why));
            }
        }
        if let Some((path, Value::String(text))) = at("labelSelectorPath")
            && let Err(why) = LabelSelector::parse(text)
        {
            errors.push(FieldError::invalid(path, text.as_str(), &why.to_string()));
        }
    }
}

impl Strategy for CustomResource {
    fn default(&self, object: &mut Value) {
        self.node.fill(object);
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        if self.has_status {
            prepare(object, write);
            if let Write::Subresource("status", old) = write {
                keep_all_metadata(object, old);
            }
            return;
        }
        let generation = match write {
            Write::Create => 1,
            Write::Update(old) | Write::Subresource(_, old) => {
                let before = old["metadata"]["generation"].as_i64().unwrap_or(0);
                if same_but_metadata(object, old) { before } else { before.saturating_add(1) }
            }
        };
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.insert("generation".into(), generation.into());
        }
    }

    /// Schema first, then what schemas cannot say. `x-kubernetes-validations` run after this, in the API server.
    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let old = match write {
            Write::Create => None,
            Write::Update(old) | Write::Subresource(_, old) => Some(old),
        };
        if let Write::Subresource("status", old) = write {
            if let (Some(node), Some(_)) = (self.node.properties.get("status"), object.get("status")) {
                node.check_value(root.get("status"), old.get("status"), &mut errors);
            }
        } else {
            self.node.check_value(root, old, &mut errors);
        }
        self.check_scale(object, &mut errors);
        self.node.check_embedded(root, &mut errors);
        let mut before = Vec::new();
        if let Some(old) = old {
            self.node.check_lists(View::root(old), &mut before);
        }
        if before.is_empty() {
            self.node.check_lists(root, &mut errors);
        }
        errors
    }

    fn warnings(&self, object: &Value, write: Write<'_>) -> Vec<String> {
        fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
            object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
        }
        let known: HashSet<&str> = match write {
            Write::Create => HashSet::new(),
            Write::Update(old) => finalizers(old).collect(),
            Write::Subresource(..) => return Vec::new(),
        };
        let standard = ["orphan", "foregroundDeletion", "kubernetes"];
        finalizers(object)
            .filter(|name| !known.contains(name) && !name.contains('/') && !standard.contains(name))
            .map(|name| {
                format!(
                    "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name including a path (/) to \
                     avoid accidental conflicts with other finalizer writers"
                )
            })
            .collect()
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

/// A status write changes no metadata but what the server itself keeps there.
fn keep_all_metadata(object: &mut Value, old: &Value) {
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(old) = old["metadata"].as_object() else { return };
    let kept = |key: &str| matches!(key, "managedFields" | "resourceVersion");
    meta.retain(|key, _| kept(key));
    let fields: Map<String, Value> =
        old.iter().filter(|(k, _)| !kept(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
    meta.extend(fields);
}

/// As upstream compares unstructured objects: a key with nothing under it is not a key that is missing.
fn same_but_metadata(new: &Value, old: &Value) -> bool {
    let counts = |key: &str| !matches!(key, "metadata" | "apiVersion" | "kind");
    let own = |object| entries(object).filter(|(key, _)| counts(key)).collect::<Vec<_>>();
    own(new) == own(old)
}

impl Kind {
    /// The object that answers a write or read of a version without conversion: another `apiVersion`.
    pub fn retype(&self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            map.insert("apiVersion".into(), json!(self.api_version()));
        }
    }

    /// A kind with nothing in it, for those of CRDs to fill in.
    fn custom() -> Self {
        #[derive(Debug)]
        struct Nothing;
        impl Strategy for Nothing {}
        Self::namespaced("", "", "", "", &Nothing)
    }
}
