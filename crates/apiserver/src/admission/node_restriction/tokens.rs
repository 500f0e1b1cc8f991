//! Which tokens a kubelet may ask for: bound to a pod that it runs, for an audience that one of the pod's volumes names
//! (KEP-4193, `ServiceAccountNodeAudienceRestriction`).

use keelson_api::status::Status;
use serde_json::Value;

use super::super::{Operation, Request};
use crate::authz::Attributes;

/// The verb that lets a kubelet ask for an audience (the resource) that no volume names.
const ANY_AUDIENCE: &str = "request-serviceaccounts-token-audience";

/// Judges a `TokenRequest`.
pub(super) async fn judge(request: &Request<'_>, node: &str, object: &Value) -> Result<(), Status> {
    if request.operation != Operation::Create {
        return Ok(());
    }
    let refuse = |why: &str| Err(request.forbidden(why));
    let bound = &object["spec"]["boundObjectRef"];
    let text = |field: &str| bound[field].as_str().unwrap_or_default();
    let name = text("name");
    if text("apiVersion") != "v1" || text("kind") != "Pod" || name.is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let uid = text("uid");
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pods = request.core.registry.known("", "pods")?;
    let pod = pods.cache()?.get(request.namespace, name).ok_or_else(|| pods.not_found(name))?.decode()?;
    if pod.pointer("/metadata/uid").is_none_or(|found| found != uid) {
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        ));
    }
    if pod.pointer("/spec/nodeName").is_none_or(|of| of != node) {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    let audiences = object.pointer("/spec/audiences").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let audience = match audiences {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return refuse("node may only request 0 or 1 audiences"),
    };
    if names_audience(request, &pod, audience) {
        return Ok(());
    }
    let may = Attributes::on(ANY_AUDIENCE, "", audience, request.namespace, request.name);
    if !audience.is_empty() && request.core.authorizer.decide(request.user, &may).await.allowed {
        return Ok(());
    }
    let user = &request.user.name;
    refuse(&format!(
        "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
    ))
}

/// Whether a volume of the pod has a token for this audience, or a driver that asks for one.
fn names_audience(request: &Request<'_>, pod: &Value, audience: &str) -> bool {
    let is = |token: &Value| token.get("audience").and_then(Value::as_str).unwrap_or_default() == audience;
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    for volume in volumes {
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten();
        if sources.filter_map(|source| source.get("serviceAccountToken")).any(is) {
            return true;
        }
        let asks = |driver: String| {
            let driver = cached(request, "storage.k8s.io", "csidrivers", "", &driver);
            let tokens = driver.as_ref().and_then(|driver| driver.pointer("/spec/tokenRequests")?.as_array());
            tokens.into_iter().flatten().any(is)
        };
        if driver_of(request, pod, volume).is_some_and(asks) {
            return true;
        }
    }
    false
}

/// The CSI driver of a volume, if it has one.
fn driver_of(request: &Request<'_>, pod: &Value, volume: &Value) -> Option<String> {
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
    if let Some(driver) = text(volume, "/csi/driver") {
        return Some(driver);
    }
    let claim = match text(volume, "/persistentVolumeClaim/claimName") {
        Some(claim) => claim,
        None if volume.get("ephemeral").is_some_and(Value::is_object) => {
            format!("{}-{}", text(pod, "/metadata/name")?, text(volume, "/name")?)
        }
        None => return None,
    };
    let claim = cached(request, "", "persistentvolumeclaims", request.namespace, &claim)?;
    let volume = cached(request, "", "persistentvolumes", "", &text(&claim, "/spec/volumeName")?)?;
    text(&volume, "/spec/csi/driver")
}

fn cached(request: &Request<'_>, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
    request.core.cache.resource(group, resource)?.get(namespace, name)?.decode().ok()
}
