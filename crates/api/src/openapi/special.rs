//! What upstream's documents say of a few fields and types that neither `k8s-openapi` nor our table of types has.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

/// The values that upstream's enumerated types (`+enum`) allow, then after a colon the fields of those types, below
/// `io.k8s.api.`. Of lists and maps the items are meant.
const ENUMS: &str = include_str!("enums.txt");

/// The values that a string field may have, when upstream publishes them.
pub(super) fn values(name: &str, field: &str) -> Option<Value> {
    static VALUES: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
        let lines = ENUMS.lines().filter_map(|line| line.split_once(": "));
        lines.flat_map(|(values, fields)| fields.split(' ').map(move |field| (field, values))).collect()
    });
    let values = VALUES.get(format!("{}.{field}", name.strip_prefix("io.k8s.api.")?).as_str())?;
    Some(values.split(' ').map(|value| if value == "\"\"" { "" } else { value }).collect())
}

/// The default of a field (below `io.k8s.api.`) that is not its type's zero value.
pub(super) fn default(name: &str, field: &str) -> Option<Value> {
    let name = name.strip_prefix("io.k8s.api.")?;
    Some(match (name, field) {
        ("core.v1.ContainerPort" | "core.v1.ServicePort", "protocol") => "TCP".into(),
        ("core.v1.GRPCAction", "service") => "".into(),
        ("core.v1.FileKeySelector", "optional") => false.into(),
        ("core.v1.ISCSIVolumeSource" | "core.v1.ISCSIPersistentVolumeSource", "iscsiInterface") => "default".into(),
        ("core.v1.RBDVolumeSource" | "core.v1.RBDPersistentVolumeSource", field) => match field {
            "pool" => "rbd".into(),
            "user" => "admin".into(),
            "keyring" => "/etc/ceph/keyring".into(),
            _ => return None,
        },
        ("core.v1.ScaleIOVolumeSource" | "core.v1.ScaleIOPersistentVolumeSource", field) => match field {
            "storageMode" => "ThinProvisioned".into(),
            "fsType" => "xfs".into(),
            _ => return None,
        },
        ("core.v1.AzureDiskVolumeSource", field) => match field {
            "cachingMode" => "ReadWrite".into(),
            "fsType" => "ext4".into(),
            "kind" => "Shared".into(),
            "readOnly" => false.into(),
            _ => return None,
        },
        (name, "operator") if name.starts_with("resource.") && name.ends_with(".DeviceToleration") => "Equal".into(),
        _ => return None,
    })
}

/// Lists that are atomic, of types that are in no object.
pub(super) fn is_atomic(name: &str, field: &str) -> bool {
    let Some(name) = name.strip_prefix("io.k8s.apimachinery.pkg.apis.meta.v1.") else { return false };
    matches!(
        (name, field),
        ("APIResource", "categories" | "shortNames")
            | ("APIResourceList", "resources")
            | ("APIGroup", "versions" | "serverAddressByClientCIDRs")
            | ("APIGroupList", "groups")
            | ("APIVersions", "versions" | "serverAddressByClientCIDRs")
    )
}

/// Objects that server-side apply merges field by field although their type is atomic.
pub(super) fn is_granular(name: &str, field: &str) -> bool {
    matches!(
        (name, field),
        ("io.k8s.api.core.v1.PersistentVolumeSpec", "claimRef")
            | ("io.k8s.api.core.v1.PersistentVolumeClaimStatus", "allocatedResourceStatuses")
    )
}

/// The discriminated union that a type is.
pub(super) fn union(name: &str) -> Option<Value> {
    let (discriminator, fields) = match name.strip_prefix("io.k8s.api.")? {
        "core.v1.AppArmorProfile" | "core.v1.SeccompProfile" => {
            ("type", json!({ "localhostProfile": "LocalhostProfile" }))
        }
        "flowcontrol.v1.LimitResponse" => ("type", json!({ "queuing": "Queuing" })),
        "flowcontrol.v1.PriorityLevelConfigurationSpec" => {
            ("type", json!({ "exempt": "Exempt", "limited": "Limited" }))
        }
        "flowcontrol.v1.Subject" => {
            ("kind", json!({ "group": "Group", "serviceAccount": "ServiceAccount", "user": "User" }))
        }
        _ => return None,
    };
    Some(json!({ "discriminator": discriminator, "fields-to-discriminateBy": fields }))
}
