//! `rbac.authorization.k8s.io/v1`, and the rules its kinds share.

use serde_json::Value;

use crate::kind::{Column, Kind, NameRule, Strategy, Write};
use crate::kinds::mutate::{Object, each, make, set_str};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, items};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, required, same};

mod cluster_role;
mod cluster_role_binding;
mod role;
mod role_binding;
#[cfg(test)]
mod tests;

pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn all() -> Vec<Kind> {
    vec![cluster_role_binding::kind(), cluster_role::kind(), role_binding::kind(), role::kind()]
}

/// `rules` of a role; those of a cluster role may also name URLs.
fn validate_rules(rules: View, namespaced: bool, errors: &mut Errors) {
    for rule in rules.items() {
        let need = |field: &'static str, what: &str, errors: &mut Errors| {
            let list = rule.get(field);
            if list.is_empty() {
                errors.push(list.required(what));
            }
        };
        need("verbs", "verbs must contain at least one value", errors);
        let urls = rule.get("nonResourceURLs");
        if !urls.is_empty() {
            if namespaced {
                errors.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|field| !rule.get(field).is_empty()) {
                errors.push(urls.invalid("rules cannot apply to both regular resources and non-resource URLs"));
            }
            continue;
        }
        need("apiGroups", "resource rules must supply at least one api group", errors);
        need("resources", "resource rules must supply at least one resource", errors);
    }
}

/// What RoleBinding and ClusterRoleBinding have in common.
#[derive(Debug)]
struct Binding {
    namespaced: bool,
}

impl Strategy for Binding {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        if let Some(role) = make(object, "roleRef") {
            set_str(role, "apiGroup", GROUP);
        }
        each(object, "subjects").for_each(default_subject);
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let role = root.get("roleRef");
        if role.get("apiGroup").str() != GROUP {
            errors.push(role.get("apiGroup").not_supported(&[GROUP]));
        }
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&role.get("kind").str()) {
            errors.push(role.get("kind").not_supported(kinds));
        }
        let name = role.get("name");
        if required(name, &mut errors) {
            checked(name, names::path_segment, &mut errors);
        }
        for subject in root.get("subjects").items() {
            self.validate_subject(subject, &mut errors);
        }
        if let Write::Update(old) = write
            && !same(role.value, &old["roleRef"])
        {
            let text = |field: &'static str| Value::from(role.get(field).str());
            let shown =
                format!(r#"{{"APIGroup":{},"Kind":{},"Name":{}}}"#, text("apiGroup"), text("kind"), text("name"));
            errors.push(FieldError::of_struct("FieldValueInvalid", role.path(), &shown, "cannot change roleRef"));
        }
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn create_on_update(&self) -> bool {
        true
    }
}

impl Binding {
    fn validate_subject(&self, subject: View, errors: &mut Errors) {
        let (name, group) = (subject.get("name"), subject.get("apiGroup"));
        required(name, errors);
        match subject.get("kind").str() {
            "ServiceAccount" => {
                if !name.is_empty() {
                    checked(name, names::subdomain, errors);
                }
                if !group.is_empty() {
                    errors.push(group.not_supported(&[""]));
                }
                if !self.namespaced {
                    required(subject.get("namespace"), errors);
                }
            }
            "User" | "Group" => {
                if group.str() != GROUP {
                    errors.push(group.not_supported(&[GROUP]));
                }
            }
            _ => errors.push(subject.get("kind").not_supported(&["ServiceAccount", "User", "Group"])),
        }
    }
}

fn default_subject(subject: &mut Object) {
    if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
        set_str(subject, "apiGroup", GROUP);
    }
}

fn binding_columns() -> Vec<Column> {
    vec![
        Column::string("Role", "The role it grants.", |object, _| {
            let role = &object["roleRef"];
            let part = |field: &str| role[field].as_str().unwrap_or_default();
            format!("{}/{}", part("kind"), part("name")).into()
        }),
        age(),
        Column::string("Users", "Users to whom it grants it.", |object, _| subjects(object, "User")).wide(),
        Column::string("Groups", "Groups to which it grants it.", |object, _| subjects(object, "Group")).wide(),
        Column::string("ServiceAccounts", "Service accounts to which it grants it.", |object, _| {
            subjects(object, "ServiceAccount")
        })
        .wide(),
    ]
}

fn subjects(object: &Value, kind: &str) -> Value {
    let names: Vec<String> = items(&object["subjects"])
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| {
            let name = subject["name"].as_str().unwrap_or_default();
            let namespace = subject["namespace"].as_str().unwrap_or_default();
            if kind == "ServiceAccount" { format!("{namespace}/{name}") } else { name.to_string() }
        })
        .collect();
    // Upstream joins with a space after the comma here.
    names.join(", ").into()
}
