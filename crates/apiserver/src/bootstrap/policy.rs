//! RBAC policy from `roles.txt`, and how a changed role is reconciled with it.

use serde_json::{Value, json};

use super::{Reconcile, Wanted};
use crate::authz::index::GROUP;
use crate::authz::rules::{Rule, uncovered};

const POLICY: &str = include_str!("roles.txt");
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Every role and binding.
pub(super) fn all() -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut bindings = Vec::new();
    for line in POLICY.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            let rules = wanted.last_mut().and_then(|role| role.object.get_mut("rules")).and_then(Value::as_array_mut);
            if let Some(rules) = rules {
                rules.push(rule(&words));
            }
            continue;
        }
        match words.as_slice() {
            ["clusterrole", name, options @ ..] => wanted.push(cluster_role(name, options)),
            ["controller", name] => {
                let full = format!("system:controller:{name}");
                wanted.push(cluster_role(&full, &[]));
                bindings.push(binding("ClusterRole", "-", &full, &full, &format!("sa:kube-system/{name}")));
            }
            ["role", namespace, name] => {
                let object = object("Role", namespace, name, json!({"rules": []}));
                wanted.push(Wanted { group: GROUP, resource: "roles", object, reconcile: Reconcile::Role });
            }
            ["binding", kind, namespace, name, role, subjects] => {
                bindings.push(binding(kind, namespace, name, role, subjects));
            }
            _ => {}
        }
    }
    // In this issue the controller manager acts as itself, not as one account per controller.
    let manager = "user:system:kube-controller-manager";
    for role in &wanted {
        let name = crate::registry::create::text(&role.object, "name");
        if name.starts_with("system:controller:") && role.resource == "clusterroles" {
            let short = name.trim_start_matches("system:controller:");
            bindings.push(binding("ClusterRole", "-", &format!("keelson:controller:{short}"), name, manager));
        }
    }
    wanted.extend(bindings);
    wanted
}

/// The rules of `system:node`, for the Node authorizer.
pub(crate) fn node_rules() -> Vec<Rule> {
    let role = all().into_iter().find(|wanted| crate::registry::create::text(&wanted.object, "name") == "system:node");
    let rules = role.and_then(|role| serde_json::from_value(role.object.get("rules")?.clone()).ok());
    rules.unwrap_or_default()
}

fn list(words: &str) -> Vec<String> {
    words.split(',').map(|word| if word == "core" { String::new() } else { word.to_owned() }).collect()
}

fn rule(words: &[&str]) -> Value {
    match words {
        [verbs, "url", paths] => json!({"verbs": list(verbs), "nonResourceURLs": list(paths)}),
        [verbs, groups, resources] => {
            json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)})
        }
        [verbs, groups, resources, names] => json!({
            "verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources),
            "resourceNames": list(names.trim_start_matches("names=")),
        }),
        _ => Value::Null,
    }
}

fn object(kind: &str, namespace: &str, name: &str, content: Value) -> Value {
    let mut object = json!({
        "kind": kind, "apiVersion": API_VERSION,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {AUTOUPDATE: "true"},
        },
    });
    if namespace != "-" {
        object["metadata"]["namespace"] = namespace.into();
    }
    if let (Some(object), Value::Object(content)) = (object.as_object_mut(), content) {
        object.extend(content);
    }
    object
}

fn cluster_role(name: &str, options: &[&str]) -> Wanted {
    let mut role = object("ClusterRole", "-", name, json!({"rules": []}));
    for option in options {
        match option.split_once('=') {
            Some(("labels", label)) => {
                if let Some((key, value)) = label.split_once('=') {
                    role["metadata"]["labels"][key] = value.into();
                }
            }
            Some(("aggregate", key)) => {
                role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {key: "true"}}]});
            }
            _ => {}
        }
    }
    Wanted { group: GROUP, resource: "clusterroles", object: role, reconcile: Reconcile::Role }
}

fn binding(kind: &str, namespace: &str, name: &str, role: &str, subjects: &str) -> Wanted {
    let subjects: Vec<Value> = subjects
        .split(',')
        .filter_map(|subject| {
            let (kind, name) = subject.split_once(':')?;
            Some(match kind {
                "group" => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
                "user" => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
                _ => {
                    let (namespace, name) = name.split_once('/')?;
                    json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
                }
            })
        })
        .collect();
    let role_ref = json!({"apiGroup": GROUP, "kind": kind, "name": role});
    let (own, resource) =
        if namespace == "-" { ("ClusterRoleBinding", "clusterrolebindings") } else { ("RoleBinding", "rolebindings") };
    let object = object(own, namespace, name, json!({"subjects": subjects, "roleRef": role_ref}));
    Wanted { group: GROUP, resource, object, reconcile: Reconcile::Binding }
}

/// `old` with what is missing of `wanted`.
pub(super) fn reconciled(old: &Value, wanted: &Value, how: Reconcile) -> Value {
    let mut object = old.clone();
    let off = old.pointer("/metadata/annotations").and_then(|a| a.get(AUTOUPDATE)).is_some_and(|v| v == "false");
    if off && how != Reconcile::Replace {
        return object;
    }
    let items = |o: &Value, field: &str| o.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(map) = object.as_object_mut() else { return object };
    match how {
        Reconcile::Keep => {}
        Reconcile::Suggest if !super::later::follows_suggestion(old) => {}
        Reconcile::Replace | Reconcile::Suggest => {
            for (key, value) in wanted.as_object().into_iter().flatten().filter(|(k, _)| *k != "metadata") {
                map.insert(key.clone(), value.clone());
            }
        }
        Reconcile::Role => {
            if old.get("aggregationRule").is_some() || wanted.get("aggregationRule").is_some() {
                return object;
            }
            let parse = |list: &[Value]| -> Vec<Rule> {
                list.iter().filter_map(|r| serde_json::from_value(r.clone()).ok()).collect()
            };
            let (mut have, want) = (items(old, "rules"), items(wanted, "rules"));
            let missing = uncovered(&parse(&have), &parse(&want));
            have.extend(missing.iter().filter_map(|rule| serde_json::to_value(rule).ok()));
            map.insert("rules".into(), have.into());
        }
        Reconcile::Binding => {
            let mut have = items(old, "subjects");
            for subject in items(wanted, "subjects") {
                if !have.contains(&subject) {
                    have.push(subject);
                }
            }
            map.insert("subjects".into(), have.into());
        }
    }
    object
}
