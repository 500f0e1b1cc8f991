//! Volume sources that pods and persistent volumes share: disks, shares and storage drivers.

use super::containers::no_back_steps;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, one_of, required, within};

/// What a PersistentVolume may be made of, in the order in which upstream looks.
pub(crate) const PERSISTENT: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// The source of a PersistentVolume.
pub(crate) fn persistent(name: &str, source: View, errors: &mut Errors) {
    match name {
        "csi" => persistent_csi(source, errors),
        "local" => {
            let path = source.get("path");
            if required(path, errors) {
                no_back_steps(path, errors);
            }
        }
        "azureFile" => {
            azure_file(source, errors);
            let namespace = source.get("secretNamespace");
            if namespace.is_set() && namespace.is_empty() {
                errors.push(namespace.required(""));
            }
        }
        "iscsi" | "scaleIO" | "flexVolume" => {
            shared(name, source, errors);
            let secret = source.get("secretRef");
            if secret.is_set() {
                required(secret.get("name"), errors);
            }
        }
        "glusterfs" => {
            shared(name, source, errors);
            let namespace = source.get("endpointsNamespace");
            if namespace.is_set() {
                if namespace.is_empty() {
                    errors
                        .push(namespace.invalid("if the endpointnamespace is set, it must be a valid namespace name"));
                } else {
                    checked(namespace, names::label, errors);
                }
            }
        }
        _ => shared(name, source, errors),
    }
}

/// A source that pods and persistent volumes have in the same form. Others pass.
pub(super) fn shared(name: &str, source: View, errors: &mut Errors) {
    let all = |fields: &[&'static str], errors: &mut Errors| {
        for field in fields {
            required(source.get(field), errors);
        }
    };
    match name {
        "hostPath" => {
            let path = source.get("path");
            if required(path, errors) {
                no_back_steps(path, errors);
                one_of(source.get("type"), &HOST_PATH_TYPES, errors);
            }
        }
        "nfs" => {
            required(source.get("server"), errors);
            let path = source.get("path");
            required(path, errors);
            if !path.str().starts_with('/') {
                errors.push(path.invalid_str("must be an absolute path"));
            }
        }
        "gcePersistentDisk" => {
            all(&["pdName"], errors);
            partition(source, errors);
        }
        "awsElasticBlockStore" => {
            all(&["volumeID"], errors);
            partition(source, errors);
        }
        "glusterfs" => all(&["endpoints", "path"], errors),
        "flocker" => flocker(source, errors),
        "rbd" => all(&["monitors", "image"], errors),
        "quobyte" => quobyte(source, errors),
        "cephfs" => all(&["monitors"], errors),
        "iscsi" => iscsi(source, errors),
        "cinder" => all(&["volumeID"], errors),
        "fc" => fibre_channel(source, errors),
        "flexVolume" => all(&["driver"], errors),
        "azureFile" => azure_file(source, errors),
        "vsphereVolume" => all(&["volumePath"], errors),
        "photonPersistentDisk" => all(&["pdID"], errors),
        "portworxVolume" => all(&["volumeID"], errors),
        "azureDisk" => azure_disk(source, errors),
        "scaleIO" => all(&["gateway", "system", "volumeName"], errors),
        "storageos" => storage_os(source, errors),
        _ => {}
    }
}

fn partition(source: View, errors: &mut Errors) {
    let partition = source.get("partition");
    if partition.int().is_some_and(|n| !(0..=255).contains(&n)) {
        errors.push(partition.invalid("must be between 0 and 255, inclusive"));
    }
}

fn azure_file(source: View, errors: &mut Errors) {
    required(source.get("secretName"), errors);
    required(source.get("shareName"), errors);
}

fn flocker(source: View, errors: &mut Errors) {
    let (name, uuid) = (source.get("datasetName"), source.get("datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => errors.push(source.required("one of datasetName and datasetUUID is required")),
        (false, false) => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(FieldError::invalid(source.path(), "resource", detail));
        }
        _ => {}
    }
    if name.str().contains('/') {
        errors.push(name.invalid("must not contain '/'"));
    }
}

fn quobyte(source: View, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (source.get("registry"), source.get("tenant"));
    if registry.is_empty() {
        errors.push(registry.required(PAIRS));
    } else if tenant.len() >= 65 {
        errors.push(tenant.required("must be a UUID and may not exceed a length of 64 characters"));
    } else {
        for _ in registry.str().split(',').filter(|pair| !pair.contains(':')) {
            errors.push(registry.invalid(PAIRS));
        }
    }
    required(source.get("volume"), errors);
}

fn iscsi(source: View, errors: &mut Errors) {
    required(source.get("targetPortal"), errors);
    let name = source.get("iqn");
    let known = ["iqn", "eui", "naa"].iter().any(|prefix| name.str().starts_with(prefix));
    if required(name, errors) && !known {
        errors.push(name.invalid("must be valid format starting with iqn, eui, or naa"));
    }
    within(source.get("lun"), 0, 255, errors);
    let authenticates = source.get("chapAuthDiscovery").bool() || source.get("chapAuthSession").bool();
    if authenticates && !source.get("secretRef").is_set() {
        errors.push(source.get("secretRef").required(""));
    }
}

fn fibre_channel(source: View, errors: &mut Errors) {
    let (targets, wwids, lun) = (source.get("targetWWNs"), source.get("wwids"), source.get("lun"));
    match (targets.is_empty(), wwids.is_empty()) {
        (true, true) => errors.push(targets.required("must specify either targetWWNs or wwids, but not both")),
        (false, false) => {
            errors.push(targets.invalid("targetWWNs and wwids can not be specified simultaneously"));
        }
        _ => {}
    }
    if !targets.is_empty() {
        if lun.is_set() {
            within(lun, 0, 255, errors);
        } else {
            errors.push(lun.required("lun is required if targetWWNs is specified"));
        }
    }
}

fn azure_disk(source: View, errors: &mut Errors) {
    required(source.get("diskName"), errors);
    required(source.get("diskURI"), errors);
    let mode = source.get("cachingMode");
    if mode.is_set() {
        one_of(mode, &["None", "ReadOnly", "ReadWrite"], errors);
    }
    let kind = source.get("kind");
    if kind.is_set() {
        one_of(kind, &["Dedicated", "Managed", "Shared"], errors);
    }
}

fn storage_os(source: View, errors: &mut Errors) {
    for field in ["volumeName", "volumeNamespace"] {
        let name = source.get(field);
        if name.is_empty() {
            if field == "volumeName" {
                errors.push(name.required(""));
            }
        } else {
            checked(name, names::label, errors);
        }
    }
}

/// The name of a CSI driver.
pub(crate) fn csi_driver(driver: View, errors: &mut Errors) {
    required(driver, errors);
    if driver.len() > 63 {
        errors.push(driver.too_long(63));
    }
    let complaints = names::subdomain(&driver.str().to_ascii_lowercase());
    errors.extend(complaints.iter().map(|complaint| driver.invalid_str(complaint)));
}

fn persistent_csi(source: View, errors: &mut Errors) {
    csi_driver(source.get("driver"), errors);
    required(source.get("volumeHandle"), errors);
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let secret = source.get(field);
        if secret.is_set() {
            required(secret.get("name"), errors);
            required(secret.get("namespace"), errors);
        }
    }
}
