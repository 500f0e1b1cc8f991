use serde_json::{Value, json};

use crate::kind::{Propagation, Write};
use crate::kinds::testing::{check_row, check_write, created, kind, with};

const JOB: &str = "batch/v1 Job";

fn job() -> Value {
    json!({
        "metadata": {"name": "pi", "namespace": "d", "uid": "u1"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}},
    })
}

fn indexed() -> Value {
    with(&job(), json!({"spec": {"completionMode": "Indexed", "completions": 5, "parallelism": 2}}))
}

#[track_caller]
fn check(base: &Value, patch: Value, expected: &[&str]) {
    crate::kinds::testing::check(JOB, with(base, json!({"spec": patch})), expected);
}

#[test]
fn defaults() {
    let made = created(JOB, job());
    let spec = &made["spec"];
    for (field, expected) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("manualSelector", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
        ("selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}})),
    ] {
        assert_eq!(spec[field], expected, "{field}");
    }
    assert_eq!(
        spec["template"]["metadata"]["labels"],
        json!({
            "batch.kubernetes.io/controller-uid": "u1", "batch.kubernetes.io/job-name": "pi",
            "controller-uid": "u1", "job-name": "pi",
        })
    );
    assert_eq!((&made["metadata"]["generation"], &made["status"]), (&json!(1), &json!({})));
    let made = created(
        JOB,
        with(
            &indexed(),
            json!({"spec": {
                "backoffLimitPerIndex": 1, "template": {"metadata": {"labels": {"a": "b"}}},
                "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]},
            }}),
        ),
    );
    assert_eq!((&made["spec"]["backoffLimit"], &made["metadata"]["labels"]), (&json!(i32::MAX), &json!({"a": "b"})));
    assert_eq!(made["spec"]["podReplacementPolicy"], "Failed");
    assert_eq!(made["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], "True");
    let parallel = created(JOB, with(&job(), json!({"spec": {"parallelism": 3}})));
    assert_eq!(parallel["spec"]["completions"], Value::Null);
    assert_eq!(kind(JOB).strategy.default_propagation(), Propagation::Orphan);
}

#[test]
fn rules() {
    check(&job(), json!({}), &[]);
    for field in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"] {
        check(
            &job(),
            json!({field: -1}),
            &[&format!("spec.{field}: Invalid value: -1: must be greater than or equal to 0")],
        );
    }
    check(
        &job(),
        json!({"template": {"spec": {"restartPolicy": null}}}),
        &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
    );
    check(
        &job(),
        json!({"completionMode": "X"}),
        &["spec.completionMode: Unsupported value: \"X\": supported values: \"NonIndexed\", \"Indexed\""],
    );
    check(
        &job(),
        json!({"backoffLimitPerIndex": 1, "maxFailedIndexes": 1}),
        &[
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
            "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
        ],
    );
    check(&job(), json!({"managedBy": "example.com/me"}), &[]);
    check(
        &job(),
        json!({"managedBy": "me"}),
        &["spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
    );
    check(
        &job(),
        json!({"podReplacementPolicy": "X"}),
        &["spec.podReplacementPolicy: Unsupported value: \"X\": supported values: \"Failed\", \"TerminatingOrFailed\""],
    );
    check(
        &indexed(),
        json!({"completions": null}),
        &["spec.completions: Required value: when completion mode is Indexed"],
    );
    check(
        &indexed(),
        json!({"parallelism": 100_001}),
        &[
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
        ],
    );
    check(
        &indexed(),
        json!({"maxFailedIndexes": 6}),
        &[
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions",
        ],
    );
    check(
        &indexed(),
        json!({"completions": 100_001, "parallelism": 10_001, "backoffLimitPerIndex": 1}),
        &[
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
            "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index",
        ],
    );
    crate::kinds::testing::check(
        JOB,
        with(&indexed(), json!({"metadata": {"name": "x".repeat(62)}})),
        &[&format!(
            "metadata.name: Invalid value: \"{0}\": will not able to create pod with invalid DNS label: {0}-4",
            "x".repeat(62)
        )],
    );
}

#[test]
fn selectors() {
    check(
        &job(),
        json!({"template": {"metadata": {"labels": {"job-name": "other"}}}}),
        &[
            "spec.template.metadata.labels[job-name]: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u1\",\"batch.kubernetes.io/job-name\":\"pi\",\"controller-uid\":\"u1\",\"job-name\":\"other\"}: must be 'pi'",
        ],
    );
    check(
        &job(),
        json!({"selector": {"matchLabels": {"a": "b"}}}),
        &[
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"batch.kubernetes.io/controller-uid\":\"u1\"}}: `selector` not auto-generated",
            "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u1\",\"batch.kubernetes.io/job-name\":\"pi\",\"controller-uid\":\"u1\",\"job-name\":\"pi\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        &job(),
        json!({"manualSelector": true}),
        &[
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
        ],
    );
    let manual = json!({
        "manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}},
    });
    check(&job(), manual.clone(), &[]);
    let made = created(JOB, with(&job(), json!({"spec": manual})));
    assert_eq!(made["spec"]["template"]["metadata"]["labels"], json!({"a": "b"}));
}

#[test]
fn failure_policies() {
    let rules =
        |rule: Value, expected: &[&str]| check(&job(), json!({"podFailurePolicy": {"rules": [rule]}}), expected);
    rules(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}}), &[]);
    rules(
        json!({"onExitCodes": {"operator": "In", "values": [1]}}),
        &[
            "spec.podFailurePolicy.rules[0].action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
        ],
    );
    rules(
        json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}),
        &[
            "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
        ],
    );
    rules(
        json!({"action": "Ignore"}),
        &[
            "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        ],
    );
    rules(
        json!({"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1]}, "onPodConditions": [{"type": "A"}]}),
        &[
            "spec.podFailurePolicy.rules[0]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
        ],
    );
    rules(
        json!({"action": "Ignore", "onExitCodes": {"operator": "In", "containerName": "x", "values": [3, 0, 3]}}),
        &[
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer names in the pod template",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 3",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [3,0,3]: must be ordered",
        ],
    );
    check(
        &job(),
        json!({"podFailurePolicy": {"rules": []}, "podReplacementPolicy": "TerminatingOrFailed", "template": {"spec": {"restartPolicy": "OnFailure"}}}),
        &[
            "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\"",
            "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified",
        ],
    );
}

#[test]
fn success_policies() {
    let rules =
        |rule: Value, expected: &[&str]| check(&indexed(), json!({"successPolicy": {"rules": [rule]}}), expected);
    rules(json!({"succeededIndexes": "0,2-3", "succeededCount": 3}), &[]);
    rules(
        json!({}),
        &[
            "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
        ],
    );
    rules(
        json!({"succeededIndexes": "7", "succeededCount": 6}),
        &[
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"7\": error parsing succeededIndexes: too large index: \"7\"",
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)",
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 6: must be less than or equal to 0 (the number of indexes in the specified succeededIndexes field)",
        ],
    );
    check(
        &indexed(),
        json!({"successPolicy": {"rules": []}}),
        &[
            "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified",
        ],
    );
    check(
        &job(),
        json!({"successPolicy": {"rules": []}}),
        &["spec.successPolicy: Invalid value: {\"rules\":[]}: requires indexed completion mode"],
    );
}

#[test]
fn updates() {
    let old = created(JOB, job());
    let update =
        |old: &Value, patch: Value, expected: &[&str]| check_write(JOB, "", old, json!({"spec": patch}), expected);
    assert_eq!(update(&old, json!({"suspend": true, "parallelism": 0}), &[])["metadata"]["generation"], 2);
    update(&old, json!({"completions": 2}), &["spec.completions: Invalid value: 2: field is immutable"]);
    update(&old, json!({"managedBy": "a.b/c"}), &["spec.managedBy: Invalid value: \"a.b/c\": field is immutable"]);
    let changed =
        update(&old, json!({"activeDeadlineSeconds": 5, "ttlSecondsAfterFinished": 1, "backoffLimit": 2}), &[]);
    assert_eq!(changed["spec"]["selector"], old["spec"]["selector"]);
    let scheduling = json!({
        "template": {
            "metadata": {"annotations": {"a": "b"}},
            "spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}}},
        },
    });
    let suspended = created(JOB, with(&job(), json!({"spec": {"suspend": true}})));
    let placed = update(&suspended, scheduling.clone(), &[]);
    // An affinity is not made up, and may go if it spoke of nodes alone.
    update(&suspended, json!({"template": {"metadata": {"annotations": {"a": "b"}}}}), &[]);
    update(&placed, json!({"template": {"spec": {"affinity": null}}}), &[]);
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "zone", "labelSelector": {}}]}}});
    update(&suspended, json!({"template": {"spec": apart}}), &[&immutable(&suspended, apart.clone())]);
    update(
        &suspended,
        json!({"template": {"spec": {"hostNetwork": true}}}),
        &[&immutable(&suspended, json!({"hostNetwork": true}))],
    );
    let started = with(&suspended, json!({"status": {"startTime": "2026-01-01T00:00:00Z"}}));
    let kind = kind(JOB);
    let mut object = with(&started, json!({"spec": scheduling}));
    kind.strategy.default(&mut object);
    let errors = kind.strategy.validate(&object, Write::Update(&started));
    assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), ["spec.template"]);
    let elastic = created(JOB, indexed());
    update(&elastic, json!({"completions": 3, "parallelism": 3}), &[]);
    update(
        &elastic,
        json!({"completions": 3}),
        &["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"],
    );
}

