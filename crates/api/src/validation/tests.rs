use serde_json::{Value, json};

use super::{View, meta, names, same};

#[test]
fn paths() {
    let object = json!({"spec": {"containers": [{"name": "a"}, {"limits": {"cpu": "1"}}]}});
    let root = View::root(&object);
    let spec = root.get("spec");
    let containers = spec.get("containers");
    let second = containers.items().last().unwrap();
    let limits = second.get("limits");
    let paths: Vec<_> = limits.entries().map(|(_, view)| view.path()).collect();
    assert_eq!(paths, ["spec.containers[1].limits[cpu]"]);
}

#[test]
fn equality_overlooks_nothing() {
    for (a, b, equal) in [
        (json!({"a": []}), json!({}), true),
        (json!({"a": null}), json!({"b": {}}), true),
        (json!({"a": 1}), json!({"a": 2}), false),
        (json!({"a": 1}), json!({}), false),
        (json!({}), json!({"a": false}), false),
        (json!([1]), json!([1, 2]), false),
        (json!({"a": [{"b": []}]}), json!({"a": [{}]}), true),
    ] {
        assert_eq!(same(&a, &b), equal, "{a} {b}");
    }
}

#[test]
fn name_formats() {
    type Check = fn(&str) -> Vec<String>;
    let cases: &[(Check, &str, bool)] = &[
        (names::subdomain, "a.b-c.0", true),
        (names::subdomain, "A", false),
        (names::subdomain, "a..b", false),
        (names::subdomain, "-a", false),
        (names::subdomain, "", false),
        (names::subdomain, &"a".repeat(254), false),
        (names::label, "a-1", true),
        (names::label, "a.b", false),
        (names::label_1035, "1a", false),
        (names::label_1035, "a1", true),
        (names::qualified, "app.kubernetes.io/name", true),
        (names::qualified, "Name_1.x", true),
        (names::qualified, "/name", false),
        (names::qualified, "a/", false),
        (names::qualified, "a/b/c", false),
        (names::label_value, "", true),
        (names::label_value, "a b", false),
        (names::config_key, "..a", false),
        (names::config_key, ".a", true),
        (names::env_var, "my.var-1 %", true),
        (names::env_var, "a=b", false),
        (names::port_name, "http-1", true),
        (names::port_name, "8080", false),
        (names::ip, "10.0.0.1", true),
        (names::ip, "010.0.0.1", false),
        (names::ip, "::1", true),
        (names::cidr, "10.0.0.0/8", true),
        (names::cidr, "10.0.0.0/33", false),
        (names::path_segment, "system:x", true),
        (names::path_segment, "a/b", false),
        (names::percent, "25%", true),
        (names::percent, "%", false),
    ];
    for (check, text, good) in cases {
        assert_eq!(check(text).is_empty(), *good, "{text:?}: {:?}", check(text));
    }
    assert!(names::prefix("web-", names::label).is_empty());
}

fn kind(resource: &str) -> crate::kind::Kind {
    crate::kinds::all().into_iter().find(|k| k.resource == resource).unwrap()
}

fn check_create(resource: &str, metadata: Value, expected: &[&str]) {
    let errors = meta::validate_create(&kind(resource), &json!({"metadata": metadata}));
    let errors: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
    assert_eq!(errors, expected);
}

#[test]
fn new_metadata() {
    check_create("configmaps", json!({"name": "a", "namespace": "b"}), &[]);
    check_create(
        "configmaps",
        json!({"namespace": "b"}),
        &["metadata.name: Required value: name or generateName is required"],
    );
    check_create("configmaps", json!({"name": "a"}), &["metadata.namespace: Required value"]);
    check_create(
        "nodes",
        json!({"name": "a", "namespace": "b"}),
        &["metadata.namespace: Forbidden: not allowed on this type"],
    );
    check_create(
        "configmaps",
        json!({"name": "A", "namespace": "b"}),
        &[
            "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check_create(
        "configmaps",
        json!({"name": "a", "namespace": "b", "labels": {"a": "b c"}}),
        &[
            "metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
    );
    check_create(
        "configmaps",
        json!({"name": "a", "namespace": "b", "annotations": {"a": "x".repeat(262_144)}}),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    check_create(
        "configmaps",
        json!({"name": "a", "namespace": "b", "finalizers": ["x"]}),
        &[
            "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
        ],
    );
    check_create(
        "configmaps",
        json!({"name": "a", "namespace": "b", "ownerReferences": [{"kind": "Pod", "apiVersion": "v1", "name": "p"}]}),
        &["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"],
    );
}

#[test]
fn changed_metadata() {
    let old = json!({"metadata": {"name": "a", "namespace": "b", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "1", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}});
    let check = |changes: Value, expected: &[&str]| {
        let mut new = old.clone();
        for (key, value) in changes.as_object().unwrap() {
            new["metadata"][key] = value.clone();
        }
        meta::before_update(&mut new, &old);
        let errors = meta::validate_update(&kind("configmaps"), &new, &old);
        let errors: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        assert_eq!(errors, expected);
    };
    check(json!({"uid": null, "creationTimestamp": null, "deletionTimestamp": null}), &[]);
    check(json!({"uid": "v"}), &["metadata.uid: Invalid value: \"v\": field is immutable"]);
    check(
        json!({"resourceVersion": ""}),
        &["metadata.resourceVersion: Invalid value: \"\": must be specified for an update"],
    );
    check(
        json!({"finalizers": ["a/b", "c/d"]}),
        &[
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"c/d\"}",
        ],
    );
    check(json!({"finalizers": []}), &[]);
}
