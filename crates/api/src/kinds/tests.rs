//! Tables for the small kinds outside the core group.

use serde_json::{Value, json};

use super::testing::{check, check_row, check_write, created, kind};

#[test]
fn leases() {
    const LEASE: &str = "coordination.k8s.io/v1 Lease";
    check(
        LEASE,
        json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
        &[
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
            "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    check(
        LEASE,
        json!({"spec": {"preferredHolder": "x"}}),
        &["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"],
    );
    check_row(LEASE, json!({"spec": {"holderIdentity": "me"}}), "me 60m");
}

#[test]
fn priority_classes() {
    const CLASS: &str = "scheduling.k8s.io/v1 PriorityClass";
    let made = created(CLASS, json!({"metadata": {"name": "a"}, "value": 5}));
    assert_eq!(made["preemptionPolicy"], "PreemptLowerPriority");
    check_row(CLASS, made.clone(), "5 false 60m PreemptLowerPriority");
    check(
        CLASS,
        json!({"value": 1_000_000_001}),
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
    check(
        CLASS,
        json!({"metadata": {"name": "system-x"}, "value": 1}),
        &[
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class",
        ],
    );
    check(CLASS, json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}), &[]);
    check_write(
        CLASS,
        "",
        &made,
        json!({"value": 6, "preemptionPolicy": "Never"}),
        &[
            "value: Forbidden: may not be changed in an update.",
            "preemptionPolicy: Invalid value: \"Never\": field is immutable",
        ],
    );
}

#[test]
fn endpoint_slices() {
    const SLICE: &str = "discovery.k8s.io/v1 EndpointSlice";
    let made = created(
        SLICE,
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
    );
    assert_eq!(made["ports"], json!([{"port": 80, "name": "", "protocol": "TCP"}]));
    check_row(SLICE, made.clone(), "IPv4 80 10.0.0.1 60m");
    check_row(SLICE, json!({"addressType": "IPv4"}), "IPv4 <unset> <unset> 60m");
    check(SLICE, json!({}), &["addressType: Required value"]);
    check(
        SLICE,
        json!({"addressType": "x"}),
        &["addressType: Unsupported value: \"x\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
    );
    check(
        SLICE,
        json!({"addressType": "IPv4", "endpoints": [{}, {"addresses": ["::1"]}, {"addresses": ["127.0.0.1"]}]}),
        &[
            "endpoints[0].addresses: Required value: must contain at least 1 address",
            "endpoints[1].addresses[0]: Invalid value: \"::1\": must be a valid IPv4 address",
            "endpoints[2].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ],
    );
    check(
        SLICE,
        json!({"addressType": "IPv4", "ports": [{"port": 1}, {"port": 2}]}),
        &["ports[1].name: Duplicate value: \"\""],
    );
    check(
        SLICE,
        json!({"addressType": "IPv4", "endpoints": vec![json!({}); 1001]}),
        &["endpoints: Too many: 1001: must have at most 1000 items"],
    );
    let changed = check_write(SLICE, "", &made, json!({"endpoints": []}), &[]);
    assert_eq!(changed["metadata"]["generation"], 2);
    check_write(
        SLICE,
        "",
        &made,
        json!({"addressType": "IPv6", "endpoints": []}),
        &["addressType: Invalid value: \"IPv6\": field is immutable"],
    );
}

#[test]
fn controller_revisions() {
    const REVISION: &str = "apps/v1 ControllerRevision";
    check(
        REVISION,
        json!({"revision": -1}),
        &["data: Required value: data is mandatory", "revision: Invalid value: -1: must be greater than or equal to 0"],
    );
    check_write(
        REVISION,
        "",
        &json!({"data": {"a": 1}}),
        json!({"data": {"a": 2}}),
        &["data: Invalid value: {\"a\":2}: field is immutable"],
    );
    check_row(
        REVISION,
        json!({"metadata": {"ownerReferences": [{"controller": true, "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d"}]}, "revision": 3}),
        "daemonset.apps/d 3 60m",
    );
}

#[test]
fn reviews() {
    let review = |kind: &str| format!("authorization.k8s.io/v1 {kind}");
    check(
        &review("SubjectAccessReview"),
        json!({"spec": {}}),
        &[
            "spec.resourceAttributes: Invalid value: \"\": exactly one of nonResourceAttributes or resourceAttributes must be specified",
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ],
    );
    check(
        &review("SelfSubjectAccessReview"),
        json!({"metadata": {"creationTimestamp": null}, "spec": {"nonResourceAttributes": {"path": "/"}}}),
        &[],
    );
    check(
        &review("SelfSubjectAccessReview"),
        json!({"metadata": {"name": "x"}, "spec": {"resourceAttributes": {}}}),
        &["metadata: Invalid value: {\"name\":\"x\"}: must be empty"],
    );
    check(
        &review("LocalSubjectAccessReview"),
        json!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": {"namespace": "b"}}}),
        &["spec.resourceAttributes.namespace: Invalid value: \"b\": must match metadata.namespace"],
    );
    let narrowed = |field: Value, label: Value| json!({"spec": {"resourceAttributes": {"fieldSelector": field, "labelSelector": label}}});
    let known = json!({"requirements": [{"key": "a", "operator": "Newer", "values": ["b"]}]});
    check(&review("SelfSubjectAccessReview"), narrowed(known.clone(), known), &[]);
    let (fields, labels) = ("spec.resourceAttributes.fieldSelector", "spec.resourceAttributes.labelSelector");
    check(
        &review("SelfSubjectAccessReview"),
        narrowed(
            json!({"requirements": [{"operator": "In"}, {"key": "a", "operator": "Exists", "values": ["b"]}]}),
            json!({"rawSelector": "a", "requirements": [{"key": "a", "operator": "NotIn", "values": []}]}),
        ),
        &[
            &format!("{fields}.requirements[0].key: Required value: must be specified"),
            &format!(
                "{fields}.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
            ),
            &format!(
                "{fields}.requirements[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            ),
            &format!("{labels}.rawSelector: Invalid value: \"a\": may not specified at the same time as requirements"),
            &format!(
                "{labels}.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
            ),
        ],
    );
    check(
        &review("SelfSubjectAccessReview"),
        narrowed(json!({}), json!({"rawSelector": "a=b"})),
        &[&format!(
            "{fields}.requirements: Required value: when {fields} is specified, requirements or rawSelector is required"
        )],
    );
    check(
        "authentication.k8s.io/v1 TokenRequest",
        json!({"spec": {"expirationSeconds": 599}}),
        &["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"],
    );
    assert_eq!(created("authentication.k8s.io/v1 TokenRequest", json!({}))["spec"]["expirationSeconds"], 3600);
}

#[test]
fn scales() {
    check(
        "autoscaling/v1 Scale",
        json!({"spec": {"replicas": -1}}),
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    let map = kind("apps/v1 Deployment").scale.unwrap();
    let mut object = json!({
        "metadata": {"name": "d", "namespace": "n", "resourceVersion": "7", "labels": {"a": "b"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 2},
    });
    let mut scale = map.read(&object);
    assert_eq!(
        scale,
        json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "d", "namespace": "n", "resourceVersion": "7"},
            "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "app=web"},
        })
    );
    scale["spec"]["replicas"] = json!(5);
    scale["metadata"]["resourceVersion"] = json!("8");
    map.write(&mut object, &scale);
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["resourceVersion"]), (&json!(5), &json!("8")));
    scale["spec"] = Value::Null;
    map.write(&mut object, &scale);
    assert_eq!(object["spec"]["replicas"], 0);
}

