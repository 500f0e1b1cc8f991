//! Upstream's defaults of a pod spec. The schema has put it into canonical form before (`Schema::conform`): no nulls,
//! no empty strings where upstream writes none, canonical quantities.

use serde_json::{Value, json};

use super::resources;
use crate::kinds::core::persistent_volume_claim;
use crate::kinds::mutate::{Object, child, each, make, set, set_str};
use crate::quantity::Quantity;

/// Defaults of every pod spec, in a pod or in a template.
pub(crate) fn pod_spec(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "restartPolicy", "Always");
    set(spec, "schedulerName", "default-scheduler");
    set(spec, "securityContext", json!({}));
    set(spec, "terminationGracePeriodSeconds", 30);
    // The old name of the field is served beside the new one.
    match (spec.get("serviceAccountName").cloned(), spec.get("serviceAccount").cloned()) {
        (Some(name), _) => drop(spec.insert("serviceAccount".into(), name)),
        (None, Some(name)) => drop(spec.insert("serviceAccountName".into(), name)),
        (None, None) => {}
    }
    if let Some(overhead) = child(spec, "overhead") {
        resource_list(overhead);
    }
    if let Some(resources) = child(spec, "resources") {
        resource_requirements(resources);
    }
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, key).for_each(container);
    }
    each(spec, "volumes").for_each(volume);
}

/// Defaults that a pod has and a template has not.
pub(crate) fn pod(value: &mut Value) {
    let Some(spec) = value.as_object_mut() else { return };
    set(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for key in ["containers", "initContainers"] {
        for container in each(spec, key) {
            if let Some(resources) = child(container, "resources") {
                requests_from_limits(resources);
            }
            if host_network {
                for port in each(container, "ports") {
                    if port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0 {
                        let number = port.get("containerPort").cloned().unwrap_or_default();
                        port.insert("hostPort".into(), number);
                    }
                }
            }
        }
    }
    whole_requests(value);
}

/// A template's metadata is always written, even when empty.
pub(crate) fn template(template: &mut Value) {
    if let Some(template) = template.as_object_mut() {
        set(template, "metadata", json!({}));
        if let Some(spec) = template.get_mut("spec") {
            pod_spec(spec);
        }
    }
}

/// A pod that limits itself as a whole requests what its containers do, else what it may use at most.
fn whole_requests(spec: &mut Value) {
    let sums: Vec<(String, String)> = resources::pod_requests(spec)
        .into_iter()
        .filter(|(name, _)| matches!(*name, "cpu" | "memory"))
        .map(|(name, sum)| (name.to_owned(), sum.to_string()))
        .collect();
    let Some(whole) = spec.get_mut("resources").and_then(Value::as_object_mut) else { return };
    let limits = whole.get("limits").and_then(Value::as_object).cloned().unwrap_or_default();
    if limits.is_empty() && sums.is_empty() {
        return;
    }
    if let Some(requests) = make(whole, "requests") {
        sums.into_iter().for_each(|(name, sum)| set(requests, &name, sum));
        limits.into_iter().for_each(|(name, limit)| set(requests, &name, limit));
    }
}

fn requests_from_limits(resources: &mut Object) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if let Some(requests) = make(resources, "requests") {
        for (name, limit) in limits {
            set(requests, &name, limit);
        }
    }
}

fn resource_requirements(resources: &mut Object) {
    for key in ["limits", "requests"] {
        if let Some(list) = child(resources, key) {
            resource_list(list);
        }
    }
}

/// Amounts are kept in thousandths: anything finer is rounded up.
pub(crate) fn resource_list(list: &mut Object) {
    for value in list.values_mut() {
        let fine = |text: &str| text.ends_with(['n', 'u']) || text.contains("e-");
        if !value.as_str().is_some_and(fine) {
            continue;
        }
        if let Ok(quantity) = Quantity::from_value(value) {
            *value = Quantity::from_millis(quantity.milli_value()).to_string().into();
        }
    }
}

