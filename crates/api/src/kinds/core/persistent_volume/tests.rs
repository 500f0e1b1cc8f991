use serde_json::{Value, json};

use crate::kind::Write;
use crate::kinds::testing::{check_row, check_write, created, kind, with};

const VOLUME: &str = "v1 PersistentVolume";

fn volume() -> Value {
    json!({
        "metadata": {"name": "pv", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}},
    })
}

fn csi() -> Value {
    json!({"hostPath": null, "csi": {"driver": "csi.example.com", "volumeHandle": "h"}})
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    crate::kinds::testing::check(VOLUME, with(&volume(), json!({"spec": patch})), expected);
}

#[test]
fn defaults() {
    let made = created(VOLUME, volume());
    let spec = &made["spec"];
    assert_eq!(
        (&spec["persistentVolumeReclaimPolicy"], &spec["volumeMode"], &spec["hostPath"]),
        (&json!("Retain"), &json!("Filesystem"), &json!({"path": "/data", "type": ""}))
    );
    assert_eq!(made["status"], json!({"phase": "Pending", "lastPhaseTransitionTime": "2026-01-01T00:00:00Z"}));
    assert_eq!(made["metadata"]["generation"], Value::Null);
}

#[test]
fn rules() {
    check(json!({}), &[]);
    check(csi(), &[]);
    check(
        json!({"accessModes": null, "capacity": null}),
        &[
            "spec.accessModes: Required value",
            "spec.capacity: Required value",
            "spec.capacity: Unsupported value: null: supported values: \"storage\"",
        ],
    );
    check(
        json!({"capacity": {"storage": "0"}}),
        &["spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"],
    );
    check(
        json!({"accessModes": ["X", "ReadWriteOncePod", "ReadOnlyMany"]}),
        &[
            "spec.accessModes: Unsupported value: \"X\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
        ],
    );
    check(
        json!({"persistentVolumeReclaimPolicy": "X", "volumeMode": "Y"}),
        &[
            "spec.persistentVolumeReclaimPolicy: Unsupported value: \"X\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
            "spec.volumeMode: Unsupported value: \"Y\": supported values: \"Block\", \"Filesystem\"",
        ],
    );
    check(json!({"hostPath": null}), &["spec: Required value: must specify a volume type"]);
    check(
        json!({"nfs": {"server": "s", "path": "/"}}),
        &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
    );
    check(
        json!({"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"}),
        &["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"],
    );
    check(
        json!({"hostPath": null, "local": {"path": "/disk"}}),
        &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
    );
    check(
        json!({"nodeAffinity": {}}),
        &["spec.nodeAffinity.required: Required value: must specify required node constraints"],
    );
    check(
        json!({"volumeAttributesClassName": "gold"}),
        &["spec.csi: Required value: has to be specified when using volumeAttributesClassName"],
    );
    check(
        json!({"hostPath": null, "csi": {"nodePublishSecretRef": {}}}),
        &[
            "spec.csi.driver: Required value",
            "spec.csi.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.csi.volumeHandle: Required value",
            "spec.csi.nodePublishSecretRef.name: Required value",
            "spec.csi.nodePublishSecretRef.namespace: Required value",
        ],
    );
}

#[test]
fn writes() {
    let old = created(VOLUME, with(&volume(), json!({"spec": csi()})));
    let update = |patch: Value, expected: &[&str]| check_write(VOLUME, "", &old, json!({"spec": patch}), expected);
    update(
        json!({"persistentVolumeReclaimPolicy": "Delete", "capacity": {"storage": "6Gi"}, "storageClassName": "x"}),
        &[],
    );
    update(json!({"csi": {"controllerExpandSecretRef": {"name": "a", "namespace": "b"}}}), &[]);
    update(
        json!({"csi": {"volumeHandle": "other"}}),
        &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
    );
    update(json!({"volumeMode": "Block"}), &["volumeMode: Invalid value: \"Block\": field is immutable"]);
    let term = |key: &str| json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "Exists"}]}]}});
    let bound = update(json!({"nodeAffinity": term("a")}), &[]);
    check_write(
        VOLUME,
        "",
        &bound,
        json!({"spec": {"nodeAffinity": term("b")}}),
        &[&format!("nodeAffinity: Invalid value: {}: field is immutable", term("b"))],
    );
    let stored = check_write(
        VOLUME,
        "status",
        &old,
        json!({"spec": {"storageClassName": "y"}, "status": {"phase": "Bound"}}),
        &[],
    );
    assert_eq!((&stored["spec"]["storageClassName"], &stored["status"]["phase"]), (&Value::Null, &json!("Bound")));
}

#[test]
fn warnings() {
    let object = with(
        &volume(),
        json!({
            "metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "x"}},
            "spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {}},
        }),
    );
    assert_eq!(
        kind(VOLUME).strategy.warnings(&object, Write::Create),
        [
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
            "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
        ]
    );
}

#[test]
fn rows() {
    check_row(VOLUME, created(VOLUME, volume()), "5Gi RWO Retain Pending   <unset>  60m | Filesystem");
    let bound = with(
        &created(VOLUME, volume()),
        json!({
            "spec": {"claimRef": {"namespace": "d", "name": "c"}, "storageClassName": "fast", "accessModes": ["ReadWriteMany", "ReadWriteOnce"]},
            "status": {"phase": "Bound", "reason": "R"},
        }),
    );
    check_row(VOLUME, bound, "5Gi RWO,RWX Retain Bound d/c fast <unset> R 60m | Filesystem");
}
