//! Expressions (CEL) in objects: checked when an object that holds some is written, and those of a definition run over its
//! custom resources.

use keelson_api::crd::Custom;
use keelson_api::kind::Kind;
use keelson_api::status::FieldError;
use keelson_cel::admission;
use keelson_cel::crd::{self, Rules};
use serde_json::Value;

/// Complaints after which rules are not run: what they read may not be what its type says.
const BLOCKING: [&str; 5] =
    ["FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"];

/// Checks an object's expressions and the expressions about it. `errors` holds what is known to be wrong with it; what else
/// is goes there, too. Answers with warnings for the client.
pub(crate) fn validate(kind: &Kind, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) -> Vec<String> {
    if let Some(custom) = &kind.custom {
        return run_rules(custom, object, old, errors);
    }
    if errors.is_empty()
        && let Some((_, check)) = CHECKS.iter().find(|((group, name), _)| *group == kind.group && *name == kind.kind)
    {
        errors.extend(check(object, old));
    }
    Vec::new()
}

/// What an object's expressions are checked by, given what they were before.
type Check = fn(&Value, Option<&Value>) -> Vec<FieldError>;

/// The kinds with expressions, by group and kind.
const CHECKS: [((&str, &str), Check); 8] = [
    (("apiextensions.k8s.io", "CustomResourceDefinition"), check_definition),
    ((ADMISSION, "MutatingAdmissionPolicy"), |new, old| changed(new, old, admission::check_mutations)),
    ((ADMISSION, "MutatingWebhookConfiguration"), |new, old| changed(new, old, admission::check_webhooks)),
    ((ADMISSION, "ValidatingAdmissionPolicy"), |new, old| changed(new, old, admission::check_policy)),
    ((ADMISSION, "ValidatingWebhookConfiguration"), |new, old| changed(new, old, admission::check_webhooks)),
    ((DEVICES, "DeviceClass"), |new, old| changed(new, old, admission::check_selectors)),
    ((DEVICES, "ResourceClaim"), |new, old| changed(new, old, admission::check_selectors)),
    ((DEVICES, "ResourceClaimTemplate"), |new, old| changed(new, old, admission::check_selectors)),
];

const ADMISSION: &str = "admissionregistration.k8s.io";
const DEVICES: &str = "resource.k8s.io";

/// What was there before and did not compile may stay.
fn changed(new: &Value, old: Option<&Value>, check: fn(&Value) -> Vec<FieldError>) -> Vec<FieldError> {
    let mut errors = check(new);
    if let (Some(old), false) = (old, errors.is_empty()) {
        let before = check(old);
        errors.retain(|error| !before.contains(error));
    }
    errors
}

/// The rules of a definition, compiled when its first object is written.
fn rules_of(custom: &Custom) -> Option<&Rules> {
    let compiled = custom.rules.get_or_init(|| Box::new(Rules::compile(&custom.schema)));
    compiled.downcast_ref::<Option<Rules>>().and_then(Option::as_ref)
}

fn run_rules(custom: &Custom, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) -> Vec<String> {
    let Some(rules) = rules_of(custom) else { return Vec::new() };
    if errors.iter().any(|error| BLOCKING.contains(&error.reason)) {
        let why = "some validation rules were not checked because the object was invalid; correct the existing errors to \
                   complete validation";
        errors.push(FieldError::invalid("<nil>", "null", why));
        return Vec::new();
    }
    let verdict = rules.validate(object, old);
    errors.extend(verdict.errors);
    verdict.warnings
}

/// Schemas that an update leaves as they are may stay, whatever is thought of them by now.
fn check_definition(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let versions = |object: &Value| object["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
    let before: Vec<Value> = old.map(versions).unwrap_or_default().iter().map(schema).collect();
    let schemas: Vec<Value> = versions(object).iter().map(schema).collect();
    // What all versions have in common goes by the name it has in upstream's internal type.
    let common = schemas.windows(2).all(|pair| matches!(pair, [a, b] if a == b));
    let mut errors = Vec::new();
    for (index, schema) in schemas.iter().enumerate().take(if common { 1 } else { schemas.len() }) {
        if before.contains(schema) {
            continue;
        }
        let path = match common {
            true => "spec.validation.openAPIV3Schema".to_owned(),
            false => format!("spec.versions[{index}].schema.openAPIV3Schema"),
        };
        errors.extend(crd::check(&path, schema));
    }
    errors
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keelson_api::crd::kinds;
    use keelson_api::kind::{Kind, Write};
    use serde_json::{Value, json};

    use super::validate;

    fn definition(rule: &str) -> Value {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "required": ["replicas"], "properties": {"replicas": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": rule}]},
            "status": {"type": "object", "properties": {"ready": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": "self.ready >= 0"}]},
        }});
        let names = json!({"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList"});
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "crontabs.stable.example.com"},
            "spec": {"group": "stable.example.com", "scope": "Namespaced", "names": names, "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
            }]},
            "status": {"acceptedNames": names},
        })
    }

    fn kind(rule: &str) -> Arc<Kind> {
        kinds(&definition(rule)).versions[0].kind.clone()
    }

    /// What a write complains about, and warns of.
    fn written(kind: &Kind, object: &Value, old: Option<&Value>) -> (Vec<String>, Vec<String>) {
        let write = old.map_or(Write::Create, Write::Update);
        let mut errors = kind.strategy.validate(object, write);
        let warnings = validate(kind, object, old, &mut errors);
        (errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect(), warnings)
    }

    fn object(replicas: Value) -> Value {
        json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"}, "spec": {"replicas": replicas}})
    }

    #[test]
    fn rules_run_after_the_schema() {
        let kind = kind("self.replicas < 5");
        assert_eq!(written(&kind, &object(json!(3)), None).0, [""; 0]);
        assert_eq!(
            written(&kind, &object(json!(7)), None).0,
            ["spec: Invalid value: \"object\": failed rule: self.replicas < 5"]
        );
        let (errors, _) = written(&kind, &object(json!("x")), None);
        assert_eq!(
            errors.last().map(String::as_str),
            Some(
                "<nil>: Invalid value: \"null\": some validation rules were not checked because the object was invalid; \
                 correct the existing errors to complete validation"
            )
        );
    }

    #[test]
    fn what_was_wrong_before_is_a_warning() {
        let kind = kind("self.replicas < 5");
        let (errors, warnings) = written(&kind, &object(json!(7)), Some(&object(json!(7))));
        assert_eq!(errors, [""; 0]);
        assert_eq!(warnings, ["spec: Invalid value: \"object\": failed rule: self.replicas < 5"]);
    }

    #[test]
    fn definitions_are_checked() {
        let crd = keelson_api::kinds::all().into_iter().find(|kind| kind.kind == "CustomResourceDefinition").unwrap();
        let check = |object: &Value, old: Option<&Value>| {
            let mut errors = Vec::new();
            validate(&crd, object, old, &mut errors);
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        let (good, bad) = (definition("self.replicas < 5"), definition("self.replica < 5"));
        assert_eq!(check(&good, None), [""; 0]);
        let errors = check(&bad, None);
        assert_eq!(errors.len(), 1);
        let at = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: ";
        assert!(errors[0].starts_with(at), "{errors:?}");
        assert!(errors[0].contains("compilation failed: ERROR: <input>:1:5: undefined field 'replica'"), "{errors:?}");
        assert_eq!(check(&bad, Some(&bad)), [""; 0]);
        assert_eq!(check(&bad, Some(&good)).len(), 1);
    }
}
