//! `spec.rules` of a flow schema: whose requests, and which.

use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names};

/// As upstream lists them.
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub(super) fn validate(rule: View, errors: &mut Errors) {
    let subjects = rule.get("subjects");
    if subjects.is_empty() {
        errors.push(subjects.required("subjects must contain at least one value"));
    }
    for subject in subjects.items() {
        validate_subject(subject, errors);
    }
    let (resources, urls) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        errors.push(rule.required("at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    for rule in resources.items() {
        validate_resources(rule, errors);
    }
    for rule in urls.items() {
        validate_urls(rule, errors);
    }
}

fn validate_subject(subject: View, errors: &mut Errors) {
    let kinds = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.get("kind");
    let Some((_, own)) = kinds.iter().find(|(name, _)| *name == kind.str()) else {
        errors.push(kind.not_supported(&["Group", "ServiceAccount", "User"]));
        return;
    };
    let body = subject.get(own);
    if body.is_set() {
        validate_body(body, kind.str(), errors);
    } else {
        errors.push(body.required(&format!("{own} is required when subject kind is '{}'", kind.str())));
    }
    for (name, field) in kinds.iter().filter(|(name, _)| *name != kind.str()) {
        let other = subject.get(field);
        if other.is_set() {
            errors.push(other.forbidden(&format!("{field} is forbidden when subject kind is not '{name}'")));
        }
    }
}

fn validate_body(body: View, kind: &str, errors: &mut Errors) {
    let name = body.get("name");
    if name.is_empty() {
        errors.push(name.required(""));
    } else if kind == "ServiceAccount" && name.str() != "*" {
        checked(name, names::subdomain, errors);
    }
    if kind == "ServiceAccount" {
        let namespace = body.get("namespace");
        if namespace.is_empty() {
            errors.push(namespace.required("must specify namespace for service account"));
        } else {
            checked(namespace, names::label, errors);
        }
    }
}

fn has_wildcard(list: View) -> bool {
    list.items().any(|item| item.str() == "*")
}

/// Adds an error when `*` is not alone. Says whether there is a `*`.
fn alone(list: View, what: &str, errors: &mut Errors) -> bool {
    let wildcard = has_wildcard(list);
    if wildcard && list.len() > 1 {
        errors.push(list.invalid(&format!("if '*' is present, must not specify other {what}")));
    }
    wildcard
}

fn validate_verbs(verbs: View, errors: &mut Errors) {
    if verbs.is_empty() {
        errors.push(verbs.required("verbs must contain at least one value"));
    } else if !alone(verbs, "verbs", errors) && !verbs.items().all(|verb| VERBS.contains(&verb.str())) {
        errors.push(verbs.not_supported(&VERBS));
    }
}

fn validate_resources(rule: View, errors: &mut Errors) {
    validate_verbs(rule.get("verbs"), errors);
    for (field, one, others) in [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")] {
        let list = rule.get(field);
        if list.is_empty() {
            errors.push(list.required(&format!("resource rules must supply at least one {one}")));
        } else {
            alone(list, others, errors);
        }
    }
    let namespaces = rule.get("namespaces");
    if namespaces.is_empty() {
        if !rule.get("clusterScope").bool() {
            let detail = "resource rules that are not cluster scoped must supply at least one namespace";
            errors.push(namespaces.required(detail));
        }
    } else if !alone(namespaces, "namespaces", errors) {
        for namespace in namespaces.items() {
            let head = "each member of this list must be '*' or a DNS-1123 label; ";
            let complaints = names::label(namespace.str());
            errors.extend(complaints.iter().map(|why| namespace.invalid_str(&format!("{head}{why}"))));
        }
    }
}

fn validate_urls(rule: View, errors: &mut Errors) {
    validate_verbs(rule.get("verbs"), errors);
    let urls = rule.get("nonResourceURLs");
    if urls.is_empty() {
        errors.push(urls.required("nonResourceURLs must contain at least one value"));
    } else if !alone(urls, "non-resource URLs", errors) {
        errors.extend(urls.items().filter_map(url_fault));
    }
}

fn url_fault(url: View) -> Option<FieldError> {
    let text = url.str();
    let stars = text.matches('*').count();
    let detail = match text {
        "" => "must not be empty",
        "/" => return None,
        _ if !text.starts_with('/') => "must start with slash",
        _ if text.contains(' ') => "must not contain white-space",
        _ if text.contains("//") => "must not contain double slash",
        _ if stars > 1 || (stars == 1 && !text.ends_with("/*")) => "wildcard can only do suffix matching",
        _ => return None,
    };
    Some(url.invalid_str(detail))
}
