//! Who may do what: the SubjectAccessReviews and SelfSubjectRulesReview.

use std::collections::BTreeMap;

use keelson_api::selector::{FieldRequirement, FieldSelector, LabelSelector, Operator, Requirement};
use keelson_api::status::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::UserInfo;
use crate::authz::{Attributes, Known};
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
    version: String,
    resource: String,
    subresource: String,
    name: String,
    #[serde(rename = "fieldSelector")]
    field_selector: Option<Selected>,
    #[serde(rename = "labelSelector")]
    label_selector: Option<Selected>,
}

/// A selector: as text, or as its terms.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selected {
    raw_selector: String,
    requirements: Vec<Term>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Term {
    key: String,
    operator: String,
    values: Vec<String>,
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

/// What is asked, and what of its selectors could not be understood: without a selector it is more that is asked for.
fn attributes(spec: &Spec) -> (Attributes, Vec<String>) {
    let mut errors = Vec::new();
    let attributes = match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(r), _) => {
            let mut attributes = Attributes::on(&r.verb, &r.group, &r.resource, &r.namespace, &r.name);
            attributes.version.clone_from(&r.version);
            attributes.subresource.clone_from(&r.subresource);
            if let Some(selector) = &r.field_selector {
                attributes.fields = selector.fields(&mut errors);
            }
            if let Some(selector) = &r.label_selector {
                attributes.labels = selector.labels(&mut errors);
            }
            if attributes.resource.is_empty() {
                // An empty resource is one that no rule but `*` names, not a non-resource request.
                attributes.resource = " ".into();
            }
            attributes
        }
        (None, Some(n)) => Attributes { verb: n.verb.clone(), path: n.path.clone(), ..Attributes::default() },
        (None, None) => Attributes::default(),
    };
    (attributes, errors)
}

impl Selected {
    fn fields(&self, errors: &mut Vec<String>) -> Vec<FieldRequirement> {
        if !self.raw_selector.is_empty() {
            return match FieldSelector::parse(&self.raw_selector) {
                Ok(selector) => selector.requirements,
                Err(error) => {
                    errors.push(format!("spec.resourceAttributes.fieldSelector ignored due to parse error: {error}"));
                    Vec::new()
                }
            };
        }
        let terms = self.requirements.iter().filter_map(|Term { key, operator, values }| {
            let equal = match (operator.as_str(), values.as_slice()) {
                ("In", [_]) => true,
                ("NotIn", [_]) => false,
                (operator, _) => {
                    errors.push(format!("fieldSelector requirement on {key:?} ignored: {operator:?} with its values"));
                    return None;
                }
            };
            Some(FieldRequirement { field: key.clone(), value: values.concat(), equal })
        });
        terms.collect()
    }

    /// As text.
    fn labels(&self, errors: &mut Vec<String>) -> String {
        if !self.raw_selector.is_empty() {
            return match LabelSelector::parse(&self.raw_selector) {
                Ok(_) => self.raw_selector.clone(),
                Err(error) => {
                    errors.push(format!("spec.resourceAttributes.labelSelector ignored due to parse error: {error}"));
                    String::new()
                }
            };
        }
        let terms = self.requirements.iter().filter_map(|Term { key, operator, values }| {
            let operator = match operator.as_str() {
                "In" => Ok(Operator::In),
                "NotIn" => Ok(Operator::NotIn),
                "Exists" => Ok(Operator::Exists),
                "DoesNotExist" => Ok(Operator::DoesNotExist),
                other => Err(format!("{other:?} is not a valid label selector operator")),
            };
            let term = operator.and_then(|operator| {
                Requirement::new(key.as_str(), operator, values.clone()).map_err(|e| e.to_string())
            });
            match term {
                Ok(term) => Some(term),
                Err(error) => {
                    errors.push(format!("labelSelector requirement on {key:?} ignored: {error}"));
                    None
                }
            }
        });
        LabelSelector::new(terms.collect()).to_string()
    }
}

async fn decide(call: &Call, user: &UserInfo, spec: &Spec) -> Value {
    let (attributes, mut errors) = attributes(spec);
    let decision = call.core.authorizer.decide(user, &attributes).await;
    let mut status = json!({"allowed": decision.allowed});
    if decision.denied {
        status["denied"] = true.into();
    }
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    if !decision.error.is_empty() {
        errors.push(decision.error);
    }
    if !errors.is_empty() {
        status["evaluationError"] = errors.join(", ").into();
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
    let Known { rules, errors } = call.core.authorizer.rules_of(&call.user, namespace);
    for rule in rules {
        let to_value = |rule| serde_json::to_value(rule).map_err(Status::internal);
        if !rule.resources.is_empty() {
            resource_rules.push(to_value(&rule)?);
        } else if !rule.non_resource_urls.is_empty() {
            non_resource_rules.push(to_value(&rule)?);
        }
    }
    let incomplete = !errors.is_empty();
    let mut status =
        json!({"resourceRules": resource_rules, "nonResourceRules": non_resource_rules, "incomplete": incomplete});
    if incomplete {
        let shown = if let [one] = errors.as_slice() { one.clone() } else { format!("[{}]", errors.join(", ")) };
        status["evaluationError"] = shown.into();
    }
    Ok(status)
}
