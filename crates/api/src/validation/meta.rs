//! `ObjectMeta`: what a create and an update do to it before validation, and its rules. The API server calls these for
//! every kind; what is special about one kind's name is its [`NameRule`].

use serde_json::{Value, json};

use super::{Errors, View, immutable, labels, names};
use crate::kind::{Kind, NameRule, Scope};
use crate::status::FieldError;

impl NameRule {
    /// The check for a whole name.
    pub fn check(self) -> fn(&str) -> Vec<String> {
        match self {
            Self::DnsSubdomain => names::subdomain,
            Self::DnsLabel => names::label,
            Self::Dns1035Label => names::label_1035,
            Self::PathSegment => names::path_segment,
            Self::Ip => names::canonical_ip,
        }
    }
}

/// Drops what a client may not say in a create: deletion marks, `selfLink`. Name, UID, time and managed fields are the
/// caller's.
pub fn before_create(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            meta.remove(field);
        }
    }
}

/// Carries over from `old` what an update may leave out or may not change: UID, creation and deletion marks,
/// generation. Runs before the strategy's `prepare`.
pub fn before_update(object: &mut Value, old: &Value) {
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let old = &old["metadata"];
    if meta.get("uid").is_none_or(|uid| uid.as_str().unwrap_or_default().is_empty()) {
        meta.insert("uid".into(), old["uid"].clone());
    }
    for field in ["creationTimestamp", "generation", "deletionTimestamp"] {
        match old.get(field) {
            Some(value) => drop(meta.insert(field.into(), value.clone())),
            // Nothing but a delete may set these.
            None => drop(meta.remove(field)),
        }
    }
    match old.get("deletionGracePeriodSeconds") {
        Some(seconds) if !meta.contains_key("deletionGracePeriodSeconds") => {
            meta.insert("deletionGracePeriodSeconds".into(), seconds.clone());
        }
        _ => {}
    }
    meta.remove("selfLink");
}

/// Metadata of a new object of `kind`. The name has been generated if it was to be.
pub fn validate_create(kind: &Kind, object: &Value) -> Errors {
    let mut errors = Errors::new();
    let object = View::root(object);
    let meta = object.get("metadata");
    let check = kind.strategy.name_rule().check();

    let generate_name = meta.get("generateName");
    if !generate_name.is_empty() {
        let complaints = names::prefix(generate_name.str(), check);
        errors.extend(complaints.iter().map(|complaint| generate_name.invalid_str(complaint)));
    }
    let name = meta.get("name");
    if name.is_empty() {
        errors.push(name.required("name or generateName is required"));
    } else {
        errors.extend(check(name.str()).iter().map(|complaint| name.invalid_str(complaint)));
    }
    let namespace = meta.get("namespace");
    match (kind.scope, namespace.is_empty()) {
        (Scope::Namespaced, true) => errors.push(namespace.required("")),
        (Scope::Namespaced, false) => super::checked(namespace, names::label, &mut errors),
        (Scope::Cluster, true) => {}
        (Scope::Cluster, false) => errors.push(namespace.forbidden("not allowed on this type")),
    }
    super::non_negative(meta.get("generation"), &mut errors);
    validate_common(meta, &mut errors);
    validate_finalizers(meta.get("finalizers"), &mut errors);
    errors
}

/// Metadata of a changed object. `object` has been through [`before_update`].
pub fn validate_update(_kind: &Kind, object: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let object = View::root(object);
    let meta = object.get("metadata");
    let old = &old["metadata"];

    if old["deletionTimestamp"].is_string() {
        let known = old["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let finalizers = meta.get("finalizers");
        let new: Vec<_> =
            finalizers.items().filter(|f| !known.contains(f.value)).map(|f| format!("{:?}", f.str())).collect();
        if !new.is_empty() {
            errors.push(finalizers.forbidden(&format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                new.join(", ")
            )));
        }
    }
    let resource_version = meta.get("resourceVersion");
    if resource_version.is_empty() {
        errors.push(resource_version.invalid_str("must be specified for an update"));
    }
    let generation = meta.get("generation");
    if generation.int().unwrap_or(0) < old["generation"].as_i64().unwrap_or(0) {
        errors.push(FieldError::invalid(generation.path(), generation.int().unwrap_or(0), "must not be decremented"));
    }
    let fields = ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    for field in fields {
        immutable(meta.get(field), &old[field], &mut errors);
    }
    validate_common(meta, &mut errors);
    let finalizers = meta.get("finalizers");
    if !super::same(finalizers.value, &old["finalizers"]) {
        validate_finalizers(finalizers, &mut errors);
    }
    errors
}

fn validate_common(meta: View, errors: &mut Errors) {
    labels::validate(meta.get("labels"), errors);
    labels::validate_annotations(meta.get("annotations"), errors);
    validate_owner_references(meta.get("ownerReferences"), errors);
}

fn validate_owner_references(references: View, errors: &mut Errors) {
    let mut controller: Option<&str> = None;
    for reference in references.items() {
        // Upstream reports these at the list, without an index.
        let at = |field: &str| format!("{}.{field}", references.path());
        let api_version = reference.get("apiVersion").str();
        if api_version.rsplit('/').next().unwrap_or_default().is_empty() {
            errors.push(FieldError::invalid(at("apiVersion"), api_version, "version must not be empty"));
        }
        for field in ["kind", "name", "uid"] {
            if reference.get(field).is_empty() {
                errors.push(FieldError::invalid(at(field), "", "must not be empty"));
            }
        }
        if api_version == "v1" && reference.get("kind").str() == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(references.path(), reference.value.clone(), detail));
        }
        if reference.get("controller").bool() {
            let name = reference.get("name").str();
            match controller {
                None => controller = Some(name),
                Some(first) => errors.push(references.invalid(&format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                ))),
            }
        }
    }
}

/// `metadata.finalizers`: qualified names, or those Kubernetes itself knows.
pub fn validate_finalizers(finalizers: View, errors: &mut Errors) {
    for finalizer in finalizers.items() {
        let complaints = names::qualified(finalizer.str());
        errors.extend(
            complaints.iter().map(|complaint| FieldError::invalid(finalizers.path(), finalizer.str(), complaint)),
        );
    }
    let has = |name: &str| finalizers.items().any(|f| f.str() == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.push(finalizers.invalid("finalizer orphan and foregroundDeletion cannot be both set"));
    }
    for finalizer in finalizers.items() {
        validate_kubernetes_finalizer(finalizer, errors);
    }
}

/// A finalizer without a slash must be one that Kubernetes knows.
pub fn validate_kubernetes_finalizer(finalizer: View, errors: &mut Errors) {
    let name = finalizer.str();
    if !name.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name) {
        errors.push(finalizer.invalid_str("name is neither a standard finalizer name nor is it fully qualified"));
    }
}

/// `{"apiVersion":…,"kind":…}` filled in where a client left them out.
pub fn set_type(kind: &Kind, object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), json!(kind.api_version()));
        map.insert("kind".into(), json!(kind.kind));
    }
}
