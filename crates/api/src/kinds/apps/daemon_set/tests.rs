use serde_json::{Value, json};

use crate::kinds::testing::{check_row, check_write, created, kind, with};

const DAEMON_SET: &str = "apps/v1 DaemonSet";

fn daemon_set() -> Value {
    json!({
        "metadata": {"name": "agent", "namespace": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        },
    })
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    crate::kinds::testing::check(DAEMON_SET, with(&daemon_set(), json!({"spec": patch})), expected);
}

#[test]
fn shape() {
    let kind = kind(DAEMON_SET);
    assert_eq!((kind.short_names[0].as_ref(), kind.categories[0].as_ref()), ("ds", "all"));
    assert!(kind.subresource("status").is_some() && kind.subresource("scale").is_none());
}

#[test]
fn defaults() {
    let made = created(DAEMON_SET, daemon_set());
    assert_eq!(
        made["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})
    );
    assert_eq!((&made["spec"]["revisionHistoryLimit"], &made["metadata"]["generation"]), (&json!(10), &json!(1)));
    assert_eq!(made["spec"]["template"]["spec"]["restartPolicy"], "Always");
    assert_eq!(made["metadata"]["annotations"], json!({"deprecated.daemonset.template.generation": "1"}));
    assert_eq!(
        made["status"],
        json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0})
    );
    let on_delete = created(DAEMON_SET, with(&daemon_set(), json!({"spec": {"updateStrategy": {"type": "OnDelete"}}})));
    assert_eq!(on_delete["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
}

#[test]
fn rules() {
    check(json!({}), &[]);
    check(
        json!({"selector": null}),
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"agent\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        json!({"selector": {"matchLabels": null}}),
        &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
    );
    check(
        json!({"template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 5}}}),
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
        ],
    );
    check(
        json!({"minReadySeconds": -1, "revisionHistoryLimit": -1}),
        &[
            "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    check(
        json!({"updateStrategy": {"type": "X", "rollingUpdate": {"maxSurge": 1}}}),
        &[
            "spec.updateStrategy: Unsupported value: {\"Type\":\"X\",\"RollingUpdate\":{\"MaxUnavailable\":0,\"MaxSurge\":1}}: supported values: \"RollingUpdate\", \"OnDelete\"",
        ],
    );
    let rolling =
        |rolling: Value, expected: &[&str]| check(json!({"updateStrategy": {"rollingUpdate": rolling}}), expected);
    rolling(json!({"maxUnavailable": 0, "maxSurge": "10%"}), &[]);
    rolling(
        json!({"maxUnavailable": 0}),
        &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"],
    );
    rolling(
        json!({"maxUnavailable": 1, "maxSurge": 1}),
        &[
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
        ],
    );
    rolling(
        json!({"maxUnavailable": "101%"}),
        &["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
    );
    rolling(
        json!({"maxUnavailable": -1}),
        &["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: -1: must be greater than or equal to 0"],
    );
}

#[test]
fn writes() {
    let old = created(DAEMON_SET, daemon_set());
    let update = |patch, expected: &[&str]| check_write(DAEMON_SET, "", &old, patch, expected);
    let generations = |object: &Value| {
        let annotations = &object["metadata"]["annotations"];
        (object["metadata"]["generation"].clone(), annotations["deprecated.daemonset.template.generation"].clone())
    };
    let changed = update(json!({"spec": {"minReadySeconds": 3}}), &[]);
    assert_eq!(generations(&changed), (json!(2), json!("1")));
    let template = json!({"spec": {"template": {"spec": {"hostNetwork": true}}}, "metadata": {"annotations": null}});
    assert_eq!(generations(&update(template, &[])), (json!(2), json!("2")));
    update(
        json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}}),
        &["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"app\":\"agent\"}}: field is immutable"],
    );
    let stored = check_write(
        DAEMON_SET,
        "status",
        &old,
        json!({"spec": {"minReadySeconds": 9}, "status": {"numberReady": 1, "collisionCount": 2}}),
        &[],
    );
    assert_eq!((&stored["spec"]["minReadySeconds"], &stored["status"]["numberReady"]), (&Value::Null, &json!(1)));
    check_write(
        DAEMON_SET,
        "status",
        &stored,
        json!({"status": {"numberReady": -1, "collisionCount": 1}}),
        &[
            "status.numberReady: Invalid value: -1: must be greater than or equal to 0",
            "status.collisionCount: Invalid value: 1: cannot be decremented",
        ],
    );
}

#[test]
fn rows() {
    let object = with(
        &daemon_set(),
        json!({
            "spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}},
            "status": {"desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3, "updatedNumberScheduled": 2, "numberAvailable": 1},
        }),
    );
    check_row(DAEMON_SET, object, "5 4 3 2 1 disk=ssd 60m | c i:1 app=agent");
    check_row(DAEMON_SET, daemon_set(), "0 0 0 0 0 <none> 60m | c i:1 app=agent");
}
