use serde_json::{Value, json};

use crate::kinds::testing::{check_row, check_write, created, kind, with};

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        },
    })
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    for kind in ["Deployment", "ReplicaSet"] {
        crate::kinds::testing::check(&format!("apps/v1 {kind}"), with(&deployment(), json!({"spec": patch})), expected);
    }
}

#[track_caller]
fn check_deployment(patch: Value, expected: &[&str]) {
    crate::kinds::testing::check("apps/v1 Deployment", with(&deployment(), json!({"spec": patch})), expected);
}

#[test]
fn defaults() {
    let made = created("apps/v1 Deployment", deployment());
    let spec = &made["spec"];
    assert_eq!(
        (&spec["replicas"], &spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
        (&json!(1), &json!(10), &json!(600))
    );
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    let pod = &spec["template"]["spec"];
    assert_eq!((&pod["restartPolicy"], &pod["enableServiceLinks"]), (&json!("Always"), &Value::Null));
    assert_eq!(made["metadata"]["generation"], 1);
}

#[test]
fn rules() {
    check(json!({}), &[]);
    check(json!({"replicas": -1}), &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]);
    check(
        json!({"selector": {"matchExpressions": [{"key": "app", "operator": "Is"}]}}),
        &[
            "spec.selector.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator",
            "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"Is\"}],\"matchLabels\":{\"app\":\"web\"}}: invalid label selector",
        ],
    );
    check(json!({"selector": null}), &["spec.selector: Required value"]);
    check(
        json!({"selector": {"matchLabels": null}}),
        &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    );
    check(
        json!({"selector": {"matchLabels": {"app": "x"}}}),
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ],
    );
    check(json!({"template": null}), &["spec.template: Required value"]);
    check(json!({"template": {"spec": {"containers": null}}}), &["spec.template.spec.containers: Required value"]);
    check(
        json!({"template": {"spec": {"restartPolicy": "Never"}}}),
        &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
    );
    check_deployment(
        json!({"strategy": {"type": "X"}}),
        &[
            "spec.strategy: Unsupported value: {\"Type\":\"X\",\"RollingUpdate\":null}: supported values: \"Recreate\", \"RollingUpdate\"",
        ],
    );
    check_deployment(
        json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}),
        &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
    );
    check_deployment(
        json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}),
        &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"],
    );
    check_deployment(
        json!({"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}),
        &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
    );
    check_deployment(
        json!({"progressDeadlineSeconds": 5, "minReadySeconds": 5}),
        &["spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"],
    );
}

#[test]
fn writes() {
    let old = created("apps/v1 Deployment", deployment());
    let update = |patch, expected: &[&str]| check_write("apps/v1 Deployment", "", &old, patch, expected);
    assert_eq!(update(json!({"status": {"replicas": 3}}), &[])["metadata"]["generation"], 1);
    assert_eq!(update(json!({"metadata": {"labels": {"a": "b"}}}), &[])["metadata"]["generation"], 1);
    assert_eq!(update(json!({"metadata": {"annotations": {"a": "b"}}}), &[])["metadata"]["generation"], 2);
    assert_eq!(update(json!({"spec": {"replicas": 2}}), &[])["metadata"]["generation"], 2);
    update(
        json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}}),
        &["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"app\":\"web\"}}: field is immutable"],
    );
    let scaled = check_write("apps/v1 Deployment", "scale", &old, json!({"spec": {"replicas": 2}}), &[]);
    assert_eq!((&scaled["metadata"]["generation"], &scaled["spec"]["replicas"]), (&json!(2), &json!(2)));
    let status = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 9}, "status": {"replicas": 1, "readyReplicas": 1}});
    let stored = check_write("apps/v1 Deployment", "status", &old, status, &[]);
    assert_eq!(
        (&stored["spec"]["replicas"], &stored["metadata"]["labels"], &stored["status"]["replicas"]),
        (&json!(1), &Value::Null, &json!(1))
    );
    check_write(
        "apps/v1 Deployment",
        "status",
        &old,
        json!({"status": {"replicas": 1, "readyReplicas": 2}}),
        &["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"],
    );
}

#[test]
fn rows_and_scale() {
    let object = with(
        &deployment(),
        json!({"spec": {"replicas": 3}, "status": {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}}),
    );
    check_row("apps/v1 Deployment", object.clone(), "2/3 3 2 60m | c i:1 app=web");
    check_row("apps/v1 ReplicaSet", object.clone(), "3 3 2 60m | c i:1 app=web");
    let scale = kind("apps/v1 Deployment").scale.unwrap();
    assert_eq!(scale.selector(&object), "app=web");
    let rc = with(&object, json!({"spec": {"selector": {"matchLabels": null, "app": "web"}}}));
    check_row("v1 ReplicationController", rc.clone(), "3 3 2 60m | c i:1 app=web");
    assert_eq!(kind("v1 ReplicationController").scale.unwrap().selector(&rc), "app=web");
}

#[test]
fn replication_controllers() {
    let rc = with(&deployment(), json!({"spec": {"selector": null}}));
    let made = created("v1 ReplicationController", rc.clone());
    assert_eq!(
        (&made["spec"]["selector"], &made["metadata"]["labels"]),
        (&json!({"app": "web"}), &json!({"app": "web"}))
    );
    crate::kinds::testing::check("v1 ReplicationController", rc, &[]);
    crate::kinds::testing::check(
        "v1 ReplicationController",
        with(&deployment(), json!({"spec": {"selector": {"matchLabels": null, "app": "x"}}})),
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ],
    );
}
