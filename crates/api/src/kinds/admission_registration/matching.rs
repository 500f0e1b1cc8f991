//! Which requests a webhook or a policy is about: `rules` and `MatchResources`, their defaults and rules.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::kinds::mutate::{Object, each, set};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, labels, names, one_of};

/// Fills in the scope of each rule.
pub(super) fn default_rules(holder: &mut Object, list: &str) {
    for rule in each(holder, list) {
        set(rule, "scope", "*");
    }
}

/// Fills in `matchPolicy` and the selectors, which match everything.
pub(super) fn default_selectors(holder: &mut Object) {
    set(holder, "matchPolicy", "Equivalent");
    set(holder, "namespaceSelector", json!({}));
    set(holder, "objectSelector", json!({}));
}

/// Defaults of `MatchResources`.
pub(super) fn default_resources(matching: &mut Object) {
    default_selectors(matching);
    default_rules(matching, "resourceRules");
    default_rules(matching, "excludeResourceRules");
}

pub(super) fn failure_policy(view: View, errors: &mut Errors) {
    one_of(view, &["Fail", "Ignore"], errors);
}

pub(super) fn match_policy(view: View, errors: &mut Errors) {
    one_of(view, &["Equivalent", "Exact"], errors);
}

/// `MatchResources`
pub(super) fn resources(matching: View, errors: &mut Errors) {
    let policy = matching.get("matchPolicy");
    if policy.is_set() {
        match_policy(policy, errors)
    } else {
        errors.push(policy.required(""))
    }
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = matching.get(field);
        if selector.is_set() { labels::validate_selector(selector, errors) } else { errors.push(selector.required("")) }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in matching.get(field).items() {
            let mut seen = HashSet::new();
            for name in rule.get("resourceNames").items() {
                checked(name, names::path_segment, errors);
                if !seen.insert(name.str()) {
                    errors.push(name.duplicate());
                }
            }
            validate_rule(rule, errors);
        }
    }
}

/// A `RuleWithOperations`
pub(super) fn validate_rule(rule: View, errors: &mut Errors) {
    let operations = rule.get("operations");
    several(operations, "if '*' is present, must not specify other operations", errors);
    for operation in operations.items() {
        one_of(operation, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"], errors);
    }
    several(rule.get("apiGroups"), "if '*' is present, must not specify other API groups", errors);
    let versions = rule.get("apiVersions");
    several(versions, "if '*' is present, must not specify other API versions", errors);
    for version in versions.items().filter(View::is_empty) {
        errors.push(version.required(""));
    }
    rule_resources(rule.get("resources"), errors);
    let scope = rule.get("scope");
    if scope.is_set() {
        one_of(scope, &["*", "Cluster", "Namespaced"], errors);
    }
}

/// At least one, and `*` only alone.
fn several(list: View, crowded: &str, errors: &mut Errors) {
    if list.is_empty() {
        errors.push(list.required(""));
    }
    if list.len() > 1 && list.items().any(|item| item.str() == "*") {
        errors.push(list.invalid(crowded));
    }
}

/// `pods`, `pods/*`, `*/scale`, `*/*`, `*`: nothing that another one says already.
fn rule_resources(resources: View, errors: &mut Errors) {
    if resources.is_empty() {
        errors.push(resources.required(""));
    }
    let (mut all_subs_of, mut sub_of_all) = (HashSet::new(), HashSet::new());
    let mut plain_last = false;
    for entry in resources.items() {
        let text = entry.str();
        if text.is_empty() {
            errors.push(entry.required(""));
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else {
            // As upstream: the last one without a slash decides.
            plain_last = text != "*";
            continue;
        };
        if all_subs_of.contains(resource) {
            errors.push(entry.invalid(&format!("if '{resource}/*' is present, must not specify {text}")));
        }
        if sub_of_all.contains(sub) {
            errors.push(entry.invalid(&format!("if '*/{sub}' is present, must not specify {text}")));
        }
        if sub == "*" {
            all_subs_of.insert(resource);
        }
        if resource == "*" {
            sub_of_all.insert(sub);
        }
    }
    let has = |text: &str| resources.items().any(|entry| entry.str() == text);
    if resources.len() > 1 && has("*/*") {
        errors.push(resources.invalid("if '*/*' is present, must not specify other resources"));
    }
    if has("*") && plain_last {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(resources.invalid(detail));
    }
}

/// `paramKind`: `v1 ConfigMap`
pub(super) fn param_kind(view: View, errors: &mut Errors) {
    let (api_version, kind) = (view.get("apiVersion"), view.get("kind"));
    let joined = |check: fn(&str) -> Vec<String>, text: &str| Some(check(text).join(",")).filter(|c| !c.is_empty());
    let parts: Vec<&str> = api_version.str().split('/').collect();
    match parts.as_slice() {
        [""] => errors.push(api_version.required("")),
        [_] | [_, _] => {
            let (group, version) = api_version.str().split_once('/').unwrap_or(("", api_version.str()));
            if let (false, Some(why)) = (group.is_empty(), joined(names::subdomain, group)) {
                errors.push(FieldError::invalid(api_version.path(), group, &why));
            }
            if version.is_empty() {
                errors.push(api_version.invalid("version must be specified"));
            } else if let Some(why) = joined(names::label_1035, version) {
                errors.push(FieldError::invalid(api_version.path(), version, &why));
            }
        }
        _ => errors.push(api_version.invalid(&format!("unexpected GroupVersion string: {}", api_version.str()))),
    }
    if kind.is_empty() {
        errors.push(kind.required(""));
    } else if let Some(why) = joined(names::label_1035, &kind.str().to_ascii_lowercase()) {
        errors.push(kind.invalid(&format!("may have mixed case, but should otherwise match: {why}")));
    }
}

/// `paramRef` as the table shows it.
pub(super) fn param_text(reference: &Value) -> String {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    match (text("name"), text("namespace")) {
        ("", _) if reference["selector"].is_null() => "<unset>".into(),
        ("", _) => go_selector(&reference["selector"]),
        // Nobody can tell from here whether the parameter's kind has namespaces.
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    }
}

/// A selector as Go's generated code prints it, which is what upstream's table has.
fn go_selector(selector: &Value) -> String {
    let labels: String = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default()))
        .collect();
    let requirement = |r: &Value| {
        let text = |field: &str| r[field].as_str().unwrap_or_default().to_string();
        let values: Vec<&str> = r["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let values = values.join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", text("key"), text("operator"))
    };
    let expressions: String = selector["matchExpressions"].as_array().into_iter().flatten().map(requirement).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
