//! Webhooks: what mutating and validating ones have in common.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::matching::{default_rules, default_selectors, failure_policy, match_policy, validate_rule};
use super::{CATEGORY, GROUP, expression};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{child, each, set};
use crate::kinds::print::{age, size};
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
        client_config(hook.get("clientConfig"), errors);
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

fn client_config(config: View, errors: &mut Errors) {
    let (url, service) = (config.get("url"), config.get("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => validate_url(url, errors),
        (false, true) => validate_service(service, errors),
        _ => errors.push(config.required("exactly one of url or service is required")),
    }
}

/// `https://host[/path]` and nothing else that a URL can have.
fn validate_url(url: View, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.str();
    if text.bytes().any(|b| b.is_ascii_control()) {
        let why = format!("url must be a valid URL: parse {text:?}: net/url: invalid control character in URL{FORM}");
        errors.push(url.required(&why));
        return;
    }
    let mut fault = |value: &str, detail: String| errors.push(FieldError::invalid(url.path(), value, &detail));
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_scheme = |scheme: &str| {
        scheme.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = rest.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", rest));
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.strip_prefix("//").map(|rest| rest.split('/').next().unwrap_or_default()).unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        fault(&scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        fault("", format!("host must be provided{FORM}"));
    }
    if let Some(user) = user {
        fault(user, "user information is not permitted in the URL".into());
    }
    if !fragment.is_empty() {
        fault(fragment, "fragments are not permitted in the URL".into());
    }
    if !query.is_empty() {
        fault(query, "query parameters are not permitted in the URL".into());
    }
}

fn validate_service(service: View, errors: &mut Errors) {
    // Upstream hands name and namespace over in the wrong order, and so reports each in place of the other.
    for (value, reported) in [("namespace", "name"), ("name", "namespace")] {
        if service.get(value).is_empty() {
            errors.push(service.get(reported).required(&format!("service {reported} is required")));
        }
    }
    let port = service.get("port");
    if !port.int().is_some_and(|n| (1..=65535).contains(&n)) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(port.path(), port.int().unwrap_or(0), detail));
    }
    let path = service.get("path");
    match path.str() {
        "" | "/" => return,
        "//" => {
            errors.push(path.invalid("segment[0] may not be empty"));
            return;
        }
        text if !text.starts_with('/') => errors.push(path.invalid("must start with a '/'")),
        _ => {}
    }
    let mut rest = path.str().chars();
    // Upstream skips the first character whether or not it is a slash.
    rest.next();
    let rest = rest.as_str();
    for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.push(path.invalid(&format!("segment[{i}] may not be empty")));
            continue;
        }
        errors.extend(names::subdomain(step).iter().map(|why| path.invalid(&format!("segment[{i}]: {why}"))));
    }
}
