//! StorageObjectInUseProtection: volumes, claims and attributes classes are made with a finalizer, which the protection controllers take away
//! when nobody uses them any more.

use serde_json::{Value, json};

use super::{Operation, Request};

pub(super) fn mutate(request: &Request<'_>, object: &mut Value) {
    if request.operation != Operation::Create {
        return;
    }
    let finalizer = if request.is("", "persistentvolumeclaims") {
        "kubernetes.io/pvc-protection"
    } else if request.is("", "persistentvolumes") {
        "kubernetes.io/pv-protection"
    } else if request.is("storage.k8s.io", "volumeattributesclasses") {
        "kubernetes.io/vac-protection"
    } else {
        return;
    };
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
    if finalizers.is_null() {
        *finalizers = json!([]);
    }
    if let Some(finalizers) = finalizers.as_array_mut().filter(|all| !all.iter().any(|one| one == finalizer)) {
        finalizers.push(finalizer.into());
    }
}
