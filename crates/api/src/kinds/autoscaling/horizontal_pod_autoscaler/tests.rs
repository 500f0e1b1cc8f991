use serde_json::{Value, json};

use crate::kinds::testing::{check_row, check_write, created, kind, with};

const V1: &str = "autoscaling/v1 HorizontalPodAutoscaler";
const V2: &str = "autoscaling/v2 HorizontalPodAutoscaler";

fn autoscaler() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "d"},
        "spec": {"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    })
}

fn cpu(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    crate::kinds::testing::check(V2, with(&autoscaler(), json!({"spec": patch})), expected);
}

#[test]
fn defaults() {
    let made = created(V2, autoscaler());
    assert_eq!((&made["spec"]["minReplicas"], &made["spec"]["metrics"]), (&json!(1), &json!([cpu(80)])));
    assert_eq!(made["spec"]["behavior"], Value::Null);
    let made = created(V2, with(&autoscaler(), json!({"spec": {"behavior": {"scaleUp": {"selectPolicy": "Min"}}}})));
    assert_eq!(
        made["spec"]["behavior"],
        json!({
            "scaleUp": {"selectPolicy": "Min", "stabilizationWindowSeconds": 0, "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]},
            "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
        })
    );
}

#[test]
fn rules() {
    check(json!({}), &[]);
    check(
        json!({"minReplicas": 0}),
        &[
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
            "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
        ],
    );
    check(
        json!({"minReplicas": 2, "maxReplicas": 1}),
        &["spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`"],
    );
    check(
        json!({"maxReplicas": 0}),
        &[
            "spec.maxReplicas: Invalid value: 0: must be greater than 0",
            "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
        ],
    );
    check(
        json!({"scaleTargetRef": {"kind": "a/b", "name": null}}),
        &[
            "spec.scaleTargetRef.kind: Invalid value: \"a/b\": may not contain '/'",
            "spec.scaleTargetRef.name: Required value",
        ],
    );
    let metric = |metric: Value, expected: &[&str]| check(json!({"metrics": [metric]}), expected);
    metric(
        json!({"type": "X"}),
        &[
            "spec.metrics[0].type: Unsupported value: \"X\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            "spec.metrics[0].type: Unsupported value: \"X\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
        ],
    );
    metric(
        json!({"type": "Pods", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 0}}}),
        &[
            "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            "spec.metrics[0].pods: Required value: must populate information for the given metric source",
        ],
    );
    metric(
        with(
            &cpu(1),
            json!({"pods": {"metric": {"name": "p"}, "target": {"type": "AverageValue", "averageValue": "1"}}}),
        ),
        &["spec.metrics[0].pods: Forbidden: must populate the given metric source only"],
    );
    metric(
        json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50, "averageValue": "0"}}}),
        &[
            "spec.metrics[0].resource.target.averageValue: Invalid value: \"0\": must be positive",
            "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
        ],
    );
    metric(
        json!({"type": "External", "external": {"metric": {"name": ""}, "target": {"type": "Value"}}}),
        &[
            "spec.metrics[0].external.metric.name: Required value: must specify a metric name",
            "spec.metrics[0].external.target.averageValue: Required value: must set either a target value for metric or a per-pod target",
        ],
    );
    check(
        json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601, "selectPolicy": "X", "tolerance": "-1",
            "policies": [{"type": "X", "value": 0, "periodSeconds": 1801}]}}}),
        &[
            "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"X\": supported values: \"Disabled\", \"Max\", \"Min\"",
            "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"X\": supported values: \"Percent\", \"Pods\"",
            "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
            "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            "spec.behavior.scaleUp.tolerance: Invalid value: \"-1\": must be greater or equal to 0",
        ],
    );
    check_write(
        V2,
        "status",
        &created(V2, autoscaler()),
        json!({"status": {"currentReplicas": -1}}),
        &["status.currentReplicas: Invalid value: -1: must be greater than or equal to 0"],
    );
}

#[test]
fn the_old_version() {
    let made = created(V1, with(&autoscaler(), json!({"spec": {"targetCPUUtilizationPercentage": 50}})));
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!((&made["spec"]["metrics"], &made["metadata"]["annotations"]), (&Value::Null, &Value::Null));
    assert_eq!(created(V1, autoscaler())["spec"]["targetCPUUtilizationPercentage"], 80);
    crate::kinds::testing::check(
        V1,
        with(&autoscaler(), json!({"spec": {"targetCPUUtilizationPercentage": -1}})),
        &["spec.metrics[0].resource.target.averageUtilization: Invalid value: -1: must be greater than 0"],
    );
    let stored = kind(V1).storage.unwrap();
    let mut object = made.clone();
    (stored.to_stored)(&mut object);
    assert_eq!((&object["apiVersion"], &object["spec"]["metrics"]), (&json!("autoscaling/v2"), &json!([cpu(50)])));
    (stored.from_stored)(&mut object);
    assert_eq!(object, with(&made, json!({"apiVersion": "autoscaling/v1"})));
}

