//! How an object that is there already is brought up to date: roles get the rules, labels and annotations that they miss,
//! bindings the subjects; what somebody added stays. An annotation (`autoupdate: "false"`) keeps the server's hands off.

use serde_json::{Map, Value};

use super::Reconcile;
use super::policy::AUTOUPDATE;
use crate::aggregator::AUTOMANAGED;
use crate::authz::rules::{Rule, uncovered};

/// Whether somebody wants this object left as it is.
pub(super) fn is_protected(object: &Value) -> bool {
    object.pointer("/metadata/annotations").and_then(|a| a.get(AUTOUPDATE)).is_some_and(|value| value == "false")
}

/// Whether a binding's role is another, which no update can mend.
pub(super) fn must_be_made_anew(old: &Value, wanted: &Value, how: Reconcile) -> bool {
    how == Reconcile::Binding && !is_protected(old) && old.get("roleRef") != wanted.get("roleRef")
}

/// `old` with what is missing of `wanted`.
pub(super) fn reconciled(old: &Value, wanted: &Value, how: Reconcile) -> Value {
    let mut object = old.clone();
    if is_protected(old) && how != Reconcile::Replace {
        return object;
    }
    let Some(map) = object.as_object_mut() else { return object };
    match how {
        Reconcile::Keep => {}
        Reconcile::Suggest if !super::later::follows_suggestion(old) => {}
        Reconcile::Managed if !is_managed(old) => {}
        Reconcile::Replace | Reconcile::Suggest | Reconcile::Managed => {
            for (key, value) in wanted.as_object().into_iter().flatten().filter(|(k, _)| *k != "metadata") {
                map.insert(key.clone(), value.clone());
            }
        }
        Reconcile::Role => {
            add_metadata(map, wanted);
            reconcile_rules(map, wanted);
            reconcile_aggregation(map, wanted);
        }
        Reconcile::Binding => {
            add_metadata(map, wanted);
            let mut have = items(old, "/subjects");
            let missing: Vec<_> = items(wanted, "/subjects").into_iter().filter(|s| !holds(&have, s)).collect();
            have.extend(missing);
            if !have.is_empty() {
                map.insert("subjects".into(), have.into());
            }
        }
    }
    object
}

/// Whether the server keeps an APIService: upstream's label says so, which somebody may take away.
fn is_managed(object: &Value) -> bool {
    let label = object.pointer("/metadata/labels").and_then(|labels| labels.get(AUTOMANAGED)).and_then(Value::as_str);
    matches!(label, Some("onstart" | "true"))
}

/// A binding without this subject.
pub(super) fn unbound(old: &Value, subject: &Value) -> Value {
    let mut object = old.clone();
    if !is_protected(old)
        && let Some(subjects) = object.get_mut("subjects").and_then(Value::as_array_mut)
    {
        subjects.retain(|one| !is_same(one, subject));
    }
    object
}

/// Whether the binding has this subject and may be changed.
pub(super) fn is_bound(binding: &Value, subject: &Value) -> bool {
    !is_protected(binding) && holds(&items(binding, "/subjects"), subject)
}

fn items(object: &Value, path: &str) -> Vec<Value> {
    object.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn holds(subjects: &[Value], subject: &Value) -> bool {
    subjects.iter().any(|one| is_same(one, subject))
}

fn is_same(a: &Value, b: &Value) -> bool {
    let text = |subject: &Value, field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    ["kind", "apiGroup", "name", "namespace"].iter().all(|field| text(a, field) == text(b, field))
}

/// Labels and annotations that are missing.
fn add_metadata(object: &mut Map<String, Value>, wanted: &Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in ["labels", "annotations"] {
        let Some(wanted) = wanted.pointer(&format!("/metadata/{field}")).and_then(Value::as_object) else { continue };
        let have = metadata.entry(field).or_insert_with(|| Value::Object(Map::new()));
        if have.is_null() {
            *have = Value::Object(Map::new());
        }
        let Some(have) = have.as_object_mut() else { continue };
        for (key, value) in wanted {
            if !have.contains_key(key) {
                have.insert(key.clone(), value.clone());
            }
        }
    }
}

fn reconcile_rules(object: &mut Map<String, Value>, wanted: &Value) {
    // The rules of an aggregated role come from others.
    if object.get("aggregationRule").is_some_and(|rule| !rule.is_null()) && wanted.get("aggregationRule").is_some() {
        return;
    }
    let parse = |list: &[Value]| -> Vec<Rule> {
        list.iter().filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
    };
    let mut have = object.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
    let missing = uncovered(&parse(&have), &parse(&items(wanted, "/rules")));
    if missing.is_empty() {
        return;
    }
    have.extend(missing.iter().filter_map(|rule| serde_json::to_value(rule).ok()));
    object.insert("rules".into(), have.into());
}

fn reconcile_aggregation(object: &mut Map<String, Value>, wanted: &Value) {
    const SELECTORS: &str = "/aggregationRule/clusterRoleSelectors";
    if wanted.get("aggregationRule").is_none() {
        object.remove("aggregationRule");
        return;
    }
    let rule = object.entry("aggregationRule").or_insert(Value::Null);
    if !rule.is_object() {
        *rule = Value::Object(Map::new());
    }
    let Some(rule) = rule.as_object_mut() else { return };
    let mut have = rule.get("clusterRoleSelectors").and_then(Value::as_array).cloned().unwrap_or_default();
    let missing: Vec<_> = items(wanted, SELECTORS).into_iter().filter(|selector| !have.contains(selector)).collect();
    have.extend(missing);
    rule.insert("clusterRoleSelectors".into(), have.into());
}
