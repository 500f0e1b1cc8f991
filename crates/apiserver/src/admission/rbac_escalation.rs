//! RBAC's own rule: nobody grants what he does not have, unless `escalate` or `bind` allows it.

use keelson_api::status::{FieldError, Status};
use serde::Deserialize;
use serde_json::Value;

use super::{Operation, Request};
use crate::authz::Attributes;
use crate::authz::index::GROUP;
use crate::authz::rules::{Rule, describe, everything, uncovered};

pub(super) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if request.resource.kind.group != GROUP || request.operation == Operation::Delete {
        return Ok(());
    }
    match request.resource.kind.resource.as_ref() {
        "roles" | "clusterroles" => judge_role(request, object).await,
        _ => judge_binding(request, object).await,
    }
}

async fn judge_role(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let rules = |o: &Value| o.get("rules").cloned().unwrap_or_default();
    let aggregation = |o: &Value| o.get("aggregationRule").cloned().unwrap_or_default();
    // Such a role gets its rules from roles that others write: who may say so must hold all there can be.
    let gathers =
        !aggregation(object).is_null() && request.old.is_none_or(|old| aggregation(old) != aggregation(object));
    if !gathers && request.old.is_some_and(|old| rules(old) == rules(object)) {
        return Ok(());
    }
    let mut wanted: Vec<Rule> = Option::deserialize(rules(object)).ok().flatten().unwrap_or_default();
    if gathers {
        wanted.extend(everything());
    }
    let resource = &request.resource.kind.resource;
    let escalate = Attributes::on("escalate", GROUP, resource, request.namespace, request.name);
    if request.core.authorizer.decide(request.user, &escalate).await.allowed {
        return Ok(());
    }
    judge(request, &wanted)
}

async fn judge_binding(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let field = |name: &str| object.pointer(&format!("/roleRef/{name}")).and_then(Value::as_str).unwrap_or_default();
    if let Some(old) = request.old {
        if old.get("roleRef") != object.get("roleRef") {
            let shown = object.get("roleRef").cloned().unwrap_or_default();
            let error = FieldError::invalid("roleRef", shown, "cannot change roleRef");
            let kind = &request.resource.kind.kind;
            return Err(Status::invalid(GROUP, kind, request.name, &[error]));
        }
        if old.get("subjects") == object.get("subjects") {
            return Ok(());
        }
    }
    let (resource, namespace) =
        if field("kind") == "Role" { ("roles", request.namespace) } else { ("clusterroles", "") };
    let bind = Attributes::on("bind", GROUP, resource, request.namespace, field("name"));
    if request.core.authorizer.decide(request.user, &bind).await.allowed {
        return Ok(());
    }
    let Some(rules) = request.core.authorizer.rbac.role(namespace, field("name")) else {
        return Err(Status::not_found(GROUP, resource, field("name")));
    };
    judge(request, &rules)
}

fn judge(request: &Request<'_>, wanted: &[Rule]) -> Result<(), Status> {
    let user = request.user;
    if user.in_group(crate::user::MASTERS) {
        return Ok(());
    }
    let (owned, unresolved) = request.core.authorizer.rbac.rules_of(user, request.namespace);
    let missing = uncovered(&owned, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<_> = user.groups.iter().map(|g| format!("{g:?}")).collect();
    let unresolved = match unresolved.as_str() {
        "" => String::new(),
        errors => format!("; resolution errors: {errors}"),
    };
    Err(request.forbidden(&format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}{unresolved}",
        user.name,
        groups.join(" "),
        describe(&missing)
    )))
}
