use serde_json::{Value, json};

use super::{mandatory, suggested};
use crate::kinds::testing::{check, check_row, check_write, created, with};

const SCHEMA: &str = "flowcontrol.apiserver.k8s.io/v1 FlowSchema";
const LEVEL: &str = "flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration";

/// What the server creates is complete (defaults change nothing) and keeps its own rules.
#[test]
fn built_in_objects() {
    let all: Vec<Value> = mandatory().into_iter().chain(suggested()).collect();
    assert_eq!(all.len(), 21);
    for object in all {
        let name = if object["kind"] == "FlowSchema" { SCHEMA } else { LEVEL };
        check(name, object.clone(), &[]);
        assert_eq!(created(name, object.clone())["spec"], object["spec"], "{object}");
        assert_eq!(object["metadata"]["annotations"][super::AUTO_UPDATE], "true");
    }
}

fn schema(spec: Value) -> Value {
    let base = json!({"metadata": {"name": "mine"}, "spec": {
        "priorityLevelConfiguration": {"name": "global-default"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "u"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}],
    }});
    with(&base, json!({"spec": spec}))
}

fn rule(rule: Value) -> Value {
    let base = json!({"subjects": [{"kind": "User", "user": {"name": "u"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
    schema(json!({"rules": [with(&base, rule)]}))
}

#[test]
fn flow_schemas() {
    let made = created(SCHEMA, schema(json!({})));
    assert_eq!(made["spec"]["matchingPrecedence"], 1000);
    assert_eq!(made["metadata"]["generation"], 1);
    check(SCHEMA, made.clone(), &[]);
    check_row(SCHEMA, made.clone(), "global-default 1000 <none> 60m ?");
    let dangling = json!({"spec": {"distinguisherMethod": {"type": "ByUser"}}, "status": {"conditions": [{"type": "Dangling", "status": "False"}]}});
    check_row(SCHEMA, dangling, " 0 ByUser 60m False");
    check(
        SCHEMA,
        schema(
            json!({"matchingPrecedence": -1, "priorityLevelConfiguration": null, "distinguisherMethod": {"type": "ByNode"}}),
        ),
        &[
            "spec.matchingPrecedence: Invalid value: -1: must be a positive value",
            "spec.distinguisherMethod.type: Unsupported value: {\"Type\":\"ByNode\"}: supported values: \"ByNamespace\", \"ByUser\"",
            "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
        ],
    );
    check(
        SCHEMA,
        schema(json!({"matchingPrecedence": 1})),
        &["spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1"],
    );
    check(
        SCHEMA,
        schema(json!({"matchingPrecedence": 10001})),
        &["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"],
    );
    check(
        SCHEMA,
        rule(json!({"subjects": [], "nonResourceRules": null})),
        &[
            "spec.rules[0].subjects: Required value: subjects must contain at least one value",
            "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
        ],
    );
    check(
        SCHEMA,
        rule(json!({"subjects": [
            {"kind": "Robot"}, {"kind": "User", "user": {"name": ""}, "group": {"name": "g"}}, {"kind": "Group"},
            {"kind": "ServiceAccount", "serviceAccount": {"name": "*"}, "user": {"name": "u"}},
            {"kind": "ServiceAccount", "serviceAccount": {"name": "", "namespace": "n"}},
        ]})),
        &[
            "spec.rules[0].subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
            "spec.rules[0].subjects[1].user.name: Required value",
            "spec.rules[0].subjects[1].group: Forbidden: group is forbidden when subject kind is not 'Group'",
            "spec.rules[0].subjects[2].group: Required value: group is required when subject kind is 'Group'",
            "spec.rules[0].subjects[3].serviceAccount.namespace: Required value: must specify namespace for service account",
            "spec.rules[0].subjects[3].user: Forbidden: user is forbidden when subject kind is not 'User'",
            "spec.rules[0].subjects[4].serviceAccount.name: Required value",
        ],
    );
    check(
        SCHEMA,
        rule(json!({"nonResourceRules": null, "resourceRules": [
            {}, {"verbs": ["*", "get"], "apiGroups": ["*", ""], "resources": ["*", "pods"], "namespaces": ["*", "a"]},
            {"verbs": ["fly"], "apiGroups": [""], "resources": ["pods"], "clusterScope": true},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["A"]},
        ]})),
        &[
            "spec.rules[0].resourceRules[0].verbs: Required value: verbs must contain at least one value",
            "spec.rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "spec.rules[0].resourceRules[0].resources: Required value: resource rules must supply at least one resource",
            "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
            "spec.rules[0].resourceRules[1].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
            "spec.rules[0].resourceRules[1].apiGroups: Invalid value: [\"*\",\"\"]: if '*' is present, must not specify other api groups",
            "spec.rules[0].resourceRules[1].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources",
            "spec.rules[0].resourceRules[1].namespaces: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other namespaces",
            "spec.rules[0].resourceRules[2].verbs: Unsupported value: [\"fly\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
            "spec.rules[0].resourceRules[3].namespaces[0]: Invalid value: \"A\": each member of this list must be '*' or a DNS-1123 label; a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    for (url, complaint) in [
        ("/", None),
        ("/healthz/*", None),
        ("", Some("must not be empty")),
        ("healthz", Some("must start with slash")),
        ("/a b", Some("must not contain white-space")),
        ("/a//b", Some("must not contain double slash")),
        ("/a*", Some("wildcard can only do suffix matching")),
        ("/*/b", Some("wildcard can only do suffix matching")),
    ] {
        let expected = complaint
            .map(|why| format!("spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: {url:?}: {why}"));
        let object = rule(json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": [url]}]}));
        check(SCHEMA, object, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn mandatory_objects_are_fixed() {
    let all = mandatory();
    let find = |kind: &str, name: &str| {
        let found = all.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name).unwrap().clone();
        created(if kind == "FlowSchema" { SCHEMA } else { LEVEL }, found)
    };
    let message = |kind: &str, name: &str, sub: &str, patch: Value| {
        let old = find(kind, name);
        let mut new = with(&old, patch.clone());
        new["metadata"]["generation"] = json!(2);
        let shown = new["spec"].to_string();
        let detail = match sub {
            "" => format!("spec of '{name}' must equal the fixed value"),
            _ => format!("spec of '{name}' except the 'spec.exempt' field must equal the fixed value"),
        };
        (old, patch, format!("spec: Invalid value: {shown}: {detail}"))
    };
    let (old, patch, expected) = message("FlowSchema", "catch-all", "", json!({"spec": {"matchingPrecedence": 9999}}));
    check_write(SCHEMA, "", &old, patch, &[&expected]);
    let (old, patch, expected) = message(
        "PriorityLevelConfiguration",
        "catch-all",
        "",
        json!({"spec": {"limited": {"nominalConcurrencyShares": 6}}}),
    );
    check_write(LEVEL, "", &old, patch, &[&expected]);
    let exempt = find("PriorityLevelConfiguration", "exempt");
    check_write(LEVEL, "", &exempt, json!({"spec": {"exempt": {"lendablePercent": 10}}}), &[]);
    let (old, patch, expected) =
        message("PriorityLevelConfiguration", "exempt", "exempt", json!({"spec": {"type": "x"}}));
    check_write(
        LEVEL,
        "",
        &old,
        patch,
        &[
            "spec.type: Invalid value: \"x\": type must be 'Exempt' if and only if name is 'exempt'",
            "spec.type: Unsupported value: \"x\": supported values: \"Exempt\", \"Limited\"",
            &expected,
        ],
    );
}

#[test]
fn priority_levels() {
    let level = |limited: Value| json!({"metadata": {"name": "mine"}, "spec": {"type": "Limited", "limited": limited}});
    let made = created(LEVEL, level(json!({"limitResponse": {"type": "Queue", "queuing": {}}})));
    assert_eq!(
        made["spec"]["limited"],
        json!({"nominalConcurrencyShares": 30, "lendablePercent": 0,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}}})
    );
    check(LEVEL, made.clone(), &[]);
    check_row(LEVEL, made.clone(), "Limited 30 64 8 50 60m");
    check_row(LEVEL, json!({"spec": {"type": "Exempt"}}), "Exempt <none> <none> <none> <none> 60m");
    check(
        LEVEL,
        json!({"spec": {"type": "Limited"}}),
        &["spec.limited: Required value: must not be empty when type is Limited"],
    );
    check(
        LEVEL,
        json!({"metadata": {"name": "mine"}, "spec": {"type": "Exempt", "limited": {}}}),
        &[
            "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'",
            "spec.limited: Forbidden: must be nil if the type is not Limited",
        ],
    );
    check(
        LEVEL,
        with(&level(json!({"limitResponse": {"type": "Reject"}})), json!({"spec": {"exempt": {}}})),
        &["spec.exempt: Forbidden: must be nil if the type is Limited"],
    );
    check(
        LEVEL,
        level(
            json!({"nominalConcurrencyShares": -1, "lendablePercent": 101, "borrowingLimitPercent": -1, "limitResponse": {"type": "Reject", "queuing": {}}}),
        ),
        &[
            "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
            "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited",
            "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
        ],
    );
    check(
        LEVEL,
        level(json!({"limitResponse": {"type": "Queue"}})),
        &[
            "spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited",
        ],
    );
    check(
        LEVEL,
        level(json!({"limitResponse": {"type": "Drop"}})),
        &["spec.limited.limitResponse.type: Unsupported value: \"Drop\": supported values: \"Queue\", \"Reject\""],
    );
    let queuing = |queuing: Value| level(json!({"limitResponse": {"type": "Queue", "queuing": queuing}}));
    let at = "spec.limited.limitResponse.queuing";
    check(
        LEVEL,
        queuing(json!({"queues": -1, "handSize": -1, "queueLengthLimit": -1})),
        &[
            &format!("{at}.queueLengthLimit: Invalid value: -1: must be positive"),
            &format!("{at}.queues: Invalid value: -1: must be positive"),
            &format!("{at}.handSize: Invalid value: -1: must be positive"),
        ],
    );
    check(
        LEVEL,
        queuing(json!({"queues": 4, "handSize": 5})),
        &[&format!("{at}.handSize: Invalid value: 5: should not be greater than queues (4)")],
    );
    check(
        LEVEL,
        queuing(json!({"queues": 128, "handSize": 10})),
        &[&format!(
            "{at}.handSize: Invalid value: 10: required entropy bits of deckSize 128 and handSize 10 should not be greater than 60"
        )],
    );
    check(
        LEVEL,
        queuing(json!({"queues": 10_000_001, "handSize": 1})),
        &[&format!("{at}.queues: Invalid value: 10000001: must not be greater than 10000000")],
    );
    check_write(
        LEVEL,
        "status",
        &made,
        json!({"status": {"conditions": [{"type": "a"}, {"type": "a"}, {}]}}),
        &[
            "status.conditions[1].type: Duplicate value: \"a\"",
            "status.conditions[2].type: Required value: must not be empty",
        ],
    );
}