fn container(container: &mut Object) {
    let pull_policy = pull_policy(container.get("image").and_then(Value::as_str).unwrap_or_default());
    set(container, "imagePullPolicy", pull_policy);
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    if let Some(resources) = make(container, "resources") {
        resource_requirements(resources);
    }
    each(container, "ports").for_each(|port| set(port, "protocol", "TCP"));
    for variable in each(container, "env") {
        // Empty values are not written.
        if let Some(source) = child(variable, "valueFrom") {
            field_ref(source);
            if let Some(resource) = child(source, "resourceFieldRef") {
                divisor(resource);
            }
            if let Some(key) = child(source, "fileKeyRef") {
                set(key, "optional", false);
            }
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child(container, key) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(hook) = child(lifecycle, key) {
                http_get(hook);
            }
        }
    }
}

/// `Always` for `latest` and for no tag at all, unless there is a digest.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(name, digest)| (name, digest));
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if digest.is_empty() && !image.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Object) {
    for (key, default) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.get(key).and_then(Value::as_i64).unwrap_or(0) == 0 {
            probe.insert(key.into(), default.into());
        }
    }
    http_get(probe);
    if let Some(grpc) = child(probe, "grpc") {
        set(grpc, "service", "");
    }
}

fn http_get(handler: &mut Object) {
    if let Some(get) = child(handler, "httpGet") {
        set(get, "path", "/");
        set(get, "scheme", "HTTP");
    }
}

fn field_ref(source: &mut Object) {
    if let Some(field) = child(source, "fieldRef") {
        set_str(field, "apiVersion", "v1");
    }
}

fn divisor(resource: &mut Object) {
    let canonical = resource.get("divisor").and_then(|value| Quantity::from_value(value).ok());
    match (canonical, resource.contains_key("divisor")) {
        (Some(quantity), _) => drop(resource.insert("divisor".into(), quantity.to_string().into())),
        (None, false) => drop(resource.insert("divisor".into(), "0".into())),
        (None, true) => {}
    }
}

fn downward_items(source: &mut Object) {
    for item in each(source, "items") {
        field_ref(item);
        if let Some(resource) = child(item, "resourceFieldRef") {
            divisor(resource);
        }
    }
}

/// Defaults of the sources that pods and persistent volumes share.
pub(crate) fn volume_source(volume: &mut Object) {
    let mut fill = |source: &str, fields: &[(&str, Value)]| {
        if let Some(source) = child(volume, source) {
            for (field, value) in fields {
                set(source, field, value.clone());
            }
        }
    };
    fill("hostPath", &[("type", json!(""))]);
    fill("iscsi", &[("iscsiInterface", json!("default"))]);
    fill("rbd", &[("pool", json!("rbd")), ("user", json!("admin")), ("keyring", json!("/etc/ceph/keyring"))]);
    let disk = [
        ("cachingMode", json!("ReadWrite")),
        ("kind", json!("Shared")),
        ("fsType", json!("ext4")),
        ("readOnly", json!(false)),
    ];
    fill("azureDisk", &disk);
    fill("scaleIO", &[("storageMode", json!("ThinProvisioned")), ("fsType", json!("xfs"))]);
}

fn volume(volume: &mut Object) {
    if volume.iter().all(|(key, value)| key == "name" || value.is_null()) {
        volume.insert("emptyDir".into(), json!({}));
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, key) {
            set(source, "defaultMode", 0o644);
        }
    }
    volume_source(volume);
    if let Some(template) = child(volume, "ephemeral").and_then(|source| child(source, "volumeClaimTemplate"))
        && let Some(spec) = child(template, "spec")
    {
        persistent_volume_claim::spec_defaults(spec);
    }
    if let Some(source) = child(volume, "image") {
        let policy = pull_policy(source.get("reference").and_then(Value::as_str).unwrap_or_default());
        set(source, "pullPolicy", policy);
    }
    if let Some(source) = child(volume, "downwardAPI") {
        downward_items(source);
    }
    if let Some(projected) = child(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(token) = child(source, "serviceAccountToken") {
                set(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = child(source, "downwardAPI") {
                downward_items(downward);
            }
        }
    }
}
