//! What a claim asks for (`devices` of its spec), and the selectors and configuration that classes have, too.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{driver_name, fully_qualified_name, label, raw, set, slice, text};
use crate::kinds::gates::Field;
use crate::kinds::mutate::{Object, child, each, set_str};
use crate::kinds::print::items;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, one_of};

const MAX_REQUESTS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_CONSTRAINTS: usize = 32;
const MAX_SELECTORS: usize = 32;
pub(super) const MAX_CONFIG: usize = 32;
const MAX_EXPRESSION_BYTES: usize = 10 * 1024;
const ONE_KIND: &str = "exactly one of `exactly` or `firstAvailable` is required";
const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// Fields of a spec behind features that are off: tolerations of taints, and shares of a device's capacity.
pub(super) const GATED: [&[Field]; 2] = [
    &[&["devices", "requests", "exactly", "tolerations"], &["devices", "requests", "firstAvailable", "tolerations"]],
    &[
        &["devices", "requests", "exactly", "capacity"],
        &["devices", "requests", "firstAvailable", "capacity"],
        &["devices", "constraints", "distinctAttribute"],
    ],
];

/// One device, unless a request says otherwise.
pub(super) fn default(spec: &mut Object) {
    let Some(devices) = child(spec, "devices") else { return };
    for request in each(devices, "requests") {
        if let Some(exactly) = child(request, "exactly") {
            default_request(exactly);
        }
        each(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Object) {
    set_str(request, "allocationMode", "ExactCount");
    let is_unset = request.get("count").is_none_or(|count| count.is_null() || *count == 0);
    if request["allocationMode"] == "ExactCount" && is_unset {
        request.insert("count".into(), 1.into());
    }
}

/// The names of a claim's requests, each with those of its alternatives.
pub(super) struct Requests<'v>(HashMap<&'v str, HashSet<&'v str>>);

impl<'v> Requests<'v> {
    pub(super) fn of(spec: &'v Value) -> Self {
        let alternatives =
            |request: &'v Value| items(&request["firstAvailable"]).map(|one| text(one, "name")).collect();
        Self(items(&spec["devices"]["requests"]).map(|one| (text(one, "name"), alternatives(one))).collect())
    }

    fn has(&self, reference: &str) -> bool {
        match reference.split_once('/') {
            None => self.0.contains_key(reference),
            Some((request, alternative)) => self.0.get(request).is_some_and(|all| all.contains(alternative)),
        }
    }

    /// A request, or `request/alternative`.
    pub(super) fn reference(&self, reference: View, errors: &mut Errors) {
        let parts = reference.str().split('/');
        if parts.clone().count() > 2 {
            errors.push(reference.invalid_str(NO_REQUEST));
            return;
        }
        for part in parts {
            let complaints = names::label(part);
            errors.extend(complaints.iter().map(|complaint| FieldError::invalid(reference.path(), part, complaint)));
        }
        if !self.has(reference.str()) {
            errors.push(reference.invalid_str(NO_REQUEST));
        }
    }

    /// The requests that something is about.
    pub(super) fn references(&self, list: View, errors: &mut Errors) {
        let name = |one: &Value| one.as_str().unwrap_or_default().to_owned();
        set(list, MAX_REQUESTS, errors, name, |one, errors| self.reference(one, errors));
    }
}

/// A claim's spec.
pub(super) fn validate(spec: View, errors: &mut Errors) {
    let devices = spec.get("devices");
    let known = Requests::of(spec.value);
    set(devices.get("requests"), MAX_REQUESTS, errors, |one| text(one, "name").to_owned(), request);
    slice(devices.get("constraints"), MAX_CONSTRAINTS, errors, |constraint, errors| {
        known.references(constraint.get("requests"), errors);
        let attribute = constraint.get("matchAttribute");
        if attribute.is_set() {
            fully_qualified_name(attribute, errors);
        } else {
            errors.push(attribute.required(""));
        }
    });
    slice(devices.get("config"), MAX_CONFIG, errors, |config, errors| {
        known.references(config.get("requests"), errors);
        configuration(config, errors);
    });
}

fn request(request: View, errors: &mut Errors) {
    label(request.get("name"), errors);
    let (exactly, alternatives) = (request.get("exactly"), request.get("firstAvailable"));
    match (exactly.is_set(), !alternatives.is_empty()) {
        (false, false) => errors.push(request.required(ONE_KIND)),
        (true, true) => {
            let detail = format!("{ONE_KIND}, but multiple fields are set");
            errors.push(FieldError::invalid(request.path(), Value::Null, &detail));
        }
        (true, false) => wanted(exactly, errors),
        (false, true) => {
            set(
                alternatives,
                MAX_ALTERNATIVES,
                errors,
                |one| text(one, "name").to_owned(),
                |one, errors| {
                    label(one.get("name"), errors);
                    wanted(one, errors);
                },
            );
        }
    }
}

/// Which devices, and how many.
fn wanted(wanted: View, errors: &mut Errors) {
    let class = wanted.get("deviceClassName");
    if class.is_empty() {
        errors.push(class.required(""));
    } else {
        checked(class, names::subdomain, errors);
    }
    selectors(wanted.get("selectors"), errors);
    let (mode, count) = (wanted.get("allocationMode"), wanted.get("count"));
    let n = count.int().unwrap_or(0);
    let mut bad = |detail: &str| errors.push(FieldError::invalid(count.path(), n, detail));
    match mode.str() {
        "All" if n != 0 => bad("must not be specified when allocationMode is 'All'"),
        "ExactCount" if n <= 0 => bad("must be greater than zero"),
        _ => one_of(mode, &["All", "ExactCount"], errors),
    }
}

/// Expressions that pick devices.
pub(super) fn selectors(selectors: View, errors: &mut Errors) {
    slice(selectors, MAX_SELECTORS, errors, |selector, errors| {
        let cel = selector.get("cel");
        let expression = cel.get("expression");
        if !cel.is_set() {
            errors.push(cel.required(""));
        } else if expression.len() > MAX_EXPRESSION_BYTES {
            errors.push(expression.too_long(MAX_EXPRESSION_BYTES));
        }
    });
}

/// What a driver is told.
pub(super) fn configuration(config: View, errors: &mut Errors) {
    let opaque = config.get("opaque");
    if !opaque.is_set() {
        errors.push(opaque.required(""));
        return;
    }
    driver_name(opaque.get("driver"), errors);
    raw(opaque.get("parameters"), errors);
}
