use serde_json::{Value, json};

use crate::kinds::testing::{check_row, check_write, created, kind, with};
use crate::validation::meta;

const STATEFUL_SET: &str = "apps/v1 StatefulSet";

fn stateful_set() -> Value {
    json!({
        "metadata": {"name": "db", "namespace": "d"},
        "spec": {
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": "i:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]},
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }],
        },
    })
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    crate::kinds::testing::check(STATEFUL_SET, with(&stateful_set(), json!({"spec": patch})), expected);
}

#[test]
fn defaults() {
    let made = created(STATEFUL_SET, stateful_set());
    let spec = &made["spec"];
    assert_eq!(
        (&spec["replicas"], &spec["revisionHistoryLimit"], &spec["podManagementPolicy"]),
        (&json!(1), &json!(10), &json!("OrderedReady"))
    );
    assert_eq!(
        spec["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}})
    );
    assert_eq!(spec["persistentVolumeClaimRetentionPolicy"], json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    assert_eq!(
        spec["volumeClaimTemplates"][0],
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Filesystem"},
            "status": {"phase": "Pending"},
        })
    );
    assert_eq!((&made["metadata"]["generation"], &made["status"]), (&json!(1), &json!({"replicas": 0})));
}

#[test]
fn names() {
    let kind = kind(STATEFUL_SET);
    let errors = meta::validate_create(&kind, &json!({"metadata": {"name": "a.b", "namespace": "d"}}));
    assert!(errors.iter().any(|e| e.field == "metadata.name"), "{errors:?}");
    assert_eq!((kind.short_names[0].as_ref(), kind.categories[0].as_ref()), ("sts", "all"));
    assert_eq!(kind.scale.unwrap().read(&stateful_set())["status"]["selector"], "app=db");
}

#[test]
fn rules() {
    check(json!({}), &[]);
    check(
        json!({"podManagementPolicy": "X"}),
        &["spec.podManagementPolicy: Invalid value: \"X\": must be 'OrderedReady' or 'Parallel'"],
    );
    check(
        json!({"updateStrategy": {"type": "X"}}),
        &[
            "spec.updateStrategy: Invalid value: {\"Type\":\"X\",\"RollingUpdate\":null}: must be 'RollingUpdate' or 'OnDelete'",
        ],
    );
    check(
        json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 2, "maxUnavailable": 1}}}),
        &[
            "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":2,\"MaxUnavailable\":1}: only allowed for updateStrategy 'RollingUpdate'",
        ],
    );
    check(
        json!({"updateStrategy": {"rollingUpdate": {"partition": -1, "maxUnavailable": 0}}}),
        &[
            "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
        ],
    );
    check(
        json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "X"}}),
        &[
            "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"X\": supported values: \"Retain\", \"Delete\"",
        ],
    );
    check(
        json!({"replicas": -1, "minReadySeconds": -1, "ordinals": {"start": -1}}),
        &[
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    check(
        json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}),
        &["spec.volumeClaimTemplates[0].spec.resources[storage]: Required value"],
    );
    check(
        json!({"volumeClaimTemplates": null}),
        &["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
    );
    check(json!({"selector": null}), &["spec.selector: Required value"]);
    check(
        json!({"selector": {"matchLabels": null}}),
        &["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
    );
    check(
        json!({"selector": {"matchLabels": {"app": "x"}}}),
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        json!({"template": {"spec": {"restartPolicy": "OnFailure", "activeDeadlineSeconds": 1}}}),
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"OnFailure\": supported values: \"Always\"",
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
        ],
    );
}

#[test]
fn writes() {
    let old = created(STATEFUL_SET, stateful_set());
    let update = |patch, expected: &[&str]| check_write(STATEFUL_SET, "", &old, json!({"spec": patch}), expected);
    const FROZEN: &str = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    let changed = update(
        json!({
            "replicas": 3, "ordinals": {"start": 2}, "minReadySeconds": 1, "revisionHistoryLimit": 2,
            "template": {"spec": {"hostNetwork": true}}, "updateStrategy": {"type": "OnDelete", "rollingUpdate": null},
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"},
        }),
        &[],
    );
    assert_eq!(changed["metadata"]["generation"], 2);
    update(json!({"serviceName": "x"}), &[FROZEN]);
    update(json!({"podManagementPolicy": "Parallel"}), &[FROZEN]);
    update(
        json!({"volumeClaimTemplates": []}),
        &["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\"", FROZEN],
    );
    check_write(
        STATEFUL_SET,
        "status",
        &old,
        json!({"status": {"replicas": 1, "readyReplicas": 0, "availableReplicas": 1, "currentReplicas": 2}}),
        &[
            "status.currentReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 1: cannot be greater than status.readyReplicas",
        ],
    );
    let scaled = check_write(STATEFUL_SET, "scale", &old, json!({"spec": {"replicas": 2}}), &[]);
    assert_eq!(scaled["metadata"]["generation"], 2);
}

#[test]
fn rows() {
    let object = with(&stateful_set(), json!({"spec": {"replicas": 3}, "status": {"replicas": 3, "readyReplicas": 2}}));
    check_row(STATEFUL_SET, object, "2/3 60m | c i:1");
}
