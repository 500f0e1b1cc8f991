//! What a kubelet may do with pods: create and delete those that stand for its static ones, say how its pods are, evict them.

use keelson_api::status::Status;
use serde_json::Value;

use super::super::{Operation, Request};
use crate::authz::node::Reference;

const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";

pub(super) fn judge(request: &Request<'_>, node: &str, object: &Value) -> Result<(), Status> {
    let on = |pod: Option<&Value>| pod.and_then(|p| p.pointer("/spec/nodeName")).is_some_and(|n| n == node);
    let refuse = |why: String| Err(request.forbidden(&why));
    let labels = |pod: &Value| pod.pointer("/metadata/labels").cloned().unwrap_or_default();
    let claims = |pod: &Value| {
        let of = |field: &str| pod.get("status").and_then(|status| status.get(field)).cloned().unwrap_or_default();
        (of("resourceClaimStatuses"), of("extendedResourceClaimStatus"))
    };
    match (request.operation, request.subresource) {
        (Operation::Create, "") if object.pointer(MIRROR).is_none() => refuse(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
        )),
        (Operation::Create, "") if !on(Some(object)) => {
            refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"))
        }
        (Operation::Create, "") => {
            judge_owner(request, node, object)?;
            // What a pod of its own refers to, a kubelet may read: it must not choose that itself.
            match referred(object) {
                Some(what) => refuse(format!("node {node:?} can not create pods that reference {what}")),
                None => Ok(()),
            }
        }
        (Operation::Delete, "") if !on(request.old) => {
            refuse(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        (operation @ Operation::Update, "") => {
            let operation = format!("{operation:?}").to_uppercase();
            refuse(format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"))
        }
        (Operation::Update, "status") if !on(request.old) => {
            refuse(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"))
        }
        (Operation::Update, "status") if request.old.is_some_and(|old| labels(old) != labels(object)) => {
            refuse(format!("node {node:?} cannot update labels through pod status"))
        }
        // They lead to what a kubelet may read.
        (Operation::Update, "status") if request.old.is_some_and(|old| claims(old) != claims(object)) => {
            refuse(format!("node {node:?} cannot update resource claim statues"))
        }
        (Operation::Create, "eviction") if !on(request.old) => {
            refuse(format!("node {node:?} can only evict pods with spec.nodeName set to itself"))
        }
        (_, "" | "status" | "eviction") => Ok(()),
        (_, other) => refuse(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed")),
    }
}

/// A mirror pod belongs to its node, and so goes with it.
fn judge_owner(request: &Request<'_>, node: &str, pod: &Value) -> Result<(), Status> {
    let refuse = |why: String| Err(request.forbidden(&why));
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).map(Vec::as_slice);
    let owner = match owners.unwrap_or_default() {
        [] => return refuse(format!("node {node:?} can only create pods with an owner reference set to itself")),
        [owner] => owner,
        _ => return refuse(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    };
    let is = |field: &str, value: &str| owner.get(field).is_some_and(|v| v == value);
    let flag = |field: &str| owner.get(field).is_some_and(|v| v == true);
    if !is("apiVersion", "v1") || !is("kind", "Node") || !is("name", node) {
        return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if !flag("controller") {
        return refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if flag("blockOwnerDeletion") {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let nodes = request.core.registry.known("", "nodes")?;
    let found = nodes.cache()?.get("", node).ok_or_else(|| nodes.not_found(node))?.decode()?;
    let uid = |object: &Value, path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (given, known) = (uid(owner, "/uid"), uid(&found, "/metadata/uid"));
    if given != known {
        return refuse(format!("node {node} UID mismatch: expected {given} got {known}"));
    }
    Ok(())
}

/// Which kind of object a pod refers to.
fn referred(pod: &Value) -> Option<&'static str> {
    let spec = pod.get("spec")?;
    let kinds = [
        (Reference::Account, "a service account"),
        (Reference::Secret, "secrets"),
        (Reference::ConfigMap, "configmaps"),
        (Reference::Claim, "persistentvolumeclaims"),
    ];
    let sources = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let mut sources = sources.filter_map(|volume| volume.pointer("/projected/sources")?.as_array()).flatten();
    let any =
        |object: Option<&Value>| object.is_some_and(|o| !o.is_null() && o.as_array().is_none_or(|a| !a.is_empty()));
    let status = |field: &str| pod.get("status").and_then(|status| status.get(field));
    if let Some((_, what)) = kinds.into_iter().find(|(kind, _)| kind.is_in(spec)) {
        Some(what)
    } else if sources.clone().any(|source| source.get("clusterTrustBundle").is_some()) {
        Some("clustertrustbundles")
    } else if sources.any(|source| source.get("podCertificate").is_some()) {
        Some("podcertificates")
    // CVE-2025-4563: a claim's name in the status opens the claim to the node as well.
    } else if any(spec.get("resourceClaims"))
        || any(status("resourceClaimStatuses"))
        || any(status("extendedResourceClaimStatus"))
    {
        Some("resourceclaims")
    } else {
        None
    }
}
