//! NodeRestriction: a kubelet changes only its own node, lease and pods.

use keelson_api::status::Status;
use serde_json::Value;

use super::{Operation, Request};
use crate::authz::node::Reference;

const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";
/// Labels that a kubelet may not put on its node.
const PROTECTED_LABELS: &str = "node-restriction.kubernetes.io/";

pub(super) fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let Some(node) = request.user.as_node() else { return Ok(()) };
    if request.is_any("", "nodes") {
        return judge_node(request, node, object);
    }
    if request.is_any("", "pods") {
        return judge_pod(request, node, object);
    }
    if request.is_any("coordination.k8s.io", "leases") {
        if request.namespace != "kube-node-lease" {
            return Err(request.forbidden("can only access leases in the \"kube-node-lease\" system namespace"));
        }
        if request.name != node {
            return Err(request.forbidden("can only access node lease with the same name as the requesting node"));
        }
    }
    Ok(())
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
        (Operation::Update, "status") if !on(request.old) => {
            refuse(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"))
        }
        (Operation::Create, "eviction") if !on(request.old) => {
            refuse(format!("node {node:?} can only evict pods with spec.nodeName set to itself"))
        }
        _ => Ok(()),
    }
}

/// Which kind of object a pod's spec refers to.
fn referred(spec: &Value) -> Option<&'static str> {
    [(Reference::Account, "a service account"), (Reference::Secret, "secrets"), (Reference::ConfigMap, "configmaps")]
        .into_iter()
        .find_map(|(kind, what)| kind.is_in(spec).then_some(what))
}