#[test]
fn fields_that_endpoints_do_not_write() {
    use crate::apply::Reset;
    let reset = |kind: &str, subresource: &str| {
        let all = super::all();
        all.iter().find(|k| k.kind == kind).map(|k| k.reset_fields(subresource)).unwrap()
    };
    let but_status = Reset::AllBut(&[&["f:metadata"], &["f:status"]]);
    assert_eq!(reset("ConfigMap", ""), Reset::Fields(&[]));
    assert_eq!(reset("Service", ""), Reset::Fields(&[&["f:status"]]));
    assert_eq!(reset("Namespace", "finalize"), Reset::Fields(&[&["f:status"]]));
    assert_eq!(reset("ReplicaSet", "status"), but_status);
    assert_eq!(reset("Deployment", "status"), Reset::Fields(&[&["f:spec"], &["f:metadata", "f:labels"]]));
    let approval = Reset::Fields(&[&["f:spec"], &["f:status", "f:certificate"]]);
    assert_eq!(reset("CertificateSigningRequest", "approval"), approval);
    assert!(matches!(reset("Pod", "resize"), Reset::AllBut(_)));
}

#[test]
fn deletions_that_are_answered_with_the_object() {
    let all = super::all();
    let mut names: Vec<_> = all.iter().filter(|k| k.returns_deleted).map(|k| k.resource.as_ref()).collect();
    names.sort_unstable();
    names.dedup();
    // Upstream's registries that say `ReturnDeletedObject`.
    let expected = [
        "csidrivers",
        "csinodes",
        "deviceclasses",
        "persistentvolumeclaims",
        "persistentvolumes",
        "pods",
        "podtemplates",
        "resourceclaims",
        "resourceclaimtemplates",
        "resourcequotas",
        "resourceslices",
        "serviceaccounts",
        "services",
        "storageclasses",
        "volumeattachments",
        "volumeattributesclasses",
    ];
    assert_eq!(names, expected);
}
