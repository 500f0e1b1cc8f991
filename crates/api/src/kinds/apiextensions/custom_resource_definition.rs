//! CustomResourceDefinition. What its objects are is in [`crate::crd`]; serving them, and most of its status, is the API
//! server's.

use serde_json::{Value, json};

use crate::kind::{Kind, Strategy, Write};
use crate::kinds::mutate::{self, Rules, child, make, set, set_str};
use crate::kinds::print::created_at;
use crate::status::FieldError;
use crate::validation::View;

mod accept;
#[cfg(test)]
mod tests;
mod validate;

pub use accept::accept;

/// Keeps a deleted definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

pub(super) fn kind() -> Kind {
    Kind::cluster(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &CustomResourceDefinition,
    )
    .schema("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition")
    .short("crd")
    .short("crds")
    .category("api-extensions")
    .with_status()
    .columns(vec![created_at()])
}

#[derive(Debug)]
struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| child(object, "spec")) else { return };
        if let Some(names) = child(spec, "names") {
            let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            if !kind.is_empty() {
                set_str(names, "singular", &kind.to_ascii_lowercase());
                set_str(names, "listKind", &format!("{kind}List"));
            }
        }
        if let Some(conversion) = make(spec, "conversion") {
            set(conversion, "strategy", "None");
            let config = child(conversion, "webhook").and_then(|webhook| child(webhook, "clientConfig"));
            if let Some(service) = config.and_then(|config| child(config, "service")) {
                set(service, "port", 443);
            }
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        mutate::prepare(object, write, Rules { generation: true, create_with_status: false });
        if !matches!(write, Write::Create | Write::Update(_)) {
            return;
        }
        // Whatever is a storage version from now on will have been one.
        let versions = object["spec"]["versions"].as_array().into_iter().flatten();
        let storage = versions.filter(|v| v["storage"] == true).filter_map(|v| v["name"].as_str().map(str::to_owned));
        let storage: Vec<String> = storage.collect();
        let Some(status) = object.as_object_mut().and_then(|object| make(object, "status")) else { return };
        set(status, "storedVersions", json!([]));
        for (field, empty) in [("conditions", json!([])), ("acceptedNames", json!({"kind": "", "plural": ""}))] {
            if write == Write::Create {
                set(status, field, empty);
            }
        }
        if let Some(stored) = status.get_mut("storedVersions").and_then(Value::as_array_mut) {
            for version in storage.into_iter().map(Value::from) {
                if !stored.contains(&version) {
                    stored.push(version);
                }
            }
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        validate::validate(View::root(object), write)
    }

    fn mark_deleted(&self, object: &mut Value) {
        let now = object["metadata"]["deletionTimestamp"].clone();
        if let Some(meta) = object.as_object_mut().and_then(|object| make(object, "metadata"))
            && let Some(finalizers) = {
                set(meta, "finalizers", json!([]));
                meta.get_mut("finalizers").and_then(Value::as_array_mut)
            }
            && !finalizers.iter().any(|finalizer| finalizer == FINALIZER)
        {
            finalizers.push(FINALIZER.into());
        }
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        set_condition(object, "Terminating", true, "InstanceDeletionPending", message, &now);
    }

    /// A definition is never removed at once: the first delete only marks it.
    fn held(&self, object: &Value) -> bool {
        object["metadata"]["deletionTimestamp"].is_null()
    }
}

/// A condition of a definition's status.
pub fn condition<'a>(object: &'a Value, ty: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == ty)
}

/// Sets a condition; its time changes with its status. Says whether anything changed.
pub fn set_condition(object: &mut Value, ty: &str, status: bool, reason: &str, message: &str, now: &Value) -> bool {
    let status: Value = if status { "True" } else { "False" }.into();
    let old = condition(object, ty);
    if old.is_some_and(|old| old["status"] == status && old["reason"] == reason && old["message"] == message) {
        return false;
    }
    let since = match old {
        Some(old) if old["status"] == status => old["lastTransitionTime"].clone(),
        _ => now.clone(),
    };
    let new = json!({"type": ty, "status": status, "reason": reason, "message": message, "lastTransitionTime": since});
    let Some(map) = object.as_object_mut().and_then(|object| make(object, "status")) else { return false };
    set(map, "conditions", json!([]));
    let Some(conditions) = map.get_mut("conditions").and_then(Value::as_array_mut) else { return false };
    match conditions.iter_mut().find(|condition| condition["type"] == ty) {
        Some(condition) => *condition = new,
        None => conditions.push(new),
    }
    true
}
