use serde_json::{Value, json};

use crate::kinds::testing::{check_row, created};

const LIMIT_RANGE: &str = "v1 LimitRange";

#[track_caller]
fn check(limits: Value, expected: &[&str]) {
    crate::kinds::testing::check(LIMIT_RANGE, json!({"spec": {"limits": limits}}), expected);
}

#[test]
fn defaults() {
    let limits = |limit: Value| created(LIMIT_RANGE, json!({"spec": {"limits": [limit]}}))["spec"]["limits"][0].clone();
    assert_eq!(
        limits(
            json!({"type": "Container", "max": {"cpu": 2, "memory": "2Gi"}, "min": {"cpu": "100m"}, "default": {"cpu": 1}})
        ),
        json!({
            "type": "Container", "max": {"cpu": "2", "memory": "2Gi"}, "min": {"cpu": "100m"},
            "default": {"cpu": "1", "memory": "2Gi"}, "defaultRequest": {"cpu": "1", "memory": "2Gi"},
        })
    );
    assert_eq!(limits(json!({"type": "Pod", "max": {"cpu": 2}})), json!({"type": "Pod", "max": {"cpu": "2"}}));
    check_row(LIMIT_RANGE, json!({}), "2026-01-01T00:00:00Z");
}

#[test]
fn rules() {
    check(json!([{"type": "Pod", "max": {"cpu": 2}}, {"type": "Container"}]), &[]);
    check(
        json!([{"type": "X"}, {"type": "a.b/x"}, {"type": "a.b/x"}]),
        &[
            "spec.limits[0].type: Invalid value: \"X\": must be a standard limit type or fully qualified",
            "spec.limits[2].type: Duplicate value: \"a.b/x\"",
        ],
    );
    check(
        json!([{"type": "Pod", "default": {"cpu": 1}, "defaultRequest": {"cpu": 1}}]),
        &[
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            "spec.limits[0].defaultRequest: Forbidden: may not be specified when `type` is 'Pod'",
        ],
    );
    check(
        json!([{"type": "PersistentVolumeClaim"}]),
        &[
            "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
        ],
    );
    check(
        json!([{"type": "Container", "max": {"storage": "1Gi"}}]),
        &[
            "spec.limits[0].max[storage]: Invalid value: \"storage\": must be a standard resource for containers",
            "spec.limits[0].default[storage]: Invalid value: \"storage\": must be a standard resource for containers",
            "spec.limits[0].defaultRequest[storage]: Invalid value: \"storage\": must be a standard resource for containers",
        ],
    );
    check(
        json!([{"type": "Container", "min": {"cpu": 3}, "max": {"cpu": 2}, "default": {"cpu": 4}, "defaultRequest": {"cpu": 5}}]),
        &[
            "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2",
            "spec.limits[0].defaultRequest[cpu]: Invalid value: \"5\": default request value 5 is greater than max value 2",
            "spec.limits[0].defaultRequest[cpu]: Invalid value: \"5\": default request value 5 is greater than default limit value 4",
            "spec.limits[0].default[cpu]: Invalid value: \"2\": default value 4 is greater than max value 2",
        ],
    );
    check(
        json!([{"type": "Pod", "min": {"cpu": "500m"}, "max": {"cpu": 1}, "maxLimitRequestRatio": {"cpu": 3, "memory": "500m"}}]),
        &[
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            "spec.limits[0].maxLimitRequestRatio[memory]: Invalid value: \"500m\": ratio 500m is less than 1",
        ],
    );
    check(
        json!([{"type": "Container", "default": {"a.b/gpu": 2}, "defaultRequest": {"a.b/gpu": 1}}]),
        &[
            "spec.limits[0].defaultRequest[a.b/gpu]: Invalid value: \"1\": default value 2 must equal to defaultRequest value 1 in a.b/gpu",
        ],
    );
}
