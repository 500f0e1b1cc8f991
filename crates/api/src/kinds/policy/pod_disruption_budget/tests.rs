use serde_json::{Value, json};

use crate::kinds::testing::{check_row, check_write, created, kind, with};

const BUDGET: &str = "policy/v1 PodDisruptionBudget";

fn budget() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "d"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    })
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    crate::kinds::testing::check(BUDGET, with(&budget(), json!({"spec": patch})), expected);
}

#[test]
fn shape() {
    let made = created(BUDGET, budget());
    assert_eq!(
        made["status"],
        json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0})
    );
    assert_eq!(made["metadata"]["generation"], 1);
    let kind = kind(BUDGET);
    assert_eq!((kind.short_names[0].as_ref(), kind.categories.len()), ("pdb", 0));
    assert!(!kind.strategy.unconditional_update());
}

#[test]
fn rules() {
    check(json!({}), &[]);
    check(json!({"minAvailable": "50%"}), &[]);
    check(
        json!({"maxUnavailable": 1}),
        &[
            "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":{\"matchLabels\":{\"app\":\"web\"}},\"MaxUnavailable\":1,\"UnhealthyPodEvictionPolicy\":null}: minAvailable and maxUnavailable cannot be both set",
        ],
    );
    check(
        json!({"minAvailable": "110%"}),
        &["spec.minAvailable: Invalid value: \"110%\": must not be greater than 100%"],
    );
    check(
        json!({"minAvailable": null, "maxUnavailable": -1}),
        &["spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        json!({"minAvailable": "x"}),
        &[
            "spec.minAvailable: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        ],
    );
    check(
        json!({"unhealthyPodEvictionPolicy": "X"}),
        &[
            "spec.unhealthyPodEvictionPolicy: Unsupported value: \"X\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
        ],
    );
}

#[test]
fn writes() {
    let old = created(BUDGET, budget());
    let changed = check_write(BUDGET, "", &old, json!({"spec": {"minAvailable": 2}}), &[]);
    assert_eq!(changed["metadata"]["generation"], 2);
    check_write(
        BUDGET,
        "status",
        &old,
        json!({"status": {"disruptionsAllowed": -1, "conditions": [
            {"type": "A", "status": "True", "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z", "message": ""},
            {"type": "A", "status": "x", "reason": "1", "observedGeneration": -1},
        ]}}),
        &[
            "status.conditions[1].type: Duplicate value: \"A\"",
            "status.conditions[1].status: Unsupported value: \"x\": supported values: \"False\", \"True\", \"Unknown\"",
            "status.conditions[1].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
            "status.conditions[1].lastTransitionTime: Required value: must be set",
            "status.conditions[1].reason: Invalid value: \"1\": a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')",
            "status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
}

#[test]
fn rows() {
    check_row(BUDGET, with(&budget(), json!({"status": {"disruptionsAllowed": 2}})), "1 N/A 2 60m");
    check_row(
        BUDGET,
        with(&budget(), json!({"spec": {"minAvailable": null, "maxUnavailable": "10%"}})),
        "N/A 10% 0 60m",
    );
}

#[test]
fn disruptions() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let disrupt = |status: Value| {
        let mut budget = with(&budget(), json!({"metadata": {"generation": 2}, "status": status}));
        super::disrupt::disrupt(&mut budget, "web-1", now).map(|()| budget["status"].clone())
    };
    assert_eq!(
        disrupt(json!({"observedGeneration": 2, "disruptionsAllowed": 2})),
        Ok(
            json!({"observedGeneration": 2, "disruptionsAllowed": 1, "disruptedPods": {"web-1": "2026-01-01T00:00:00Z"}})
        )
    );
    let last = disrupt(json!({"observedGeneration": 2, "disruptionsAllowed": 1})).unwrap();
    assert_eq!(
        (&last["disruptionsAllowed"], &last["conditions"][0]["reason"]),
        (&json!(0), &json!("InsufficientPods"))
    );
    let check = |status: Value, code: u16, message: &str, retry: u32, cause: &str| {
        let error = disrupt(status).unwrap_err();
        let details = error.details.unwrap();
        assert_eq!((error.code, error.message.as_str(), details.retry_after_seconds), (code, message, retry));
        assert_eq!(details.causes.first().map_or("", |cause| cause.message.as_str()), cause);
        assert!(details.causes.iter().all(|cause| cause.reason == "DisruptionBudget"));
    };
    const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
    check(
        json!({"observedGeneration": 1}),
        429,
        VIOLATES,
        10,
        "The disruption budget web is still being processed by the server.",
    );
    check(
        json!({"observedGeneration": 2, "desiredHealthy": 3, "currentHealthy": 2}),
        429,
        VIOLATES,
        0,
        "The disruption budget web needs 3 healthy pods and has 2 currently",
    );
    check(
        json!({"observedGeneration": 2, "disruptionsAllowed": -1}),
        403,
        "poddisruptionbudget.policy \"web\" is forbidden: pdb disruptions allowed is negative",
        0,
        "",
    );
}
