use serde_json::{Value, json};

use crate::kinds::testing::{check_row, check_write, created};

const QUOTA: &str = "v1 ResourceQuota";

#[track_caller]
fn check(spec: Value, expected: &[&str]) {
    crate::kinds::testing::check(QUOTA, json!({"metadata": {"name": "q", "namespace": "d"}, "spec": spec}), expected);
}

#[test]
fn amounts() {
    check(
        json!({"hard": {"pods": 5, "requests.cpu": "1500m", "count/deployments.apps": 3, "requests.nvidia.com/gpu": 1, "hugepages-2Mi": "1Gi", "services.loadbalancers": 0}}),
        &[],
    );
    check(
        json!({"hard": {"pods": "1500m", "services": -1, "storage": "1Gi", "x": 1}}),
        &[
            "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
            "spec.hard[services]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
            "spec.hard[x]: Invalid value: \"x\": must be a standard resource type or fully qualified",
            "spec.hard[x]: Invalid value: \"x\": must be a standard resource for quota",
        ],
    );
}

#[test]
fn scopes() {
    check(json!({"hard": {"pods": 5}, "scopes": ["BestEffort", "Terminating"]}), &[]);
    check(
        json!({"hard": {"cpu": 1, "pods": 5}, "scopes": ["BestEffort"]}),
        &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
    );
    check(
        json!({"scopes": ["X", "Terminating", "NotTerminating"]}),
        &[
            "spec.scopes: Invalid value: [\"X\",\"Terminating\",\"NotTerminating\"]: unsupported scope",
            "spec.scopes: Invalid value: [\"X\",\"Terminating\",\"NotTerminating\"]: conflicting scopes",
        ],
    );
    let selector = |requirement: Value, expected: &[&str]| {
        check(json!({"hard": {"pods": 1}, "scopeSelector": {"matchExpressions": [requirement]}}), expected);
    };
    selector(json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}), &[]);
    selector(
        json!({"scopeName": "PriorityClass", "operator": "In"}),
        &[
            "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
        ],
    );
    selector(
        json!({"scopeName": "PriorityClass", "operator": "Exists", "values": ["x"]}),
        &[
            "spec.scopeSelector.matchExpressions.values: Invalid value: [\"x\"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
        ],
    );
    selector(
        json!({"scopeName": "BestEffort", "operator": "In", "values": ["x"]}),
        &[
            "spec.scopeSelector.matchExpressions.operator: Invalid value: \"In\": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
        ],
    );
    selector(
        json!({"scopeName": "X", "operator": "Y"}),
        &[
            "spec.scopeSelector.matchExpressions.scopeName: Invalid value: \"X\": unsupported scope",
            "spec.scopeSelector.matchExpressions.operator: Invalid value: \"Y\": not a valid selector operator",
        ],
    );
}

#[test]
fn writes_and_rows() {
    let old = created(
        QUOTA,
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": 5}, "scopes": ["Terminating", "BestEffort"]}}),
    );
    assert_eq!((&old["status"], &old["metadata"]["generation"]), (&json!({}), &Value::Null));
    check_write(QUOTA, "", &old, json!({"spec": {"scopes": ["BestEffort", "Terminating"], "hard": {"pods": 6}}}), &[]);
    check_write(
        QUOTA,
        "",
        &old,
        json!({"spec": {"scopes": ["BestEffort"]}}),
        &["spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable"],
    );
    check_write(
        QUOTA,
        "status",
        &old,
        json!({"status": {"hard": {"pods": 1}, "used": {"pods": -1}}}),
        &["status.used[pods]: Invalid value: \"-1\": must be greater than or equal to 0"],
    );
    check_row(
        QUOTA,
        json!({"status": {"hard": {"pods": "10", "limits.cpu": "4", "requests.cpu": "2"}, "used": {"pods": "1", "requests.cpu": "500m"}}}),
        "pods: 1/10, requests.cpu: 500m/2 limits.cpu: 0/4 60m",
    );
}
