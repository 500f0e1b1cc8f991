use serde_json::json;

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

#[test]
fn roles_get_back_what_is_missing() {
    let wanted = json!({"rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]});
    let old = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    let new = policy::reconciled(&old, &wanted, Reconcile::Role);
    assert_eq!(new["rules"][1], json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}));
    let mut kept = old.clone();
    kept["metadata"] = json!({"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}});
    assert_eq!(policy::reconciled(&kept, &wanted, Reconcile::Role), kept);
}
