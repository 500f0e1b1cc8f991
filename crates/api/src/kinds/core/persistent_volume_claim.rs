//! PersistentVolumeClaim; also what its templates (stateful sets, ephemeral volumes) need.

use serde_json::{Value, json};

use super::storage::{self, STORAGE_CLASS, access_modes, class_column, class_warnings, phase, volume_mode};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{Object, child, make, set, set_status, set_str};
use crate::kinds::pod_spec::defaults::resource_list;
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, or};
use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, immutable, labels, names, required, same_as};

#[cfg(test)]
mod tests;

const RESIZE_STATES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", &PersistentVolumeClaim)
        .short("pvc")
        .with_status()
        .returns_deleted()
        .columns(vec![
            Column::string("Status", "Whether it has a volume.", |object, _| phase(object)),
            Column::string("Volume", "The volume it has.", |object, _| or(&object["spec"]["volumeName"], "")),
            Column::string("Capacity", "How big the volume is.", |object, _| {
                if !has_volume(object) {
                    return "".into();
                }
                let size = Quantity::lookup(&object["status"]["capacity"], "storage").unwrap_or_default();
                size.to_string().into()
            }),
            Column::string("Access Modes", "How the volume may be mounted.", |object, _| {
                if has_volume(object) { access_modes(&object["status"]["accessModes"]).into() } else { "".into() }
            }),
            Column::string("StorageClass", "Its storage class.", |object, _| class_column(object)),
            Column::string("VolumeAttributesClass", "Its volume attributes class.", |object, _| {
                or(&object["spec"]["volumeAttributesClassName"], "<unset>")
            }),
            age(),
            Column::string("VolumeMode", "A file system or a block device.", |object, _| {
                or(&object["spec"]["volumeMode"], "<unset>")
            })
            .wide(),
        ])
}

fn has_volume(object: &Value) -> bool {
    object["spec"]["volumeName"].as_str().is_some_and(|name| !name.is_empty())
}

#[derive(Debug)]
struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        if let Some(object) = object.as_object_mut() {
            defaults(object);
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
        let old = match write {
            Write::Create => {
                set_status(object, json!({"phase": "Pending"}));
                None
            }
            Write::Update(old) => Some(&old["spec"]),
            Write::Subresource(..) => return,
        };
        if let Some(spec) = object.as_object_mut().and_then(|object| child(object, "spec")) {
            data_sources(spec, old);
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        match write {
            Write::Subresource(..) => validate_status(root, &mut errors),
            Write::Create => validate_spec(root.get("spec"), &mut errors),
            Write::Update(old) => {
                validate_spec(root.get("spec"), &mut errors);
                validate_update(root, old, &mut errors);
            }
        }
        errors
    }

    fn warnings(&self, object: &Value, write: Write<'_>) -> Vec<String> {
        if matches!(write, Write::Subresource(..)) {
            return Vec::new();
        }
        let mut warnings = class_warnings(object, false);
        warnings.extend(spec_warnings(View::at("spec", &object["spec"])));
        warnings
    }
}

/// Defaults of a claim or of a template for one.
pub(crate) fn defaults(claim: &mut Object) {
    if let Some(status) = make(claim, "status") {
        set_str(status, "phase", "Pending");
    }
    if let Some(spec) = make(claim, "spec") {
        spec_defaults(spec);
    }
}

/// Defaults of a claim's spec.
pub(crate) fn spec_defaults(spec: &mut Object) {
    set(spec, "volumeMode", "Filesystem");
    if let Some(resources) = child(spec, "resources") {
        for list in ["limits", "requests"] {
            if let Some(list) = child(resources, list) {
                resource_list(list);
            }
        }
    }
}