/// Everything that `v2` says is there again after a trip through `v1`.
#[test]
fn round_trip() {
    let target = json!({"apiVersion": "v1", "kind": "Service", "name": "s"});
    let metric = |name: &str| json!({"name": name, "selector": {"matchLabels": {"a": "b"}}});
    let full = json!({
        "apiVersion": "autoscaling/v2", "metadata": {"name": "web", "annotations": {"mine": "x"}},
        "spec": {
            "minReplicas": 2, "maxReplicas": 9, "scaleTargetRef": target,
            "metrics": [
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 3}}},
                {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 3}}},
                {"type": "Pods", "pods": {"metric": metric("p"), "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "Object", "object": {"metric": metric("o"), "describedObject": target, "target": {"type": "Value", "value": "7"}}},
                {"type": "Object", "object": {"metric": metric("o"), "describedObject": target, "target": {"type": "AverageValue", "averageValue": "7"}}},
                {"type": "External", "external": {"metric": metric("e"), "target": {"type": "Value", "value": "8"}}},
                {"type": "External", "external": {"metric": metric("e"), "target": {"type": "AverageValue", "averageValue": "8"}}},
                cpu(70),
            ],
            "behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "tolerance": "100m", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]},
                "scaleDown": {"selectPolicy": "Min", "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]},
            },
        },
        "status": {
            "currentReplicas": 2, "desiredReplicas": 3,
            "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5, "averageValue": "10m"}}},
                {"type": "Pods", "pods": {"metric": metric("p"), "current": {"averageValue": "6"}}},
                {"type": "Object", "object": {"metric": metric("o"), "describedObject": target, "current": {"value": "7"}}},
                {"type": "External", "external": {"metric": metric("e"), "current": {"averageValue": "8", "value": "0"}}},
            ],
            "conditions": [{"type": "AbleToScale", "status": "True", "reason": "R"}],
        },
    });
    let storage = kind(V1).storage.unwrap();
    let mut object = full.clone();
    (storage.from_stored)(&mut object);
    let spec = &object["spec"];
    assert_eq!((&spec["targetCPUUtilizationPercentage"], &spec["metrics"]), (&json!(70), &Value::Null));
    assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 5);
    let annotations = &object["metadata"]["annotations"];
    assert_eq!((annotations["mine"].as_str(), annotations.as_object().unwrap().len()), (Some("x"), 5));
    assert_eq!(
        serde_json::from_str::<Value>(annotations["autoscaling.alpha.kubernetes.io/behavior"].as_str().unwrap())
            .unwrap(),
        json!({
            "ScaleUp": {"StabilizationWindowSeconds": 0, "SelectPolicy": "Max", "Tolerance": "100m", "Policies": [{"Type": "Pods", "Value": 4, "PeriodSeconds": 15}]},
            "ScaleDown": {"StabilizationWindowSeconds": null, "SelectPolicy": "Min", "Tolerance": null, "Policies": [{"Type": "Percent", "Value": 10, "PeriodSeconds": 60}]},
        })
    );
    (storage.to_stored)(&mut object);
    let mut expected = full;
    // Zero is how the old version says that there is no value.
    expected["status"]["currentMetrics"][3]["external"]["current"].as_object_mut().unwrap().remove("value");
    assert_eq!(object, expected);
}

#[test]
fn writes_to_the_old_version() {
    let stored = created(V2, with(&autoscaler(), json!({"spec": {"metrics": [cpu(70)]}})));
    let stored = check_write(
        V2,
        "status",
        &stored,
        json!({"spec": {"maxReplicas": 99}, "status": {"conditions": [{"type": "A", "status": "True"}], "currentReplicas": 1}}),
        &[],
    );
    assert_eq!(stored["spec"]["maxReplicas"], 5);
    let storage = kind(V1).storage.unwrap();
    let mut old = stored;
    (storage.from_stored)(&mut old);
    let changed = check_write(
        V1,
        "",
        &old,
        json!({
            "spec": {"targetCPUUtilizationPercentage": 30}, "status": {"currentReplicas": 7},
            "metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/conditions": "[]"}},
        }),
        &[],
    );
    assert_eq!(
        (&changed["spec"]["targetCPUUtilizationPercentage"], &changed["status"]["currentReplicas"]),
        (&json!(30), &json!(1))
    );
    assert_eq!(changed["metadata"]["annotations"], old["metadata"]["annotations"]);
}

#[test]
fn rows() {
    let object = with(
        &autoscaler(),
        json!({
            "spec": {"minReplicas": 1, "metrics": [
                cpu(80),
                {"type": "Pods", "pods": {"metric": {"name": "p"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "External", "external": {"metric": {"name": "e"}, "target": {"type": "AverageValue", "averageValue": "8"}}},
            ]},
            "status": {"currentReplicas": 3, "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 10, "averageValue": "1m"}}},
            ]},
        }),
    );
    check_row(V2, object.clone(), "Deployment/web cpu: 10%/80%, <unknown>/5 + 1 more... 1 5 3 60m");
    check_row(V2, autoscaler(), "Deployment/web <none> <unset> 5 0 60m");
    let mut old = object;
    (kind(V1).storage.unwrap().from_stored)(&mut old);
    check_row(V1, old, "Deployment/web <unknown>/5, <unknown>/8 (avg) + 1 more... 1 5 3 60m");
    assert_eq!(kind(V2).categories[0], "all");
}
