use serde_json::{Value, json};

use super::local_services;
use crate::kind::{Stamp, Write};
use crate::kinds::testing::{check, check_row, check_write, created, kind, with};

const SERVICE: &str = "apiregistration.k8s.io/v1 APIService";

fn remote() -> Value {
    json!({"metadata": {"name": "v1.example.com"}, "spec": {
        "group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
        "service": {"namespace": "n", "name": "s"},
    }})
}

fn stamped(object: Value, write: Write<'_>) -> Value {
    let mut object = object;
    let extra = Default::default();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    kind(SERVICE).strategy.stamp(&mut object, write, &Stamp { now, user: "u", uid: "", groups: &[], extra: &extra });
    object
}

#[test]
fn api_services() {
    let made = created(SERVICE, remote());
    assert_eq!(made["spec"]["service"]["port"], 443);
    check(SERVICE, made.clone(), &[]);
    check_row(SERVICE, made.clone(), "n/s Unknown 60m");
    assert_eq!(stamped(made.clone(), Write::Create), made, "only local ones are there at once");
    let condition = |condition: Value| with(&made, json!({"status": {"conditions": [condition]}}));
    check_row(
        SERVICE,
        condition(json!({"type": "Available", "status": "False", "reason": "Gone"})),
        "n/s False (Gone) 60m",
    );
    check_row(SERVICE, condition(json!({"type": "Available", "status": "True", "reason": "Passed"})), "n/s True 60m");
    check(
        SERVICE,
        with(
            &remote(),
            json!({"metadata": {"name": "x"}, "spec": {"groupPriorityMinimum": 20001, "versionPriority": null}}),
        ),
        &[
            "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.example.com\"",
            "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
            "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
        ],
    );
    check(
        SERVICE,
        with(
            &remote(),
            json!({"metadata": {"name": "v2."}, "spec": {"version": "v2", "group": null, "service": {"name": null, "namespace": null}}}),
        ),
        &[
            "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
            "spec.service.namespace: Required value",
            "spec.service.name: Required value",
        ],
    );
    check(
        SERVICE,
        with(&remote(), json!({"spec": {"service": null, "caBundle": "YWJj", "insecureSkipTLSVerify": true}})),
        &[
            "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
            "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
        ],
    );
    check(
        SERVICE,
        with(&remote(), json!({"spec": {"caBundle": "YWJj", "insecureSkipTLSVerify": true}})),
        &["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"],
    );
    check_write(
        SERVICE,
        "status",
        &made,
        json!({"status": {"conditions": [{"type": "Available", "status": "Maybe"}]}}),
        &[
            "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"True\", \"False\", \"Unknown\"",
        ],
    );
}

#[test]
fn local_ones() {
    let all = local_services([("", "v1"), ("apps", "v1"), ("apps", "v1"), ("example.com", "v1")].into_iter());
    let names: Vec<_> = all.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["v1.", "v1.apps"]);
    for object in all {
        let made = created(SERVICE, object);
        check(SERVICE, made.clone(), &[]);
        let made = stamped(made, Write::Create);
        check_row(SERVICE, made.clone(), "Local True 60m");
        assert_eq!(
            made["status"]["conditions"],
            json!([{
                "type": "Available", "status": "True", "reason": "Local", "lastTransitionTime": "2026-01-01T00:00:00Z",
                "message": "Local APIServices are always available",
            }])
        );
    }
    // Every group that is served has a place.
    let kinds = crate::kinds::all();
    let served: std::collections::BTreeSet<_> = kinds.iter().map(|k| (k.group.as_ref(), k.version.as_ref())).collect();
    let placed = local_services(served.iter().copied());
    let without: Vec<_> = served
        .iter()
        .filter(|(group, version)| !placed.iter().any(|o| o["metadata"]["name"] == format!("{version}.{group}")))
        .collect();
    assert_eq!(without, [&("apiregistration.k8s.io", "v1")], "the aggregator's own group has none");
}