/// One of `dataSource` and `dataSourceRef` fills in the other. The first is dropped where it names what only the second
/// can; no source is in another namespace.
fn data_sources(spec: &mut Object, old: Option<&Value>) {
    if let Some(reference) = child(spec, "dataSourceRef") {
        reference.remove("namespace");
    }
    let old_source = old.map_or(&Value::Null, |old| &old["dataSource"]);
    if !old_source.is_object() && !is_claim_or_snapshot(spec.get("dataSource")) {
        spec.remove("dataSource");
    }
    if old.is_some() {
        return;
    }
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), None) => drop(spec.insert("dataSourceRef".into(), source)),
        (None, Some(reference)) => drop(spec.insert("dataSource".into(), reference)),
        _ => {}
    }
}

fn is_claim_or_snapshot(source: Option<&Value>) -> bool {
    let Some(source) = source else { return false };
    let group = source["apiGroup"].as_str().unwrap_or_default();
    matches!(
        (group, source["kind"].as_str().unwrap_or_default()),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    )
}

/// Warnings about the spec of a claim or of a template for one.
pub(crate) fn spec_warnings(spec: View) -> Vec<String> {
    let resources = spec.get("resources");
    let requests = resources.get("requests");
    let storage = requests.get("storage");
    match Quantity::from_value(storage.value) {
        Ok(amount) if !amount.is_integer() => {
            let path = requests.path();
            vec![format!(
                "{path}[storage]: fractional byte value {:?} is invalid, must be an integer",
                amount.to_string()
            )]
        }
        _ => Vec::new(),
    }
}

/// The spec of a claim or of a template for one.
pub(crate) fn validate_spec(spec: View, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        errors.push(modes.required("at least 1 access mode is required"));
    }
    labels::validate_selector(spec.get("selector"), errors);
    storage::validate_access_modes(modes, errors);
    let resources = spec.get("resources");
    let requested = resources.value["requests"].get("storage").unwrap_or(&Value::Null);
    let path = format!("{}[storage]", resources.path());
    storage::positive(&path, requested, errors);
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        checked(class, names::subdomain, errors);
    }
    volume_mode(spec.get("volumeMode"), errors);
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    for view in [source, reference] {
        if view.is_set() {
            data_source(view, errors);
        }
    }
    let mismatch = |detail: &str| FieldError::invalid(spec.path(), source.path(), detail);
    if !reference.get("namespace").is_empty() {
        checked(reference.get("namespace"), names::label, errors);
        if source.is_set() {
            errors.push(mismatch("may not be specified when dataSourceRef.namespace is specified"));
        }
    } else if source.is_set() && reference.is_set() {
        let differs = |field| source.get(field).str() != reference.get(field).str();
        if ["apiGroup", "kind", "name"].into_iter().any(differs) {
            errors.push(mismatch("must match dataSourceRef"));
        }
    }
    let class = spec.get("volumeAttributesClassName");
    if !class.is_empty() {
        checked(class, names::subdomain, errors);
    }
}

fn data_source(source: View, errors: &mut Errors) {
    required(source.get("name"), errors);
    required(source.get("kind"), errors);
    let (group, kind) = (source.get("apiGroup"), source.get("kind").str());
    if group.is_empty() {
        if kind != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(source.path(), kind, detail));
        }
    } else {
        checked(group, names::subdomain, errors);
    }
}

