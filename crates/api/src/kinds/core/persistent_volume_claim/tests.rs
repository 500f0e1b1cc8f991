use serde_json::{Value, json};

use crate::kind::Write;
use crate::kinds::testing::{check_row, check_write, created, kind, with};

const CLAIM: &str = "v1 PersistentVolumeClaim";

fn claim() -> Value {
    json!({
        "metadata": {"name": "c", "namespace": "d"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    })
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    crate::kinds::testing::check(CLAIM, with(&claim(), json!({"spec": patch})), expected);
}

#[test]
fn defaults() {
    let made = created(CLAIM, claim());
    assert_eq!((&made["spec"]["volumeMode"], &made["status"]), (&json!("Filesystem"), &json!({"phase": "Pending"})));
    let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    let custom = json!({"apiGroup": "a.b", "kind": "Thing", "name": "s"});
    let sources = |patch: Value| {
        let spec = created(CLAIM, with(&claim(), json!({"spec": patch})))["spec"].clone();
        (spec["dataSource"].clone(), spec["dataSourceRef"].clone())
    };
    assert_eq!(sources(json!({"dataSource": snapshot})), (snapshot.clone(), snapshot.clone()));
    assert_eq!(sources(json!({"dataSource": custom})), (Value::Null, Value::Null));
    assert_eq!(sources(json!({"dataSourceRef": custom})), (custom.clone(), custom.clone()));
    let elsewhere = with(&snapshot, json!({"namespace": "n"}));
    assert_eq!(sources(json!({"dataSourceRef": elsewhere})), (snapshot.clone(), snapshot));
}

#[test]
fn rules() {
    check(json!({}), &[]);
    check(
        json!({"accessModes": null, "resources": null}),
        &[
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ],
    );
    check(
        json!({"resources": {"requests": {"storage": "0"}}}),
        &["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
    );
    check(
        json!({"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]}),
        &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
    );
    check(
        json!({"volumeMode": "X"}),
        &["spec.volumeMode: Unsupported value: \"X\": supported values: \"Block\", \"Filesystem\""],
    );
    check(
        json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "a"}, "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "b"}}),
        &["spec: Invalid value: \"spec.dataSource\": must match dataSourceRef"],
    );
    check(
        json!({"dataSourceRef": {"kind": "Thing", "name": ""}}),
        &[
            "spec.dataSource.name: Required value",
            "spec.dataSource: Invalid value: \"Thing\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            "spec.dataSourceRef.name: Required value",
            "spec.dataSourceRef: Invalid value: \"Thing\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        ],
    );
    check(json!({"storageClassName": ""}), &[]);
}

const FROZEN: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

#[test]
fn updates() {
    let pending = created(CLAIM, claim());
    let bound = with(
        &pending,
        json!({"spec": {"volumeName": "pv", "storageClassName": "fast"}, "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}}}),
    );
    let update =
        |old: &Value, patch: Value, expected: &[&str]| check_write(CLAIM, "", old, json!({"spec": patch}), expected);
    update(&pending, json!({"volumeName": "pv"}), &[]);
    update(&pending, json!({"storageClassName": "fast"}), &[]);
    update(&pending, json!({"resources": {"requests": {"storage": "3Gi"}}}), &[FROZEN]);
    update(&bound, json!({"volumeName": "other"}), &[FROZEN]);
    update(&bound, json!({"storageClassName": "slow"}), &[FROZEN]);
    update(&bound, json!({"accessModes": ["ReadOnlyMany"]}), &[FROZEN]);
    update(
        &bound,
        json!({"volumeMode": "Block"}),
        &[FROZEN, "volumeMode: Invalid value: \"Block\": field is immutable"],
    );
    let grown = update(&bound, json!({"resources": {"requests": {"storage": "5Gi"}}}), &[]);
    update(&grown, json!({"resources": {"requests": {"storage": "3Gi"}}}), &[]);
    update(
        &grown,
        json!({"resources": {"requests": {"storage": "2Gi"}}}),
        &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"],
    );
    let classy = update(&bound, json!({"volumeAttributesClassName": "gold"}), &[]);
    update(&classy, json!({"volumeAttributesClassName": "silver"}), &[]);
    update(
        &classy,
        json!({"volumeAttributesClassName": null}),
        &[FROZEN, "spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"],
    );
}

#[test]
fn old_storage_class() {
    const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    let old = created(CLAIM, with(&claim(), json!({"metadata": {"annotations": {CLASS: "fast"}}})));
    check_write(CLAIM, "", &old, json!({"spec": {"storageClassName": "fast"}}), &[]);
    check_write(CLAIM, "", &old, json!({"spec": {"storageClassName": "slow"}}), &[FROZEN]);
    check_write(
        CLAIM,
        "",
        &old,
        json!({"metadata": {"annotations": {CLASS: "slow"}}}),
        &["metadata.annotations[volume.beta.kubernetes.io/storage-class]: Invalid value: \"slow\": field is immutable"],
    );
    let odd = with(&old, json!({"spec": {"resources": {"requests": {"storage": "500m"}}}}));
    assert_eq!(
        kind(CLAIM).strategy.warnings(&odd, Write::Create),
        [
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
            "spec.resources.requests[storage]: fractional byte value \"500m\" is invalid, must be an integer",
        ]
    );
}

#[test]
fn statuses() {
    check_write(
        CLAIM,
        "status",
        &created(CLAIM, claim()),
        json!({"status": {
            "capacity": {"storage": "-1"}, "allocatedResources": {"cpu": "1"}, "allocatedResourceStatuses": {"storage": "X"},
        }}),
        &[
            "status.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
            "status.allocatedResourceStatuses: Unsupported value: \"storage\": supported values: \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\", \"NodeResizePending\"",
            "status.allocatedResources: Unsupported value: \"cpu\": supported values: \"storage\"",
        ],
    );
}

#[test]
fn rows() {
    check_row(CLAIM, created(CLAIM, claim()), "Pending     <unset> 60m | Filesystem");
    let bound = with(
        &created(CLAIM, claim()),
        json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"volumeName": "pv", "storageClassName": "fast"},
            "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"}},
        }),
    );
    check_row(CLAIM, bound, "Terminating pv 5Gi RWO fast <unset> 60m | Filesystem");
}
