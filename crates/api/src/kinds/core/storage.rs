//! What volumes and claims share: access modes, storage classes, sizes.

use serde_json::Value;

use crate::kinds::print::{items, or};
use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::validation::{Errors, View, one_of};

/// How the storage class was named before it had a field.
pub(super) const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
const ACCESS_MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

/// `RWO,ROX`
pub(super) fn access_modes(modes: &Value) -> String {
    let short = ACCESS_MODES.iter().filter(|(mode, _)| items(modes).any(|m| m == mode)).map(|(_, short)| *short);
    short.collect::<Vec<_>>().join(",")
}

/// The phase, `Terminating` when it is deleted.
pub(super) fn phase(object: &Value) -> Value {
    let deleted = object["metadata"]["deletionTimestamp"].is_string();
    if deleted { "Terminating".into() } else { or(&object["status"]["phase"], "") }
}

/// The storage class, by its old name if it has one.
pub(super) fn class_column(object: &Value) -> Value {
    let old = &object["metadata"]["annotations"][STORAGE_CLASS];
    if old.is_string() { old.clone() } else { or(&object["spec"]["storageClassName"], "") }
}

/// Warnings about annotations that became fields.
pub(super) fn class_warnings(object: &Value, with_mount_options: bool) -> Vec<String> {
    let has = |name: &str| object["metadata"]["annotations"].get(name).is_some();
    let mut warnings = Vec::new();
    if has(STORAGE_CLASS) {
        warnings.push(format!(
            "metadata.annotations[{STORAGE_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    if with_mount_options && has(MOUNT_OPTIONS) {
        warnings.push(format!(
            "metadata.annotations[{MOUNT_OPTIONS}]: deprecated since v1.31; use \"mountOptions\" attribute instead"
        ));
    }
    warnings
}

/// Known modes; the one for a single pod stands alone.
pub(super) fn validate_access_modes(modes: View, errors: &mut Errors) {
    const SORTED: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let (mut single, mut shared) = (false, false);
    for mode in modes.items() {
        if SORTED.contains(&mode.str()) {
            single |= mode.str() == "ReadWriteOncePod";
            shared |= mode.str() != "ReadWriteOncePod";
        } else {
            // Upstream reports these at the list, without an index.
            errors.push(modes.with(mode.value).not_supported(&SORTED));
        }
    }
    if single && shared {
        errors.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

/// `volumeMode`, where it is set.
pub(super) fn volume_mode(mode: View, errors: &mut Errors) {
    if mode.is_set() {
        one_of(mode, &["Block", "Filesystem"], errors);
    }
}

/// A quantity above zero; it must be there.
pub(super) fn positive(path: &str, value: &Value, errors: &mut Errors) {
    match Quantity::from_value(value) {
        _ if value.is_null() => errors.push(FieldError::required(path, "")),
        Ok(amount) if amount <= Quantity::ZERO => {
            errors.push(FieldError::invalid(path, amount.to_string(), "must be greater than zero"));
        }
        Ok(_) => {}
        Err(error) => errors.push(FieldError::invalid(path, value.clone(), &error.to_string())),
    }
}

/// Amounts that are not negative.
pub(super) fn basic_resources(list: View, errors: &mut Errors) {
    for (_, amount) in list.entries() {
        if let Ok(quantity) = Quantity::from_value(amount.value)
            && quantity.is_negative()
        {
            errors.push(FieldError::invalid(amount.path(), quantity.value(), "must be a valid resource quantity"));
        }
    }
}

/// Fields that differ, old and new. Upstream prints a Go diff, whose text it does not promise.
pub(super) fn diff(new: &Value, old: &Value) -> String {
    let empty = serde_json::Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let mut keys: Vec<_> = new.keys().chain(old.keys().filter(|key| !new.contains_key(*key))).collect();
    keys.sort();
    let mut text = String::new();
    for key in keys {
        let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        let (new, old) = (side(new), side(old));
        if new != old {
            text.push_str(&format!("- \t{key}: {old},\n+ \t{key}: {new},\n"));
        }
    }
    text
}
