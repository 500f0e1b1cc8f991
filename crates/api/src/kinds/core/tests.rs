//! Tables for the small kinds of the core group and `events.k8s.io`.

use serde_json::{Value, json};

use crate::kinds::testing::{check, check_row, check_write, created, kind, with};

#[test]
fn namespaces() {
    let made = created("v1 Namespace", json!({"metadata": {"name": "a"}}));
    assert_eq!(
        made,
        json!({
            "metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        })
    );
    check(
        "v1 Namespace",
        json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["x"]}}),
        &[
            "spec.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
        ],
    );
    let kept = check_write(
        "v1 Namespace",
        "",
        &made,
        json!({"metadata": {"labels": null}, "spec": {"finalizers": []}, "status": {"phase": "Terminating"}}),
        &[],
    );
    assert_eq!(kept, made);
    check_write(
        "v1 Namespace",
        "status",
        &made,
        json!({"status": {"phase": "Terminating"}}),
        &["status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"],
    );
    let strategy = kind("v1 Namespace").strategy;
    assert!(strategy.held(&made));
    let finalized = check_write("v1 Namespace", "finalize", &made, json!({"spec": {"finalizers": []}}), &[]);
    assert!(!strategy.held(&finalized));
    let mut deleted = made.clone();
    strategy.mark_deleted(&mut deleted);
    check_row("v1 Namespace", deleted, "Terminating 60m");
}

#[test]
fn nodes() {
    let made = created(
        "v1 Node",
        json!({"spec": {"podCIDR": "10.0.0.0/24"}, "status": {"capacity": {"cpu": 2, "memory": "1024Ki"}}}),
    );
    assert_eq!(made["spec"], json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}));
    assert_eq!(made["status"]["allocatable"], json!({"cpu": "2", "memory": "1Mi"}));
    check(
        "v1 Node",
        json!({"spec": {"taints": [{"key": "a", "effect": "x"}]}}),
        &[
            "metadata.taints[0].effect: Unsupported value: \"x\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ],
    );
    check(
        "v1 Node",
        json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]}}),
        &[
            "metadata.taints[1]: Duplicate value: {\"Key\":\"a\",\"Value\":\"\",\"Effect\":\"NoSchedule\",\"TimeAdded\":null}: taints must be unique by key and effect pair",
        ],
    );
    check(
        "v1 Node",
        json!({"status": {"addresses": [{"type": "InternalIP", "address": "a"}, {"type": "InternalIP", "address": "a"}]}}),
        &["status.addresses[1]: Duplicate value: {\"Type\":\"InternalIP\",\"Address\":\"a\"}"],
    );
    let update = |patch, expected: &[&str]| check_write("v1 Node", "", &made, patch, expected);
    update(json!({"spec": {"unschedulable": true, "providerID": "p://1"}, "metadata": {"labels": {"a": "b"}}}), &[]);
    update(
        json!({"spec": {"podCIDR": "10.0.1.0/24"}}),
        &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
    );
    update(json!({"spec": {"externalID": "x"}}), &["spec.externalID: Forbidden: may not be updated"]);
    let object = json!({
        "metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/a": ""}}, "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "nodeInfo": {"kubeletVersion": "v1.35.0", "osImage": "Debian", "kernelVersion": "6.1"}},
    });
    check_row(
        "v1 Node",
        object,
        "Ready,SchedulingDisabled a,control-plane 60m v1.35.0 | 10.0.0.1 <none> Debian 6.1 <unknown>",
    );
    check_row(
        "v1 Node",
        json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
        "NotReady <none> 60m  | <none> <none> <unknown> <unknown> <unknown>",
    );
    let unschedulable = kind("v1 Node").field_selectors.remove(0);
    assert_eq!((unschedulable.path.as_ref(), unschedulable.get(&json!({})).as_ref()), ("spec.unschedulable", "false"));
}

