//! LimitRanger: containers get the defaults of their namespace, and what pods, containers and volume claims ask for stays
//! within its limits. A namespace without LimitRanges costs one look into the index.

mod limits;
#[cfg(test)]
mod tests;

use keelson_api::status::Status;
use serde_json::Value;

use super::{Operation, Request};
pub(super) use limits::Limits;

/// Whether it is a pod, or a change of a pod's resources, that stays.
fn is_pod(request: &Request<'_>) -> bool {
    let create = request.operation == Operation::Create && request.subresource.is_empty();
    let resize = request.operation == Operation::Update && request.subresource == "resize";
    request.is_any("", "pods") && (create || resize)
}

fn is_claim(request: &Request<'_>) -> bool {
    request.is("", "persistentvolumeclaims") && matches!(request.operation, Operation::Create | Operation::Update)
}

pub(super) fn mutate(request: &Request<'_>, object: &mut Value) {
    if request.operation != Operation::Create || !is_pod(request) {
        return;
    }
    for limits in request.core.admission.namespaces.limits(request.namespace).iter() {
        limits.fill_in(object);
    }
}

pub(super) fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let (pod, claim) = (is_pod(request), is_claim(request));
    if !pod && !claim || !object["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    for limits in request.core.admission.namespaces.limits(request.namespace).iter() {
        let errors = if pod { limits.judge_pod(object) } else { limits.judge_claim(object) };
        match errors.as_slice() {
            [] => {}
            [error] => return Err(request.forbidden(error)),
            errors => return Err(request.forbidden(&format!("[{}]", errors.join(", ")))),
        }
    }
    Ok(())
}
