//! NodeRestriction: a kubelet changes only its own node, lease, CSINode, ResourceSlices and pods, of claims little, and asks
//! for tokens of pods that it runs only.

mod pods;
mod tokens;

use std::collections::BTreeSet;

use keelson_api::status::Status;
use keelson_api::validation::same;
use serde_json::Value;

use super::{Operation, Request};
use crate::authz::node::LEASES;

/// Prefix of labels that a kubelet may not put on its node.
const PROTECTED: &str = "node-restriction.kubernetes.io";
/// Prefixes of labels that are Kubernetes' own.
const RESERVED: [&str; 2] = ["kubernetes.io", "k8s.io"];
/// Those of them that a kubelet may put on its node, ...
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
/// ... and prefixes of more.
const KUBELET_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub(super) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let Some(node) = request.user.as_node() else { return Ok(()) };
    if request.operation == Operation::Connect {
        return Ok(());
    }
    if request.is_any("", "nodes") {
        return judge_node(request, node, object);
    }
    if request.is_any("", "pods") {
        return pods::judge(request, node, object);
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
    if request.is_any("", "serviceaccounts") && request.subresource == "token" {
        return tokens::judge(request, node, object).await;
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
    let refuse = |why: String| Err(request.forbidden(&why));
    if request.name != node {
        return refuse(format!("node {node:?} is not allowed to modify node {:?}", request.name));
    }
    let field = |node: &Value, path: &str| node.pointer(path).cloned().unwrap_or_default();
    match (request.operation, request.old) {
        (Operation::Create, _) => {
            if object.pointer("/spec/configSource").is_some_and(|source| !source.is_null()) {
                return refuse(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
            }
            match forbidden_labels(&Value::Null, object).as_str() {
                "" => Ok(()),
                labels => refuse(format!("node {node:?} is not allowed to set the following labels: {labels}")),
            }
        }
        (Operation::Update, Some(old)) => {
            let source = field(object, "/spec/configSource");
            if !source.is_null() && source != field(old, "/spec/configSource") {
                return refuse(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            if field(old, "/spec/taints") != field(object, "/spec/taints") {
                return refuse(format!("node {node:?} is not allowed to modify taints"));
            }
            // CVE-2025-5187: with an owner that does not exist, the node would be collected, and could come back without
            // the taints and labels that it may not take off itself.
            if field(old, "/metadata/ownerReferences") != field(object, "/metadata/ownerReferences") {
                return refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            match forbidden_labels(old, object).as_str() {
                "" => Ok(()),
                labels => refuse(format!("is not allowed to modify labels: {labels}")),
            }
        }
        _ => Ok(()),
    }
}

/// Labels that differ and that no kubelet may set, change or take away.
fn forbidden_labels(old: &Value, new: &Value) -> String {
    let of = |node: &Value| node.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let (old, new) = (of(old), of(new));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let forbidden = keys.into_iter().filter(|key| old.get(*key) != new.get(*key) && is_forbidden(key));
    forbidden.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn is_forbidden(label: &str) -> bool {
    let Some((prefix, _)) = label.split_once('/') else { return false };
    let within = |domain: &str| prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let kubelets = || KUBELET_LABELS.contains(&label) || KUBELET_PREFIXES.iter().any(|domain| within(domain));
    within(PROTECTED) || (RESERVED.iter().any(|domain| within(domain)) && !kubelets())
}
