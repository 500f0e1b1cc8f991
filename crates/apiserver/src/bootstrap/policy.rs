//! RBAC policy from `roles.txt`.

use serde_json::{Value, json};

use super::{Reconcile, Wanted};
use crate::authz::index::GROUP;
use crate::authz::rules::Rule;

const POLICY: &str = include_str!("roles.txt");
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
pub(super) const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

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

/// What is no longer part of the policy.
pub(super) enum Removed {
    RoleBinding { namespace: &'static str, name: &'static str },
    Subject { cluster_role_binding: &'static str, subject: Value },
}

/// What earlier versions of the policy had and later ones took away.
pub(super) fn removed() -> Vec<Removed> {
    let lines = POLICY.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let removed = lines.filter_map(|words| match words.as_slice() {
        ["gone", namespace, name] => Some(Removed::RoleBinding { namespace, name }),
        ["unbound", name, who] => Some(Removed::Subject { cluster_role_binding: name, subject: subject(who)? }),
        _ => None,
    });
    removed.collect()
}

fn list(words: &str) -> Vec<String> {
    let each = words.split(',').flat_map(|word| match word {
        "core" => vec![""],
        "READ" => vec!["get", "list", "watch"],
        "WRITE" => vec!["create", "delete", "deletecollection", "patch", "update"],
        word => vec![word],
    });
    each.map(str::to_owned).collect()
}

/// A list of verbs, sorted as upstream's are.
fn verbs(words: &str) -> Vec<String> {
    let mut verbs = list(words);
    verbs.sort_unstable();
    verbs
}

fn rule(words: &[&str]) -> Value {
    match words {
        [verbs, "url", paths] => json!({"verbs": self::verbs(verbs), "nonResourceURLs": list(paths)}),
        [verbs, groups, resources] => {
            json!({"verbs": self::verbs(verbs), "apiGroups": list(groups), "resources": list(resources)})
        }
        [verbs, groups, resources, names] => json!({
            "verbs": self::verbs(verbs), "apiGroups": list(groups), "resources": list(resources),
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
    let subjects: Vec<Value> = subjects.split(',').filter_map(subject).collect();
    let role_ref = json!({"apiGroup": GROUP, "kind": kind, "name": role});
    let (own, resource) =
        if namespace == "-" { ("ClusterRoleBinding", "clusterrolebindings") } else { ("RoleBinding", "rolebindings") };
    let object = object(own, namespace, name, json!({"subjects": subjects, "roleRef": role_ref}));
    Wanted { group: GROUP, resource, object, reconcile: Reconcile::Binding }
}

fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    Some(match kind {
        "group" => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
        "user" => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
        _ => {
            let (namespace, name) = name.split_once('/')?;
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
    })
}
