//! PersistentVolume

use serde_json::{Value, json};

use super::storage::{self, access_modes, class_column, class_warnings, phase, volume_mode};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{child, make, set, set_status, set_str};
use crate::kinds::pod_spec::defaults::{resource_list, volume_source};
use crate::kinds::pod_spec::sources;
use crate::kinds::pod_spec::{selector_label_warnings, validate_node_selector};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, or};
use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, immutable, immutable_as, names, one_of, same_as};

#[cfg(test)]
mod tests;

pub(crate) fn kind() -> Kind {
    Kind::cluster("", "v1", "PersistentVolume", "persistentvolumes", &PersistentVolume)
        .short("pv")
        .with_status()
        .returns_deleted()
        .columns(vec![
            Column::string("Capacity", "How big it is.", |object, _| {
                let size = Quantity::lookup(&object["spec"]["capacity"], "storage").unwrap_or_default();
                size.to_string().into()
            }),
            Column::string("Access Modes", "How it may be mounted.", |object, _| {
                access_modes(&object["spec"]["accessModes"]).into()
            }),
            Column::string("Reclaim Policy", "What becomes of it when its claim is deleted.", |object, _| {
                or(&object["spec"]["persistentVolumeReclaimPolicy"], "")
            }),
            Column::string("Status", "Whether a claim has it.", |object, _| phase(object)),
            Column::string("Claim", "The claim that has it.", |object, _| claim(&object["spec"]["claimRef"]).into()),
            Column::string("StorageClass", "Its storage class.", |object, _| class_column(object)),
            Column::string("VolumeAttributesClass", "Its volume attributes class.", |object, _| {
                or(&object["spec"]["volumeAttributesClassName"], "<unset>")
            }),
            Column::string("Reason", "Why it is in its status, in a word.", |object, _| {
                or(&object["status"]["reason"], "")
            }),
            age(),
            Column::string("VolumeMode", "A file system or a block device.", |object, _| {
                or(&object["spec"]["volumeMode"], "<unset>")
            })
            .wide(),
        ])
}

fn claim(reference: &Value) -> String {
    if !reference.is_object() {
        return String::new();
    }
    let part = |field: &str| reference[field].as_str().unwrap_or_default();
    format!("{}/{}", part("namespace"), part("name"))
}

#[derive(Debug)]
struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        if let Some(status) = make(object, "status") {
            set_str(status, "phase", "Pending");
        }
        let Some(spec) = make(object, "spec") else { return };
        set_str(spec, "persistentVolumeReclaimPolicy", "Retain");
        set(spec, "volumeMode", "Filesystem");
        volume_source(spec);
        if let Some(capacity) = child(spec, "capacity") {
            resource_list(capacity);
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
        if write == Write::Create {
            let mut status = json!({"phase": "Pending"});
            let now = &object["metadata"]["creationTimestamp"];
            if let (Some(map), true) = (status.as_object_mut(), now.is_string()) {
                map.insert("lastPhaseTransitionTime".into(), now.clone());
            }
            set_status(object, status);
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        if matches!(write, Write::Subresource(..)) {
            return errors;
        }
        validate_spec(root.get("spec"), &mut errors);
        if let Write::Update(old) = write {
            validate_update(root.get("spec"), &old["spec"], &mut errors);
        }
        errors
    }

    fn warnings(&self, object: &Value, write: Write<'_>) -> Vec<String> {
        if matches!(write, Write::Subresource(..)) {
            return Vec::new();
        }
        let mut warnings = class_warnings(object, true);
        let spec = View::at("spec", &object["spec"]);
        if spec.get("persistentVolumeReclaimPolicy").str() == "Recycle" {
            warnings.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
                 approach is to use dynamic provisioning."
                    .into(),
            );
        }
        let affinity = spec.get("nodeAffinity");
        let required = affinity.get("required");
        for term in required.get("nodeSelectorTerms").items() {
            warnings.extend(selector_label_warnings(term));
        }
        for (source, since) in [
            ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
            ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
            ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
            ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
            ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
        ] {
            if spec.get(source).is_set() {
                // Upstream spells two of these differently from the field.
                let source = match source {
                    "cephfs" => "cephFS",
                    "storageos" => "storageOS",
                    _ => source,
                };
                warnings.push(format!("spec.{source}: {since}"));
            }
        }
        warnings
    }
}

fn validate_spec(spec: View, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        errors.push(modes.required(""));
    }
    storage::validate_access_modes(modes, errors);
    let capacity = spec.get("capacity");
    if capacity.is_empty() {
        errors.push(capacity.required(""));
    }
    if capacity.len() != 1 || !capacity.get("storage").is_set() {
        let shown = if capacity.is_set() { capacity.value.clone() } else { Value::Null };
        errors.push(FieldError::not_supported(capacity.path(), shown, &["storage"]));
    }
    storage::basic_resources(capacity, errors);
    for (_, amount) in capacity.entries() {
        storage::positive(&amount.path(), amount.value, errors);
    }
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        one_of(policy, &["Delete", "Recycle", "Retain"], errors);
    }
    let affinity = spec.get("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.get("required");
        if required.is_set() {
            validate_node_selector(required, errors);
        } else {
            errors.push(required.required("must specify required node constraints"));
        }
    }
    source(spec, affinity, errors);
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        checked(class, names::subdomain, errors);
    }
    volume_mode(spec.get("volumeMode"), errors);
    attributes_class(spec, errors);
}

