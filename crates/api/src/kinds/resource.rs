//! `resource.k8s.io/v1`: devices, classes of devices and claims to them. What its kinds share is here; what a claim may ask
//! for is in `devices`.

use std::collections::HashSet;
use std::hash::Hash;

use serde_json::Value;

use super::storage::driver_name;
use crate::kind::Kind;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names};

mod device_class;
mod devices;
mod resource_claim;
mod resource_claim_template;
mod resource_slice;
#[cfg(test)]
mod tests;

const GROUP: &str = "resource.k8s.io";
const MAX_POOL_NAME_BYTES: usize = 253;
const MAX_ID_BYTES: usize = 32;
const MAX_RAW_BYTES: usize = 10 * 1024;

pub(super) fn all() -> Vec<Kind> {
    vec![device_class::kind(), resource_claim::kind(), resource_claim_template::kind(), resource_slice::kind()]
}

/// At most `max` items, each checked by itself; too many are not looked at.
fn slice(list: View, max: usize, errors: &mut Errors, mut item: impl FnMut(View, &mut Errors)) {
    if list.len() > max {
        errors.push(list.too_many(max));
    } else {
        list.items().for_each(|one| item(one, errors));
    }
}

/// As [`slice`], and no two items have the same key.
fn set<'v, K: Hash + Eq + Into<Value> + Clone>(
    list: View<'_, 'v>,
    max: usize,
    errors: &mut Errors,
    key: impl Fn(&'v Value) -> K,
    item: impl FnMut(View, &mut Errors),
) {
    slice(list, max, errors, item);
    if list.len() > max {
        return;
    }
    let mut seen = HashSet::new();
    for one in list.items() {
        let key = key(one.value);
        if !seen.insert(key.clone()) {
            errors.push(FieldError::duplicate(one.path(), key));
        }
    }
}

/// The string in a field; empty when it is missing.
fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

/// Subdomains, separated by slashes.
fn pool_name(name: View, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(name.required(""));
        return;
    }
    if name.len() > MAX_POOL_NAME_BYTES {
        errors.push(name.too_long(MAX_POOL_NAME_BYTES));
    }
    for part in name.str().split('/') {
        let complaints = names::subdomain(part);
        errors.extend(complaints.iter().map(|complaint| FieldError::invalid(name.path(), part, complaint)));
    }
}

/// The name of an attribute or a capacity: an identifier, behind the name of a driver or not. `at` is where it is reported.
fn qualified_name(name: &str, at: View, errors: &mut Errors) {
    let empty = |what: &str| FieldError::invalid(at.path(), "", &format!("the {what} must not be empty"));
    let mut parts = name.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(id), None, _) => identifier(id, at, errors),
        (Some(domain), Some(id), None) => {
            if domain.is_empty() {
                errors.push(empty("domain"));
            } else {
                driver_name(at.with(&Value::from(domain)), errors);
            }
            if id.is_empty() {
                errors.push(empty("name"));
            } else {
                identifier(id, at, errors);
            }
        }
        _ => errors.push(FieldError::invalid(at.path(), name, "must not contain more than one slash")),
    }
}

fn identifier(id: &str, at: View, errors: &mut Errors) {
    if id.len() > MAX_ID_BYTES {
        errors.push(at.too_long(MAX_ID_BYTES));
    }
    let complaints = names::c_identifier(id);
    errors.extend(complaints.iter().map(|complaint| FieldError::invalid(at.path(), id, complaint)));
}

/// An attribute's name with its domain.
fn fully_qualified_name(name: View, errors: &mut Errors) {
    qualified_name(name.str(), name, errors);
    if !name.str().contains('/') {
        errors.push(name.invalid_str("a fully qualified name must be a domain and a name separated by a slash"));
    }
}

/// A label of DNS: names of devices and of requests.
fn label(name: View, errors: &mut Errors) {
    checked(name, names::label, errors);
}

/// JSON of a driver's own.
fn raw(data: View, errors: &mut Errors) {
    if !data.is_set() {
        errors.push(data.required(""));
    } else if data.value.to_string().len() > MAX_RAW_BYTES {
        errors.push(data.too_long(MAX_RAW_BYTES));
    } else if !data.value.is_object() {
        errors.push(FieldError::invalid(data.path(), "<value omitted>", "must be a valid JSON object"));
    }
}
