use serde_json::{Value, json};

use crate::kinds::testing::{check_row, check_write, created, with};

const CRON_JOB: &str = "batch/v1 CronJob";

fn cron_job() -> Value {
    json!({
        "metadata": {"name": "backup", "namespace": "d"},
        "spec": {
            "schedule": "*/5 * * * *",
            "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i:1"}],
            }}}},
        },
    })
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    crate::kinds::testing::check(CRON_JOB, with(&cron_job(), json!({"spec": patch})), expected);
}

#[test]
fn defaults() {
    let made = created(CRON_JOB, cron_job());
    let spec = &made["spec"];
    for (field, expected) in [
        ("concurrencyPolicy", json!("Allow")),
        ("suspend", json!(false)),
        ("successfulJobsHistoryLimit", json!(3)),
        ("failedJobsHistoryLimit", json!(1)),
    ] {
        assert_eq!(spec[field], expected, "{field}");
    }
    // The template is not a job yet.
    assert_eq!(spec["jobTemplate"]["spec"]["backoffLimit"], Value::Null);
    assert_eq!(spec["jobTemplate"]["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    assert_eq!((&made["metadata"]["generation"], &made["status"]), (&json!(1), &json!({})));
}

#[test]
fn rules() {
    check(json!({}), &[]);
    check(json!({"schedule": null}), &["spec.schedule: Required value"]);
    check(
        json!({"schedule": "* * *"}),
        &["spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]"],
    );
    check(
        json!({"schedule": "TZ=UTC * * * * *"}),
        &[
            "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ],
    );
    check(json!({"timeZone": "Europe/Berlin"}), &[]);
    check(json!({"timeZone": "Etc/UTC"}), &[]);
    check(json!({"timeZone": ""}), &["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"]);
    for bad in ["Mars/Base", "europe/berlin", "../etc/passwd"] {
        check(
            json!({"timeZone": bad}),
            &[&format!("spec.timeZone: Invalid value: \"{bad}\": unknown time zone {bad}")],
        );
    }
    check(
        json!({"timeZone": "Local"}),
        &[
            "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ],
    );
    check(
        json!({"concurrencyPolicy": "X"}),
        &["spec.concurrencyPolicy: Unsupported value: \"X\": supported values: \"Allow\", \"Forbid\", \"Replace\""],
    );
    check(
        json!({"startingDeadlineSeconds": -1, "successfulJobsHistoryLimit": -1, "failedJobsHistoryLimit": -1}),
        &[
            "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    check(
        json!({"jobTemplate": {"spec": {
            "selector": {"matchLabels": {"a": "b"}}, "manualSelector": true, "template": {"spec": {"restartPolicy": null}},
        }}}),
        &[
            "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
            "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
        ],
    );
    let name = "x".repeat(53);
    crate::kinds::testing::check(
        CRON_JOB,
        with(&cron_job(), json!({"metadata": {"name": name}})),
        &[&format!("metadata.name: Invalid value: \"{name}\": must be no more than 52 characters")],
    );
}

#[test]
fn writes() {
    let old = created(CRON_JOB, cron_job());
    let changed = check_write(CRON_JOB, "", &old, json!({"spec": {"suspend": true}}), &[]);
    assert_eq!(changed["metadata"]["generation"], 2);
    // A name and a zone from before the rules stay.
    let long = with(
        &old,
        json!({"metadata": {"name": "x".repeat(60)}, "spec": {"schedule": "TZ=UTC 0 * * * *", "timeZone": "Mars/Base"}}),
    );
    check_write(
        CRON_JOB,
        "",
        &long,
        json!({"spec": {"suspend": true}}),
        &[
            "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use both timeZone field and TZ or CRON_TZ in schedule",
        ],
    );
    check_write(CRON_JOB, "", &long, json!({"spec": {"timeZone": null}}), &[]);
    let stored = check_write(
        CRON_JOB,
        "status",
        &old,
        json!({"spec": {"suspend": true}, "status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}}),
        &[],
    );
    assert_eq!((&stored["spec"]["suspend"], stored["status"]["lastScheduleTime"].is_string()), (&json!(false), true));
}

#[test]
fn rows() {
    check_row(CRON_JOB, created(CRON_JOB, cron_job()), "*/5 * * * * <none> False 0 <none> 60m | c i:1 <none>");
    let busy = with(
        &cron_job(),
        json!({
            "spec": {"timeZone": "Etc/UTC", "suspend": true},
            "status": {"active": [{}, {}], "lastScheduleTime": "2026-01-01T00:55:00Z"},
        }),
    );
    check_row(CRON_JOB, busy, "*/5 * * * * Etc/UTC True 2 5m 60m | c i:1 <none>");
}
