//! Volumes and their sources.

use std::collections::HashSet;

use super::containers::descending;
use super::env::{self, Place};
use super::validate::Context;
use super::{resources, sources};
use crate::kinds::core::persistent_volume_claim;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, labels, names, one_of, required};

/// `volumes`
pub(super) fn validate(spec: View, context: Context, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for volume in spec.get("volumes").items() {
        let mut count = 0;
        for (field, _) in volume.entries() {
            let source = volume.get(field);
            if field == "name" || !source.is_set() {
                continue;
            }
            count += 1;
            if count > 1 {
                errors.push(source.forbidden("may not specify more than 1 volume type"));
            } else {
                self::source(field, source, context, errors);
            }
        }
        if count == 0 {
            errors.push(volume.required("must specify a volume type"));
        }
        let name = volume.get("name");
        if required(name, errors) {
            checked(name, names::label, errors);
            if !seen.insert(name.str()) {
                errors.push(name.duplicate());
            }
        }
    }
}

fn source(field: &str, source: View, context: Context, errors: &mut Errors) {
    match field {
        "emptyDir" if source.get("sizeLimit").is_set() => {
            resources::quantity(source.get("sizeLimit"), errors);
        }
        "secret" => {
            required(source.get("secretName"), errors);
            mode(source.get("defaultMode"), errors);
            key_items(source, errors);
        }
        "configMap" => {
            required(source.get("name"), errors);
            mode(source.get("defaultMode"), errors);
            key_items(source, errors);
        }
        "downwardAPI" => {
            mode(source.get("defaultMode"), errors);
            downward_items(source, errors);
        }
        "projected" => {
            mode(source.get("defaultMode"), errors);
            projected(source, errors);
        }
        "persistentVolumeClaim" => drop(required(source.get("claimName"), errors)),
        "image" => {
            // In a template it may be left to whoever makes the pod.
            if context.pod {
                required(source.get("reference"), errors);
            }
            let policy = source.get("pullPolicy");
            if policy.is_set() {
                one_of(policy, &["Always", "IfNotPresent", "Never"], errors);
            }
        }
        "csi" => {
            sources::csi_driver(source.get("driver"), errors);
            let secret = source.get("nodePublishSecretRef");
            if secret.is_set() {
                required(secret.get("name"), errors);
            }
        }
        "ephemeral" => ephemeral(source.get("volumeClaimTemplate"), errors),
        "gitRepo" => {
            required(source.get("repository"), errors);
            descending(source.get("directory"), errors);
        }
        _ => sources::shared(field, source, errors),
    }
}

/// A claim that lives as long as the pod; of its metadata only labels and annotations count.
fn ephemeral(template: View, errors: &mut Errors) {
    if !template.is_set() {
        errors.push(template.required(""));
        return;
    }
    let metadata = template.get("metadata");
    labels::validate_annotations(metadata.get("annotations"), errors);
    labels::validate(metadata.get("labels"), errors);
    for (field, value) in metadata.value.as_object().into_iter().flatten() {
        let allowed = matches!(field.as_str(), "annotations" | "labels" | "creationTimestamp");
        if !allowed && !value.is_null() {
            errors.push(FieldError::forbidden(format!("{}.{field}", metadata.path()), "cannot be set"));
        }
    }
    persistent_volume_claim::validate_spec(template.get("spec"), errors);
}

fn mode(mode: View, errors: &mut Errors) {
    if mode.int().is_some_and(|n| !(0..=0o777).contains(&n)) {
        errors.push(mode.invalid("must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

fn key_items(source: View, errors: &mut Errors) {
    for item in source.get("items").items() {
        required(item.get("key"), errors);
        let path = item.get("path");
        if required(path, errors) {
            local_path(path, errors);
        }
        mode(item.get("mode"), errors);
    }
}

fn downward_items(source: View, errors: &mut Errors) {
    for item in source.get("items").items() {
        let path = item.get("path");
        if required(path, errors) {
            local_path(path, errors);
        }
        let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (true, both) => {
                env::field_ref(field, Place::Volume, errors);
                if both {
                    let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    errors.push(FieldError::invalid(item.path(), "resource", detail));
                }
            }
            (false, true) => env::resource_ref(resource, Place::Volume, errors),
            (false, false) => errors.push(item.required("one of fieldRef and resourceFieldRef is required")),
        }
        mode(item.get("mode"), errors);
    }
}

/// A relative path inside a volume that does not start with `..`, which the atomic writer uses.
fn local_path(path: View, errors: &mut Errors) {
    descending(path, errors);
    if path.str().starts_with("..") && path.str() != ".." && !path.str().starts_with("../") {
        errors.push(path.invalid("must not start with '..'"));
    }
}

fn projected(projected: View, errors: &mut Errors) {
    let mut paths = HashSet::new();
    for source in projected.get("sources").items() {
        let mut count = 0;
        for (kind, _) in source.entries() {
            let view = source.get(kind);
            if !view.is_set() {
                continue;
            }
            count += 1;
            if count > 1 {
                errors.push(view.forbidden("may not specify more than 1 volume type per source"));
                continue;
            }
            match kind {
                "secret" | "configMap" => {
                    required(view.get("name"), errors);
                    key_items(view, errors);
                }
                "downwardAPI" => downward_items(view, errors),
                "serviceAccountToken" => token(view, errors),
                "clusterTrustBundle" => trust_bundle(view, errors),
                _ => {}
            }
            let items = view.get("items");
            let own = view.get("path");
            let all = items.items().map(|item| item.get("path").str()).chain([own.str()]);
            for path in all.filter(|path| !path.is_empty()) {
                if !paths.insert(path.to_string()) {
                    errors.push(FieldError::invalid(projected.path(), path, "conflicting duplicate paths"));
                }
            }
        }
    }
}

/// Certificates of one bundle by its name, or of all of a signer's that a selector selects.
fn trust_bundle(bundle: View, errors: &mut Errors) {
    let (name, signer, selector) = (bundle.get("name"), bundle.get("signerName"), bundle.get("labelSelector"));
    if !name.is_set() && !signer.is_set() {
        errors.push(bundle.required("either name or signerName must be specified"));
    }
    if name.is_set() && signer.is_set() {
        errors.push(signer.invalid("only one of name and signerName may be used"));
    }
    if name.is_set() {
        if name.is_empty() {
            errors.push(name.required("must be a valid object name"));
        }
        if selector.is_set() {
            let detail = "labelSelector must be unset if name is specified";
            errors.push(selector.invalid(detail));
        }
    }
    labels::validate_selector(selector, errors);
    let path = bundle.get("path");
    if required(path, errors) {
        local_path(path, errors);
    }
}

fn token(token: View, errors: &mut Errors) {
    let seconds = token.get("expirationSeconds");
    match seconds.int().unwrap_or(3600) {
        n if n < 600 => errors.push(seconds.invalid("may not specify a duration less than 10 minutes")),
        n if n > 1 << 32 => errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds")),
        _ => {}
    }
    let path = token.get("path");
    if required(path, errors) {
        local_path(path, errors);
    }
}