fn validate_update(root: View, old: &Value, errors: &mut Errors) {
    let spec = root.get("spec");
    let bound = root.value["status"]["phase"] == "Bound";
    let class = |object: &Value| object["metadata"]["annotations"][STORAGE_CLASS].as_str().map(String::from);
    let (old_class, new_class) = (class(old), class(root.value));
    let (old_name, new_name) = (&old["spec"]["storageClassName"], spec.get("storageClassName"));
    let mut thawed = spec.value.clone();
    let mut restore = |path: &[&str]| restore(&mut thawed, &old["spec"], path);
    if !has_volume(old) {
        restore(&["volumeName"]);
    }
    let named = |class: &Option<String>| class.as_deref().is_some_and(|class| new_name.value == class);
    let from_annotation = old_name.is_null() && named(&old_class) && (new_class.is_none() || new_class == old_class);
    if !from_annotation && new_class.as_deref().unwrap_or_default() != old_class.as_deref().unwrap_or_default() {
        let shown = new_class.as_deref().unwrap_or_default();
        let path = format!("metadata.annotations[{STORAGE_CLASS}]");
        errors.push(FieldError::invalid(path, shown, "field is immutable"));
    }
    // A class may be given once to a claim that has none.
    let from_nothing = new_name.is_set() && old_name.is_null() && (old_class.is_none() || named(&old_class));
    if from_annotation || from_nothing {
        restore(&["storageClassName"]);
    }
    if bound {
        restore(&["resources", "requests", "storage"]);
        if spec.get("volumeAttributesClassName").is_set() {
            restore(&["volumeAttributesClassName"]);
        }
    }
    if !same_as("api.core.v1.PersistentVolumeClaimSpec", &thawed, &old["spec"]) {
        let detail =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(spec.forbidden(&format!("{detail}\n{}", storage::diff(&thawed, &old["spec"]))));
    }
    let size = |spec: &Value| Quantity::lookup(&spec["resources"]["requests"], "storage").unwrap_or_default();
    let capacity = Quantity::lookup(&old["status"]["capacity"], "storage").unwrap_or_default();
    // Going back on a growth that failed is allowed, shrinking is not.
    if size(spec.value) < size(&old["spec"]) && size(spec.value) <= capacity {
        let path = "spec.resources.requests.storage";
        errors.push(FieldError::forbidden(path, "field can not be less than status.capacity"));
    }
    immutable(View::at("volumeMode", spec.get("volumeMode").value), &old["spec"]["volumeMode"], errors);
    let class = spec.get("volumeAttributesClassName");
    if old["spec"]["volumeAttributesClassName"].is_string() {
        if !class.is_set() {
            errors.push(class.forbidden("update from non-nil value to nil is forbidden"));
        } else if class.is_empty() {
            errors.push(class.forbidden("update from non-nil value to an empty string is forbidden"));
        }
    }
}

/// `new` at `path` becomes what `old` has there, if `new` has the map it is in.
fn restore(new: &mut Value, old: &Value, path: &[&str]) {
    let (Some(map), Some((first, rest))) = (new.as_object_mut(), path.split_first()) else { return };
    let old = &old[*first];
    if !rest.is_empty() {
        if let Some(inner) = map.get_mut(*first) {
            restore(inner, old, rest);
        }
    } else if old.is_null() {
        map.remove(*first);
    } else {
        map.insert((*first).into(), old.clone());
    }
}

fn validate_status(root: View, errors: &mut Errors) {
    if root.get("spec").get("accessModes").is_empty() {
        errors.push(FieldError::required("Spec.accessModes", ""));
    }
    let status = root.get("status");
    storage::basic_resources(status.get("capacity"), errors);
    let states = status.get("allocatedResourceStatuses");
    for (name, state) in states.entries() {
        resource_key(name, states, errors);
        if !RESIZE_STATES.contains(&state.str()) {
            let mut sorted = RESIZE_STATES;
            sorted.sort_unstable();
            errors.push(FieldError::not_supported(states.path(), name, &sorted));
        }
    }
    let allocated = status.get("allocatedResources");
    for (name, _) in allocated.entries() {
        resource_key(name, allocated, errors);
    }
    storage::basic_resources(allocated, errors);
}

/// Storage, or the name of a foreign resource.
fn resource_key(name: &str, list: View, errors: &mut Errors) {
    let complaints = names::qualified(name);
    errors.extend(complaints.iter().map(|complaint| FieldError::invalid(list.path(), name, complaint)));
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if complaints.is_empty() && native && name != "storage" {
        errors.push(FieldError::not_supported(list.path(), name, &["storage"]));
    }
}
