//! Webhooks: what mutating and validating ones have in common.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::matching::{default_rules, default_selectors, failure_policy, match_policy, validate_rule};
use super::{CATEGORY, GROUP, expression};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{child, each, set};
use crate::kinds::print::{age, size};
use crate::kinds::webhook_config;
use crate::status::FieldError;
use crate::validation::{Errors, View, labels, names, one_of};

/// Versions of AdmissionReview that the server speaks.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// A configuration: a list of webhooks.
#[derive(Debug)]
pub(super) struct Webhooks {
    pub(super) mutating: bool,
}

impl Webhooks {
    pub(super) fn kind(&'static self, kind: &'static str, resource: &'static str) -> Kind {
        Kind::cluster(GROUP, "v1", kind, resource, self).category(CATEGORY).columns(vec![
            Column::integer("Webhooks", "How many webhooks it registers.", |object, _| {
                json!(size(&object["webhooks"]))
            }),
            age(),
        ])
    }
}

impl Strategy for Webhooks {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        for hook in each(object, "webhooks") {
            set(hook, "failurePolicy", "Fail");
            default_selectors(hook);
            set(hook, "timeoutSeconds", 10);
            if self.mutating {
                set(hook, "reinvocationPolicy", "Never");
            }
            default_rules(hook, "rules");
            if let Some(service) = child(hook, "clientConfig").and_then(|config| child(config, "service")) {
                set(service, "port", 443);
            }
        }
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let mut seen = HashSet::new();
        for hook in root.get("webhooks").items() {
            self.validate_hook(hook, &mut errors);
            reviews(hook.get("admissionReviewVersions"), &mut errors);
            let name = hook.get("name");
            if !name.is_empty() && !seen.insert(name.str()) {
                errors.push(name.duplicate());
            }
        }
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

impl Webhooks {
    fn validate_hook(&self, hook: View, errors: &mut Errors) {
        full_name(hook.get("name"), errors);
        for rule in hook.get("rules").items() {
            validate_rule(rule, errors);
        }
        failure_policy(hook.get("failurePolicy"), errors);
        match_policy(hook.get("matchPolicy"), errors);
        let effects = hook.get("sideEffects");
        if effects.is_set() {
            one_of(effects, &["None", "NoneOnDryRun"], errors);
        } else {
            errors.push(effects.required("must specify one of None, NoneOnDryRun"));
        }
        let timeout = hook.get("timeoutSeconds");
        if timeout.int().is_some_and(|n| !(1..=30).contains(&n)) {
            errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
        }
        for field in ["namespaceSelector", "objectSelector"] {
            labels::validate_selector(hook.get(field), errors);
        }
        if self.mutating {
            one_of(hook.get("reinvocationPolicy"), &["IfNeeded", "Never"], errors);
        }
        webhook_config::validate(hook.get("clientConfig"), errors);
        expression::conditions(hook.get("matchConditions"), errors);
    }
}

/// `example.com` would do for no one: three parts at least.
fn full_name(name: View, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(name.required(""));
        return;
    }
    let complaints = names::subdomain(name.str());
    if !complaints.is_empty() {
        errors.push(name.invalid(&complaints.join(",")));
    } else if name.str().split('.').count() < 3 {
        errors.push(name.invalid("should be a domain with at least three segments separated by dots"));
    }
}

fn reviews(versions: View, errors: &mut Errors) {
    if versions.is_empty() {
        errors.push(versions.required(&format!("must specify one of {}", REVIEWS.join(", "))));
        return;
    }
    let mut seen = HashSet::new();
    for version in versions.items() {
        if !seen.insert(version.str()) {
            errors.push(version.invalid("duplicate version"));
            continue;
        }
        errors.extend(names::label_1035(version.str()).iter().map(|complaint| version.invalid_str(complaint)));
    }
    if !REVIEWS.iter().any(|known| seen.contains(known)) {
        errors.push(versions.invalid(&format!("must include at least one of {}", REVIEWS.join(", "))));
    }
}
