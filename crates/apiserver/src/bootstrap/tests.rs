use serde_json::json;

use super::reconcile::{is_bound, must_be_made_anew, reconciled, unbound};
use super::{Reconcile, policy};
use crate::authz::rules::Rule;

#[test]
fn policy_is_well_formed() {
    let all = policy::all();
    let role_names: Vec<(&str, String)> = all
        .iter()
        .filter(|w| w.resource.ends_with("roles"))
        .map(|w| (w.resource, w.object["metadata"]["name"].as_str().unwrap().to_owned()))
        .collect();
    for wanted in &all {
        if wanted.resource.ends_with("roles") {
            let rules: Vec<Rule> = serde_json::from_value(wanted.object["rules"].clone()).unwrap();
            assert!(!rules.is_empty() || wanted.object.get("aggregationRule").is_some(), "{}", wanted.object);
        } else {
            let role = &wanted.object["roleRef"];
            let resource = if role["kind"] == "Role" { "roles" } else { "clusterroles" };
            let name = role["name"].as_str().unwrap().to_owned();
            assert!(role_names.contains(&(resource, name.clone())), "{name} is bound but not defined");
            let bound = !wanted.object["subjects"].as_array().unwrap().is_empty();
            assert_eq!(bound, wanted.object["metadata"]["name"] != "system:node", "{}", wanted.object);
        }
    }
}

#[test]
fn the_node_authorizer_has_rules() {
    let services = crate::authz::Attributes::on("watch", "", "services", "", "");
    assert!(policy::node_rules().iter().any(|rule| rule.allows(&services)));
}

#[track_caller]
fn check(how: Reconcile, old: serde_json::Value, wanted: serde_json::Value, expected: serde_json::Value) {
    assert_eq!(reconciled(&old, &wanted, how), expected, "{old} {wanted}");
}

#[test]
fn roles_get_back_what_is_missing() {
    let rule = |verbs: &[&str]| json!({"verbs": verbs, "apiGroups": [""], "resources": ["pods"]});
    let wanted = json!({"metadata": {"labels": {"a": "x", "b": "y"}}, "rules": [rule(&["get", "list"])]});
    // What is more stays, what somebody set otherwise too.
    check(
        Reconcile::Role,
        json!({"metadata": {"labels": {"a": "own"}}, "rules": [rule(&["get"]), rule(&["delete"])]}),
        wanted.clone(),
        json!({"metadata": {"labels": {"a": "own", "b": "y"}}, "rules": [rule(&["get"]), rule(&["delete"]), rule(&["list"])]}),
    );
    let wide = json!({"metadata": {"labels": {"a": "x", "b": "y"}}, "rules": [rule(&["*"])]});
    check(Reconcile::Role, wide.clone(), wanted.clone(), wide);
    let off = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    check(Reconcile::Role, off.clone(), wanted, off);
}

#[test]
fn aggregation_is_reconciled() {
    let selector = |key: &str| json!({"matchLabels": {key: "true"}});
    let role = |selectors: serde_json::Value, rules: serde_json::Value| json!({"metadata": {}, "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": rules});
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    // Rules that others gave stay.
    check(
        Reconcile::Role,
        role(json!([selector("own")]), rules.clone()),
        role(json!([selector("ours")]), json!([])),
        role(json!([selector("own"), selector("ours")]), rules.clone()),
    );
    // A role that is not to be aggregated.
    check(
        Reconcile::Role,
        role(json!([selector("own")]), json!([])),
        json!({"rules": rules}),
        json!({"metadata": {}, "rules": rules}),
    );
}

#[test]
fn bindings_are_reconciled() {
    let user = |name: &str| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name});
    let binding = |role: &str, subjects: serde_json::Value| json!({"roleRef": {"name": role}, "subjects": subjects});
    let (old, wanted) = (binding("r", json!([user("own")])), binding("r", json!([user("ours")])));
    check(Reconcile::Binding, old.clone(), wanted.clone(), binding("r", json!([user("own"), user("ours")])));
    assert!(!must_be_made_anew(&old, &wanted, Reconcile::Binding));
    let mut other = binding("s", json!([]));
    assert!(must_be_made_anew(&other, &wanted, Reconcile::Binding));
    other["metadata"] = json!({"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}});
    assert!(!must_be_made_anew(&other, &wanted, Reconcile::Binding));
    assert!(is_bound(&old, &user("own")) && !is_bound(&old, &user("ours")));
    assert_eq!(unbound(&old, &user("own"))["subjects"], json!([]));
}
