//! PersistentVolumeClaimResize: only bound claims grow, and only if their class allows it.

use keelson_api::quantity::Quantity;
use keelson_api::status::Status;
use serde::Deserialize;
use serde_json::Value;

use super::{Operation, Request};

pub(super) fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let Some(old) = request.old.filter(|_| request.operation == Operation::Update) else { return Ok(()) };
    if !request.is("", "persistentvolumeclaims") {
        return Ok(());
    }
    let size = |claim: &Value| Quantity::lookup(&claim["spec"]["resources"]["requests"], "storage").unwrap_or_default();
    if size(object) <= size(old) {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let class = class(object);
    if class.is_empty() || class != self::class(old) || !allows_expansion(request, class)? {
        return Err(request.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ));
    }
    Ok(())
}

/// The claim's storage class, by the field or by the annotation that came before it.
fn class(claim: &Value) -> &str {
    let annotated = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    annotated.or_else(|| claim["spec"]["storageClassName"].as_str()).unwrap_or_default()
}

fn allows_expansion(request: &Request<'_>, class: &str) -> Result<bool, Status> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Class {
        #[serde(default)]
        allow_volume_expansion: Option<bool>,
    }
    let classes = request.core.registry.known("storage.k8s.io", "storageclasses")?.cache()?;
    let Some(class) = classes.get("", class) else { return Ok(false) };
    Ok(class.typed::<Class>()?.allow_volume_expansion == Some(true))
}