fn immutable(old: &Value, patch: Value) -> String {
    let template = with(&old["spec"]["template"], json!({"spec": patch}));
    format!("spec.template: Invalid value: {template}: field is immutable")
}

#[test]
fn statuses() {
    const NOW: &str = "2026-01-01T00:00:00Z";
    const LATER: &str = "2026-01-01T00:10:00Z";
    let condition = |name: &str| json!({"type": name, "status": "True"});
    let old = created(JOB, job());
    let status = |old: &Value, status: Value, expected: &[&str]| {
        check_write(JOB, "status", old, json!({"status": status}), expected)
    };
    let running = status(&old, json!({"startTime": NOW, "active": 1, "ready": 0, "failed": 1}), &[]);
    let done = json!({
        "active": 0, "succeeded": 1, "completionTime": LATER,
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
    });
    let complete = status(&running, done, &[]);
    status(&running, json!({"ready": 2}), &["status.ready: Invalid value: 2: cannot set more ready pods than active"]);
    status(&running, json!({"failed": 0}), &["status.failed: Invalid value: 0: cannot decrease the failed counter"]);
    status(
        &running,
        json!({"active": 1, "conditions": [condition("Complete")]}),
        &[
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
        ],
    );
    status(
        &running,
        json!({"active": 0, "startTime": null, "conditions": [condition("Failed")]}),
        &[
            "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
            "status.startTime: Required value: startTime is required for finished job",
            "status.startTime: Required value: startTime cannot be removed for unsuspended job",
        ],
    );
    status(
        &running,
        json!({"completionTime": NOW}),
        &[
            "status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": cannot set completionTime when there is no Complete=True condition",
        ],
    );
    status(
        &complete,
        json!({"conditions": [], "completionTime": null}),
        &[
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
        ],
    );
    status(
        &complete,
        json!({"completionTime": "2026-01-01T00:20:00Z"}),
        &["status.completionTime: Invalid value: \"2026-01-01T00:20:00Z\": completionTime cannot be mutated"],
    );
    status(
        &running,
        json!({"completedIndexes": "1", "uncountedTerminatedPods": {"succeeded": ["a", ""], "failed": ["a"]}}),
        &[
            "status.uncountedTerminatedPods.succeeded[1]: Invalid value: \"\": must not be empty",
            "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
            "status.completedIndexes: Invalid value: \"1\": error parsing completedIndexes: too large index: \"1\"",
            "status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed completion mode",
        ],
    );
    let per_index = created(JOB, with(&indexed(), json!({"spec": {"backoffLimitPerIndex": 1}})));
    status(
        &per_index,
        json!({"completedIndexes": "1-3", "failedIndexes": "2"}),
        &["status.failedIndexes: Invalid value: \"2\": failedIndexes and completedIndexes overlap at index: 2"],
    );
}

