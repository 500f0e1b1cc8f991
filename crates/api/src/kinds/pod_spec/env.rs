//! Environment variables and what they may refer to; the downward API's fields.

use crate::kinds::pod_spec::resources;
use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, required};

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Where a reference to a pod's field stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Env,
    Volume,
}

/// `env`
pub(super) fn variables(env: View, errors: &mut Errors) {
    for variable in env.items() {
        let name = variable.get("name");
        if required(name, errors) {
            checked(name, names::env_var, errors);
        }
        let source = variable.get("valueFrom");
        if source.is_set() {
            value_from(variable, source, errors);
        }
    }
}

fn value_from(variable: View, source: View, errors: &mut Errors) {
    let mut count = 0;
    for field in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
        let reference = source.get(field);
        if !reference.is_set() {
            continue;
        }
        count += 1;
        match field {
            "fieldRef" => field_ref(reference, Place::Env, errors),
            "resourceFieldRef" => resource_ref(reference, Place::Env, errors),
            "fileKeyRef" => {
                for field in ["volumeName", "path", "key"] {
                    required(reference.get(field), errors);
                }
            }
            _ => key_ref(reference, errors),
        }
    }
    let fault = |detail: &str| FieldError::invalid(source.path(), "", detail);
    if count == 0 {
        errors.push(fault(
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ));
    } else if !variable.get("value").is_empty() {
        errors.push(fault("may not be specified when `value` is not empty"));
    } else if count > 1 {
        errors.push(fault("may not have more than one field specified at a time"));
    }
}

fn key_ref(reference: View, errors: &mut Errors) {
    checked(reference.get("name"), names::subdomain, errors);
    let key = reference.get("key");
    if required(key, errors) {
        checked(key, names::config_key, errors);
    }
}

/// `envFrom`
pub(super) fn sources(sources: View, errors: &mut Errors) {
    // Upstream reports a bad choice at the list, without an index.
    let fault = |detail: &str| FieldError::invalid(sources.path(), "", detail);
    for source in sources.items() {
        let prefix = source.get("prefix");
        if !prefix.is_empty() {
            checked(prefix, names::env_var, errors);
        }
        let mut count = 0;
        for field in ["configMapRef", "secretRef"] {
            let reference = source.get(field);
            if reference.is_set() {
                count += 1;
                if required(reference.get("name"), errors) {
                    checked(reference.get("name"), names::subdomain, errors);
                }
            }
        }
        match count {
            0 => errors.push(fault("must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(fault("may not have more than one field specified at a time")),
        }
    }
}

/// A `fieldRef`.
pub(super) fn field_ref(reference: View, place: Place, errors: &mut Errors) {
    let version = reference.get("apiVersion");
    let path = reference.get("fieldPath");
    if !required(version, errors) || !required(path, errors) {
        return;
    }
    if version.str() != "v1" {
        errors.push(FieldError::invalid(
            path.path(),
            path.str(),
            &format!("error converting fieldPath: unsupported pod version: {}", version.str()),
        ));
        return;
    }
    if let Some((field, key)) = subscript(path.str()) {
        match field {
            "metadata.annotations" => {
                let lower = key.to_ascii_lowercase();
                errors
                    .extend(names::qualified(&lower).iter().map(|c| FieldError::invalid(path_key(reference), key, c)));
            }
            "metadata.labels" => {
                errors.extend(names::qualified(key).iter().map(|c| FieldError::invalid(path_key(reference), key, c)));
            }
            _ => errors.push(path.invalid_str("does not support subscript")),
        }
        return;
    }
    let supported: &[&str] = if place == Place::Env { &ENV_FIELDS } else { &VOLUME_FIELDS };
    if supported.contains(&path.str()) {
        return;
    }
    if ENV_FIELDS.contains(&path.str()) || VOLUME_FIELDS.contains(&path.str()) {
        errors.push(path.not_supported(supported));
    } else {
        let detail = format!("error converting fieldPath: field label not supported: {}", path.str());
        errors.push(path.invalid_str(&detail));
    }
}

fn path_key(reference: View) -> String {
    reference.path()
}

/// `metadata.labels['app']` as (`metadata.labels`, `app`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (field, rest) = path.split_once("['")?;
    Some((field, rest.strip_suffix("']")?))
}

/// A `resourceFieldRef`.
pub(super) fn resource_ref(reference: View, place: Place, errors: &mut Errors) {
    if place == Place::Volume && !required(reference.get("containerName"), errors) {
        return;
    }
    let resource = reference.get("resource");
    if !required(resource, errors) {
        return;
    }
    let name = resource.str();
    if !RESOURCES.contains(&name) && !name.starts_with("limits.hugepages-") && !name.starts_with("requests.hugepages-")
    {
        errors.push(resource.not_supported(&RESOURCES));
        return;
    }
    let divisor = reference.get("divisor");
    let Ok(quantity) = Quantity::from_value(divisor.value) else {
        resources::quantity(divisor, errors);
        return;
    };
    let cpu = name.ends_with(".cpu");
    let kind = match name.split('.').nth(1).unwrap_or_default() {
        "ephemeral-storage" => "local ephemeral storage",
        kind if kind.starts_with("hugepages-") => "hugepages",
        kind => kind,
    };
    let allowed: &[&str] = if cpu {
        &["1m", "1"]
    } else {
        &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"]
    };
    if !quantity.is_zero() && !allowed.contains(&quantity.to_string().as_str()) {
        let list = if cpu { "1m and 1".to_string() } else { allowed.join(", ") };
        let detail = format!("only divisor's values {list} are supported with the {kind} resource");
        errors.push(FieldError::invalid(divisor.path(), name, &detail));
    }
}
