//! Who may do what: the SubjectAccessReviews and SelfSubjectRulesReview.

use std::collections::BTreeMap;

use keelson_api::status::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::UserInfo;
use crate::authz::Attributes;
use crate::dispatch::Call;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    resource: String,
    subresource: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NonResourceAttributes {
    path: String,
    verb: String,
}

fn spec(object: &Value) -> Result<Spec, Status> {
    let spec = object.get("spec").cloned().unwrap_or_else(|| json!({}));
    serde_json::from_value(spec).map_err(|e| Status::bad_request(e.to_string()))
}

fn attributes(spec: &Spec) -> Attributes {
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(r), _) => {
            let mut attributes = Attributes::on(&r.verb, &r.group, &r.resource, &r.namespace, &r.name);
            attributes.subresource = r.subresource.clone();
            if attributes.resource.is_empty() {
                // An empty resource is one that no rule but `*` names, not a non-resource request.
                attributes.resource = " ".into();
            }
            attributes
        }
        (None, Some(n)) => Attributes { verb: n.verb.clone(), path: n.path.clone(), ..Attributes::default() },
        (None, None) => Attributes::default(),
    }
}

async fn decide(call: &Call, user: &UserInfo, spec: &Spec) -> Value {
    let decision = call.core.authorizer.decide(user, &attributes(spec)).await;
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    status
}

pub(super) async fn of_self(call: &Call, object: &Value) -> Result<Value, Status> {
    Ok(decide(call, &call.user, &spec(object)?).await)
}

pub(super) async fn of_subject(call: &Call, object: &Value) -> Result<Value, Status> {
    let spec = spec(object)?;
    let Spec { user, groups, uid, extra, .. } = &spec;
    let user = UserInfo { name: user.clone(), uid: uid.clone(), groups: groups.clone(), extra: extra.clone() };
    Ok(decide(call, &user, &spec).await)
}

pub(super) async fn of_subject_here(call: &Call, object: &Value) -> Result<Value, Status> {
    let asked = spec(object)?.resource_attributes.map(|r| r.namespace).unwrap_or_default();
    let here = &call.target.namespace;
    if asked != *here {
        return Err(Status::bad_request(format!(
            "spec.resourceAttributes.namespace must match namespace: {asked:?} is not {here:?}"
        )));
    }
    of_subject(call, object).await
}

pub(super) fn rules(call: &Call, object: &Value) -> Result<Value, Status> {
    let namespace = object.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (mut resource_rules, mut non_resource_rules) = (Vec::new(), Vec::new());
    if call.user.in_group(crate::user::MASTERS) {
        resource_rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        non_resource_rules.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    for rule in call.core.authorizer.rbac.rules_of(&call.user, namespace) {
        let to_value = |rule| serde_json::to_value(rule).map_err(Status::internal);
        if !rule.resources.is_empty() {
            resource_rules.push(to_value(&rule)?);
        } else if !rule.non_resource_urls.is_empty() {
            non_resource_rules.push(to_value(&rule)?);
        }
    }
    let mut status =
        json!({"resourceRules": resource_rules, "nonResourceRules": non_resource_rules, "incomplete": false});
    if call.user.as_node().is_some() {
        status["incomplete"] = true.into();
        status["evaluationError"] = "node authorizer does not support user rule resolution".into();
    }
    Ok(status)
}