fn attributes_class(spec: View, errors: &mut Errors) {
    let class = spec.get("volumeAttributesClassName");
    if class.is_set() {
        if class.is_empty() {
            errors.push(class.required("an empty string is disallowed"));
        } else {
            checked(class, names::subdomain, errors);
        }
        if !spec.get("csi").is_set() {
            errors.push(spec.get("csi").required("has to be specified when using volumeAttributesClassName"));
        }
    }
}

/// The spec of a volume that is no object of its own (`inlineVolumeSpec` of an attachment).
pub(crate) fn validate_inline(spec: View, errors: &mut Errors) {
    const HERE: &str = "in the context of inline volumes";
    let forbidden = format!("may not be specified {HERE}");
    let forbid = |field: View, errors: &mut Errors| {
        if !field.is_empty() {
            errors.push(field.forbidden(&forbidden));
        }
    };
    let (csi, modes, affinity) = (spec.get("csi"), spec.get("accessModes"), spec.get("nodeAffinity"));
    let (policy, mode) = (spec.get("persistentVolumeReclaimPolicy"), spec.get("volumeMode"));
    if spec.get("claimRef").is_set() {
        errors.push(spec.get("claimRef").forbidden(&forbidden));
    }
    forbid(spec.get("capacity"), errors);
    if !csi.is_set() {
        errors.push(csi.required(&format!("has to be specified {HERE}")));
    }
    if modes.is_empty() {
        errors.push(modes.required(""));
    }
    storage::validate_access_modes(modes, errors);
    if !policy.is_empty() && policy.str() != "Retain" {
        errors.push(policy.forbidden(&format!("may only be Retain {HERE}")));
    }
    if affinity.is_set() {
        errors.push(affinity.forbidden(&forbidden));
    }
    source(spec, affinity, errors);
    forbid(spec.get("storageClassName"), errors);
    if mode.is_set() && mode.str() != "Filesystem" {
        errors.push(mode.forbidden(&format!("may not specify volumeMode other than Filesystem {HERE}")));
    }
    attributes_class(spec, errors);
}

/// Exactly one volume source.
fn source(spec: View, affinity: View, errors: &mut Errors) {
    let mut count = 0;
    for name in sources::PERSISTENT {
        let source = spec.get(name);
        if !source.is_set() {
            continue;
        }
        count += 1;
        if count > 1 {
            errors.push(source.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        sources::persistent(name, source, errors);
        if name == "local" && !affinity.get("required").is_set() {
            errors.push(affinity.required("Local volume requires node affinity"));
        }
    }
    if count == 0 {
        errors.push(spec.required("must specify a volume type"));
    }
    let path = spec.value["hostPath"]["path"].as_str().unwrap_or_default();
    let policy = spec.get("persistentVolumeReclaimPolicy");
    let is_root = path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "."));
    if is_root && policy.str() == "Recycle" {
        errors.push(policy.forbidden("may not be 'recycle' for a hostPath mount of '/'"));
    }
}

fn validate_update(spec: View, old: &Value, errors: &mut Errors) {
    let mut source = serde_json::Map::new();
    let mut old_source = serde_json::Map::new();
    for name in sources::PERSISTENT {
        for (map, value) in [(&mut source, &spec.value[name]), (&mut old_source, &old[name])] {
            if !value.is_null() {
                map.insert(name.into(), value.clone());
            }
        }
    }
    // It may be set once.
    let expand = "controllerExpandSecretRef";
    if old["csi"].is_object()
        && old["csi"][expand].is_null()
        && let Some(csi) = child(&mut source, "csi")
    {
        csi.remove(expand);
    }
    let (source, old_source) = (Value::Object(source), Value::Object(old_source));
    if !same_as("api.core.v1.PersistentVolumeSource", &source, &old_source) {
        let diff = storage::diff(&source, &old_source);
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{diff}");
        errors.push(FieldError::forbidden("spec.persistentvolumesource", &detail));
    }
    immutable(View::at("volumeMode", spec.get("volumeMode").value), &old["volumeMode"], errors);
    if old["nodeAffinity"].is_object() {
        let affinity = View::at("nodeAffinity", spec.get("nodeAffinity").value);
        immutable_as("api.core.v1.VolumeNodeAffinity", affinity, &old["nodeAffinity"], errors);
    }
    let class = spec.get("volumeAttributesClassName");
    if old["volumeAttributesClassName"].is_string() && !class.is_set() {
        errors.push(class.forbidden("update from non-nil value to nil is forbidden"));
    }
}
