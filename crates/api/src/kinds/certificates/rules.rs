//! Rules of certificate requests: what may be asked for, and who may write which condition through which subresource.

use std::collections::HashSet;

use serde_json::Value;

use super::pem;
use crate::kind::Write;
use crate::kinds::print::items;
use crate::status::FieldError;
use crate::validation::{Errors, View, names, same};

/// As upstream lists them.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const MAX_DOMAIN_BYTES: usize = 253;
/// Domain, slash, namespace, dot, name.
const MAX_SIGNER_BYTES: usize = 253 + 1 + 63 + 1 + 253;
const EXCLUSIVE: &str = "Approved and Denied conditions are mutually exclusive";

pub(super) fn validate(object: &Value, write: Write<'_>) -> Errors {
    let mut errors = Vec::new();
    let root = View::root(object);
    let (old, sub) = match write {
        Write::Create => (&Value::Null, ""),
        Write::Update(old) => (old, ""),
        Write::Subresource(sub, old) => (old, sub),
    };
    validate_spec(root.get("spec"), old, &mut errors);
    let status = root.get("status");
    let conditions = status.get("conditions");
    validate_conditions(conditions, &old["status"]["conditions"], &mut errors);
    let certificate = status.get("certificate");
    let changed = certificate.str() != old["status"]["certificate"].as_str().unwrap_or_default();
    if (changed || old.is_null())
        && let Err(why) = pem::check_certificate(certificate.value)
    {
        errors.push(FieldError::invalid(certificate.path(), "<certificate data>", &why));
    }
    if !old.is_null() {
        validate_changes(conditions, &old["status"]["conditions"], sub, &mut errors);
        if changed && sub != "status" {
            errors.push(certificate.forbidden("updates may not set certificate content"));
        } else if changed && old["status"]["certificate"].as_str().is_some_and(|old| !old.is_empty()) {
            errors.push(certificate.forbidden("updates may not modify existing certificate content"));
        }
    }
    errors
}

fn validate_spec(spec: View, old: &Value, errors: &mut Errors) {
    let request = spec.get("request");
    // A stored request was checked when it came.
    if (old.is_null() || old["spec"]["request"] != *request.value)
        && let Err(why) = pem::check_request(request.value)
    {
        errors.push(request.invalid_str(&why));
    }
    let usages = spec.get("usages");
    if usages.is_empty() {
        errors.push(usages.required(""));
    }
    for usage in usages.items() {
        if !USAGES.contains(&usage.str()) {
            errors.push(usage.not_supported(&USAGES));
        }
    }
    let mut seen = HashSet::new();
    for usage in usages.items() {
        if !seen.insert(usage.str()) {
            errors.push(usage.duplicate());
        }
    }
    let signer = spec.get("signerName");
    if signer.str() == LEGACY_SIGNER {
        errors.push(signer.invalid("the legacy signerName is not allowed via this API version"));
    } else {
        signer_name(signer, errors);
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|n| n < 600) {
        errors.push(seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)"));
    }
}

/// `example.com/signer-name`
fn signer_name(signer: View, errors: &mut Errors) {
    if signer.is_empty() {
        errors.push(signer.required(""));
        return;
    }
    let parts: Vec<&str> = signer.str().split('/').collect();
    let [domain, path] = parts.as_slice() else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(signer.invalid(detail));
        return;
    };
    if domain.len() > MAX_DOMAIN_BYTES {
        errors.push(signer.too_long(MAX_DOMAIN_BYTES));
    }
    parts_of_signer(signer, domain, names::label, errors);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(signer.path(), *domain, detail));
    }
    parts_of_signer(signer, path, names::subdomain, errors);
    if signer.len() > MAX_SIGNER_BYTES {
        errors.push(signer.too_long(MAX_SIGNER_BYTES));
    }
}

/// Complains of the first part between dots that breaks the rule.
fn parts_of_signer(signer: View, whole: &str, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let wrong = whole.split('.').map(|label| (label, check(label))).find(|(_, complaints)| !complaints.is_empty());
    let (label, complaints) = wrong.unwrap_or_default();
    for complaint in complaints {
        let detail = format!("validating label {label:?}: {complaint}");
        errors.push(FieldError::invalid(signer.path(), whole, &detail));
    }
}

fn validate_conditions(conditions: View, old: &Value, errors: &mut Errors) {
    let has_old = |kind: &str| items(old).any(|condition| condition["type"] == kind);
    let both_before = has_old("Approved") && has_old("Denied");
    let mut seen = HashSet::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        if kind.is_empty() {
            errors.push(kind.required(""));
        }
        let allowed: &[&str] = match kind.str() {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        if status.is_empty() {
            errors.push(status.required(""));
        } else if !allowed.contains(&status.str()) {
            errors.push(status.not_supported(allowed));
        }
        let opposite = match kind.str() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !both_before && !opposite.is_empty() && seen.contains(opposite) {
            errors.push(kind.invalid(EXCLUSIVE));
        }
        if !seen.insert(kind.str()) {
            errors.push(FieldError::duplicate(kind.path(), kind.str()));
        }
    }
}

/// Decisions stay, and only `approval` makes them.
fn validate_changes(conditions: View, old: &Value, sub: &str, errors: &mut Errors) {
    let of = |list: &Value, kind: &str| -> Vec<Value> {
        items(list).filter(|condition| condition["type"] == kind).cloned().collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if of(conditions.value, kind).len() < of(old, kind).len() {
            errors.push(conditions.forbidden(&format!("updates may not remove a condition of type {kind:?}")));
        }
    }
    if sub == "approval" {
        return;
    }
    for kind in ["Approved", "Denied"] {
        let (new, old) = (of(conditions.value, kind), of(old, kind));
        if new.len() > old.len() {
            errors.push(conditions.forbidden(&format!("updates may not add a condition of type {kind:?}")));
        } else if new.len() == old.len() && !new.iter().zip(&old).all(|(new, old)| same(new, old)) {
            let show = |list: Vec<Value>| Value::from(list).to_string();
            let detail =
                format!("updates may not modify a condition of type {kind:?}\n- {}\n+ {}", show(old), show(new));
            errors.push(conditions.forbidden(&detail));
        }
    }
}