#[test]
fn config_maps() {
    check(
        "v1 ConfigMap",
        json!({"data": {"a b": "c"}}),
        &[
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
    check(
        "v1 ConfigMap",
        json!({"data": {"a": "c"}, "binaryData": {"a": "YQ=="}}),
        &[
            "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
            "binaryData[a]: Invalid value: \"a\": duplicate of key present in data",
        ],
    );
    check("v1 ConfigMap", json!({"data": {"a": "x".repeat(1 << 20)}}), &[]);
    check(
        "v1 ConfigMap",
        json!({"data": {"a": "x".repeat((1 << 20) + 1)}}),
        &["[]: Too long: may not be more than 1048576 bytes"],
    );
    let old = json!({"data": {"a": "b"}, "immutable": true});
    check_write("v1 ConfigMap", "", &old, json!({"metadata": {"labels": {"a": "b"}}}), &[]);
    check_write(
        "v1 ConfigMap",
        "",
        &old,
        json!({"data": {"a": "c"}, "immutable": null}),
        &[
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
        ],
    );
    check_row("v1 ConfigMap", json!({"data": {"a": ""}, "binaryData": {"b": ""}}), "2 60m");
}

#[test]
fn secrets() {
    let made = created("v1 Secret", json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "text"}}));
    assert_eq!(made, json!({"metadata": {}, "type": "Opaque", "data": {"a": "dGV4dA==", "b": "eQ=="}}));
    check(
        "v1 Secret",
        json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
        &["data[tls.key]: Required value"],
    );
    check(
        "v1 Secret",
        json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "x"}}),
        &["data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": expected value at line 1 column 1"],
    );
    check(
        "v1 Secret",
        json!({"type": "kubernetes.io/service-account-token"}),
        &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
    );
    check_write("v1 Secret", "", &made, json!({"type": "x"}), &["type: Invalid value: \"x\": field is immutable"]);
    check_row("v1 Secret", made, "Opaque 2 60m");
}

#[test]
fn events() {
    let core = json!({
        "apiVersion": "v1", "metadata": {"name": "e", "namespace": "d"}, "type": "Normal", "reason": "Started", "message": "It runs\n", "count": 3,
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "d"}, "source": {"component": "kubelet", "host": "n"}, "reportingComponent": "k8s.io/kubelet",
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:00Z",
    });
    check("v1 Event", core.clone(), &[]);
    check(
        "v1 Event",
        with(&core, json!({"metadata": {"namespace": "x"}})),
        &["involvedObject.namespace: Invalid value: \"d\": does not match event.namespace"],
    );
    let row = "60s Normal Started pod/p |  kubelet, n It runs 60m 3 e";
    check_row("v1 Event", core.clone(), row);
    let storage = kind("events.k8s.io/v1 Event").storage.unwrap();
    let mut new = core.clone();
    (storage.from_stored)(&mut new);
    assert_eq!(
        (&new["apiVersion"], &new["note"], &new["regarding"]["name"], &new["deprecatedCount"], &new["count"]),
        (&json!("events.k8s.io/v1"), &json!("It runs\n"), &json!("p"), &json!(3), &Value::Null)
    );
    check_row("events.k8s.io/v1 Event", new.clone(), row);
    let selectors = |name: &str| kind(name).field_selectors;
    for (own, stored) in selectors("events.k8s.io/v1 Event").iter().zip(selectors("v1 Event")) {
        assert_eq!(own.get(&new), stored.get(&core), "{} and {}", own.path, stored.path);
    }
    (storage.to_stored)(&mut new);
    assert_eq!(new, core);

    let new = json!({
        "metadata": {"namespace": "d"}, "type": "Normal", "reason": "r", "action": "a", "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "x.io/y", "reportingInstance": "z", "regarding": {"namespace": "d"},
    });
    check("events.k8s.io/v1 Event", new.clone(), &[]);
    check(
        "events.k8s.io/v1 Event",
        with(&new, json!({"type": "Odd", "action": null, "deprecatedCount": 1})),
        &[
            "type: Invalid value: \"\": has invalid value: Odd",
            "deprecatedCount: Invalid value: 1: needs to be unset",
            "action: Required value",
        ],
    );
    check_write("events.k8s.io/v1 Event", "", &new, json!({"series": {"count": 2}}), &[]);
    check_write(
        "events.k8s.io/v1 Event",
        "",
        &new,
        json!({"note": "x"}),
        &["note: Invalid value: \"x\": field is immutable"],
    );
}

#[test]
fn bindings_and_component_statuses() {
    check(
        "v1 Binding",
        json!({"target": {"kind": "Pod"}}),
        &[
            "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
            "target.name: Required value",
        ],
    );
    check_row(
        "v1 ComponentStatus",
        json!({"conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]}),
        "Healthy ok ",
    );
    check_row("v1 ServiceAccount", json!({}), "0 60m");
}
