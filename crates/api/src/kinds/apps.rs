//! `apps/v1`

use serde_json::Value;

use crate::kind::Kind;
use crate::status::FieldError;
use crate::validation::{Errors, View, non_negative};

mod controller_revision;
mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;

pub(super) fn all() -> Vec<Kind> {
    vec![controller_revision::kind(), daemon_set::kind(), deployment::kind(), replica_set::kind(), stateful_set::kind()]
}

/// Status counts that cannot exceed `status.replicas`, and available pods that are all ready.
pub(super) fn within_replicas(status: View, fields: &[&'static str], errors: &mut Errors) {
    let replicas = status.get("replicas").int().unwrap_or(0);
    for field in fields {
        if status.get(field).int().unwrap_or(0) > replicas {
            errors.push(status.get(field).invalid("cannot be greater than status.replicas"));
        }
    }
    let (available, ready) = (status.get("availableReplicas"), status.get("readyReplicas"));
    if available.int().unwrap_or(0) > ready.int().unwrap_or(0) {
        errors.push(available.invalid("cannot be greater than readyReplicas"));
    }
}

/// `status.collisionCount` only grows.
fn collisions(status: View, old: &Value, errors: &mut Errors) {
    let collisions = status.get("collisionCount");
    non_negative(collisions, errors);
    let count = collisions.int().unwrap_or(0);
    if count < old["collisionCount"].as_i64().unwrap_or(0) {
        errors.push(FieldError::invalid(collisions.path(), count, "cannot be decremented"));
    }
}

/// The error for a strategy whose type nobody knows; upstream shows all of it.
fn unknown_strategy(strategy: View, supported: &[&str]) -> FieldError {
    let supported: Vec<_> = supported.iter().map(|s| format!("{s:?}")).collect();
    let shown = shown_strategy(strategy, &["maxUnavailable", "maxSurge"]);
    let message = format!("Unsupported value: {shown}: supported values: {}", supported.join(", "));
    FieldError { reason: "FieldValueNotSupported", field: strategy.path(), message }
}

/// An update strategy by upstream's Go field names, `rollingUpdate` with `fields`.
fn shown_strategy(strategy: View, fields: &[&'static str]) -> String {
    let rolling = strategy.get("rollingUpdate");
    let mut shown = String::from("null");
    if rolling.is_set() {
        let fields = fields.iter().map(|field| {
            let value = if rolling.get(field).is_set() { rolling.get(field).value.clone() } else { 0.into() };
            format!("{:?}:{value}", capital(field))
        });
        shown = format!("{{{}}}", fields.collect::<Vec<_>>().join(","));
    }
    format!(r#"{{"Type":{},"RollingUpdate":{shown}}}"#, Value::from(strategy.get("type").str()))
}

fn capital(field: &str) -> String {
    let mut letters = field.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