#[test]
fn warnings() {
    let kind = kind(JOB);
    let made = created(JOB, with(&job(), json!({"metadata": {"name": "a.b"}})));
    assert_eq!(
        kind.strategy.warnings(&made, Write::Create),
        [
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')]"
        ]
    );
}

#[test]
fn rows() {
    let row = |patch: Value, expected: &str| check_row(JOB, with(&job(), patch), expected);
    row(json!({}), "Running 0/1  60m | c i:1 <none>");
    row(
        json!({"spec": {"completions": 3, "selector": {"matchLabels": {"a": "b"}}}, "status": {"startTime": "2026-01-01T00:59:30Z", "succeeded": 1}}),
        "Running 1/3 30s 60m | c i:1 a=b",
    );
    row(json!({"spec": {"parallelism": 2}}), "Running 0/1 of 2  60m | c i:1 <none>");
    row(
        json!({"status": {
            "conditions": [{"type": "Complete", "status": "True"}],
            "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:05:10Z", "succeeded": 1,
        }, "spec": {"completions": 1}}),
        "Complete 1/1 5m10s 60m | c i:1 <none>",
    );
    row(
        json!({"status": {"conditions": [{"type": "Suspended", "status": "True"}]}}),
        "Suspended 0/1  60m | c i:1 <none>",
    );
}
