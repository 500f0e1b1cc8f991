//! NodeRestriction: a kubelet changes only its own node, lease, CSINode, ResourceSlices and pods, and of claims little.

use keelson_api::status::Status;
use keelson_api::validation::same;
use serde_json::Value;

use super::{Operation, Request};
use crate::authz::node::{LEASES, Reference};

const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";
/// Labels that a kubelet may not put on its node.
const PROTECTED_LABELS: &str = "node-restriction.kubernetes.io/";

pub(super) fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let Some(node) = request.user.as_node() else { return Ok(()) };
    if request.operation == Operation::Connect {
        return Ok(());
    }
    if request.is_any("", "nodes") {
        return judge_node(request, node, object);
    }
    if request.is_any("", "pods") {
        return judge_pod(request, node, object);
    }
    if request.is_any("coordination.k8s.io", "leases") {
        if request.namespace != LEASES {
            return Err(request.forbidden(&format!("can only access leases in the {LEASES:?} system namespace")));
        }
        if request.name != node {
            return Err(request.forbidden("can only access node lease with the same name as the requesting node"));
        }
    }
    if request.is_any("storage.k8s.io", "csinodes") && request.name != node {
        return Err(request.forbidden("can only access CSINode with the same name as the requesting node"));
    }
    if request.is_any("resource.k8s.io", "resourceslices") {
        return judge_slice(request, node, object);
    }
    if request.is_any("", "persistentvolumeclaims") {
        return judge_claim(request, node, object);
    }
    Ok(())
}

/// Which slice an update is about, the authorizer has seen; `spec.nodeName` never changes.
fn judge_slice(request: &Request<'_>, node: &str, object: &Value) -> Result<(), Status> {
    let (slice, verb) = match request.operation {
        Operation::Create => (Some(object), "create"),
        Operation::Delete => (request.old, "delete"),
        Operation::Update | Operation::Connect => return Ok(()),
    };
    if slice.and_then(|slice| slice.pointer("/spec/nodeName")).is_some_and(|of| of == node) {
        return Ok(());
    }
    Err(request.forbidden(&format!("can only {verb} ResourceSlices with the same NodeName as the requesting node")))
}

fn judge_claim(request: &Request<'_>, node: &str, object: &Value) -> Result<(), Status> {
    if (request.operation, request.subresource) != (Operation::Update, "status") {
        return Err(request.forbidden("may only update PVC status"));
    }
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(metadata) = claim.get_mut("metadata").and_then(Value::as_object_mut) {
            ["resourceVersion", "managedFields"].iter().for_each(|field| drop(metadata.remove(*field)));
        }
        if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
            let free = ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"];
            free.iter().for_each(|field| drop(status.remove(*field)));
        }
        claim
    };
    if request.old.is_some_and(|old| same(&rest(old), &rest(object))) {
        return Ok(());
    }
    let why = format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions");
    Err(request.forbidden(&why))
}

fn judge_node(request: &Request<'_>, node: &str, object: &Value) -> Result<(), Status> {
    if request.name != node {
        let name = request.name;
        return Err(request.forbidden(&format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    if request.operation == Operation::Update && request.subresource.is_empty() {
        let taints = |o: &Value| o.pointer("/spec/taints").cloned().unwrap_or_default();
        if request.old.is_some_and(|old| taints(old) != taints(object)) {
            return Err(request.forbidden(&format!("node {node:?} is not allowed to modify taints")));
        }
    }
    let label = |o: &Value, key: &str| o.pointer("/metadata/labels").and_then(|l| l.get(key)).cloned();
    // Those of both: one taken away is one changed.
    let labels = [Some(object), request.old].into_iter().flatten();
    let labels = labels.filter_map(|o| o.pointer("/metadata/labels").and_then(Value::as_object));
    for key in labels.flat_map(|l| l.keys()).filter(|k| k.contains(PROTECTED_LABELS)) {
        if request.old.and_then(|old| label(old, key)) != label(object, key) {
            return Err(request.forbidden(&format!("is not allowed to modify labels: {key}")));
        }
    }
    Ok(())
}

fn judge_pod(request: &Request<'_>, node: &str, object: &Value) -> Result<(), Status> {
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
        // What a pod of its own refers to, a kubelet may read: it must not choose that itself.
        (Operation::Create, "") => match object.get("spec").and_then(referred) {
            Some(what) => refuse(format!("node {node:?} can not create pods that reference {what}")),
            None => Ok(()),
        },
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

/// Which kind of object a pod's spec refers to.
fn referred(spec: &Value) -> Option<&'static str> {
    let kinds = [
        (Reference::Account, "a service account"),
        (Reference::Secret, "secrets"),
        (Reference::ConfigMap, "configmaps"),
        (Reference::Claim, "persistentvolumeclaims"),
        (Reference::ResourceClaim, "resourceclaims"),
    ];
    kinds.into_iter().find_map(|(kind, what)| kind.is_in(spec).then_some(what))
}
