use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Evaluator, Quota, show};

const NOW: &str = "2026-01-01T00:01:00Z";

#[track_caller]
fn usage(group: &str, resource: &str, object: Value, expected: &str) {
    let now: Timestamp = NOW.parse().unwrap();
    let usage = Evaluator::of(group, resource).usage(&object, now);
    let usage = usage.iter().filter(|(_, amount)| !amount.is_zero());
    assert_eq!(show(usage), expected, "{object}");
}

fn container(name: &str, requests: Value, limits: Value) -> Value {
    json!({"name": name, "resources": {"requests": requests, "limits": limits}})
}

#[test]
fn pods_use_what_they_request() {
    let pod = |pod: Value, expected: &str| usage("", "pods", pod, expected);
    let a = || container("a", json!({"cpu": "100m", "example.com/gpu": "2"}), json!({"cpu": "1", "memory": "1Gi"}));
    let b = || container("b", json!({"cpu": "200m"}), json!({}));
    let large = || container("i", json!({"cpu": "500m"}), json!({}));
    pod(json!({"spec": {"containers": [{"name": "a"}]}}), "count/pods=1,pods=1");
    pod(
        json!({"spec": {"containers": [a(), b()], "initContainers": [large()]}}),
        "count/pods=1,cpu=500m,limits.cpu=1,limits.memory=1Gi,pods=1,requests.cpu=500m,requests.example.com/gpu=2",
    );
    let mut sidecar = b();
    sidecar["restartPolicy"] = "Always".into();
    pod(
        json!({"spec": {"containers": [b()], "initContainers": [sidecar, b()], "overhead": {"cpu": "1", "memory": "1"}}}),
        "count/pods=1,cpu=1400m,memory=1,pods=1,requests.cpu=1400m,requests.memory=1",
    );
    pod(
        json!({"spec": {"containers": [b()], "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "1Mi"}}}}),
        "count/pods=1,cpu=2,limits.memory=1Mi,pods=1,requests.cpu=2",
    );
    // A resize that is not done yet counts as the larger; one that cannot be, as what there is.
    let mut resized = json!({
        "spec": {"containers": [b()]},
        "status": {"containerStatuses": [{"name": "b", "resources": {"requests": {"cpu": "100m"}}, "allocatedResources": {"cpu": "150m"}}]},
    });
    pod(resized.clone(), "count/pods=1,cpu=200m,pods=1,requests.cpu=200m");
    resized["status"]["conditions"] = json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
    pod(resized, "count/pods=1,cpu=150m,pods=1,requests.cpu=150m");
}

#[test]
fn pods_that_are_over_use_only_their_place() {
    let pod = |metadata: Value, status: Value, expected: &str| {
        let spec = json!({"containers": [container("a", json!({"cpu": "1"}), json!({}))]});
        usage("", "pods", json!({"metadata": metadata, "spec": spec, "status": status}), expected);
    };
    let all = "count/pods=1,cpu=1,pods=1,requests.cpu=1";
    pod(json!({}), json!({"phase": "Running"}), all);
    pod(json!({}), json!({"phase": "Failed"}), "count/pods=1");
    let deleted = |at: &str| json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 30});
    pod(deleted("2026-01-01T00:00:31Z"), json!({}), all);
    pod(deleted("2026-01-01T00:00:29Z"), json!({}), "count/pods=1");
}

#[test]
fn other_objects() {
    let service = |spec: Value, expected: &str| usage("", "services", json!({"spec": spec}), expected);
    let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
    service(json!({"type": "ClusterIP", "ports": ports}), "count/services=1,services=1");
    service(json!({"type": "NodePort", "ports": ports}), "count/services=1,services=1,services.nodeports=2");
    service(
        json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false}),
        "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1",
    );
    usage(
        "",
        "persistentvolumeclaims",
        json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}, "status": {"allocatedResources": {"storage": "2Gi"}}}),
        "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         gold.storageclass.storage.k8s.io/requests.storage=2Gi,persistentvolumeclaims=1,requests.storage=2Gi",
    );
    usage("", "secrets", json!({}), "count/secrets=1,secrets=1");
    usage("batch", "jobs", json!({}), "count/jobs.batch=1");
    let exactly =
        |class: &str, count: i64| json!({"deviceClassName": class, "allocationMode": "ExactCount", "count": count});
    usage(
        "resource.k8s.io",
        "resourceclaims",
        json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": exactly("gpu", 2)},
            {"name": "b", "firstAvailable": [exactly("gpu", 1), exactly("gpu", 3), {"deviceClassName": "net", "allocationMode": "All"}]},
        ]}}}),
        "count/resourceclaims.resource.k8s.io=1,gpu.deviceclass.resource.k8s.io/devices=5,\
         net.deviceclass.resource.k8s.io/devices=32",
    );
}

fn quota(spec: Value) -> Quota {
    let hard = spec["hard"].clone();
    Quota::of(&json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": {"pods": "1"}}}))
}

#[test]
fn scopes() {
    let matches = |scopes: Value, selector: Value, spec: Value| {
        let quota =
            quota(json!({"hard": {"pods": "2"}, "scopes": scopes, "scopeSelector": {"matchExpressions": selector}}));
        quota.matches(&Evaluator::Pods, &json!({"spec": spec}))
    };
    let plain = json!({"containers": [{"name": "a"}]});
    let mut more = json!({"containers": [container("a", json!({"cpu": "1"}), json!({}))], "activeDeadlineSeconds": 1, "priorityClassName": "high"});
    more["affinity"] =
        json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["x"]}]}});
    let table = [
        ("Terminating", false, true),
        ("NotTerminating", true, false),
        ("BestEffort", true, false),
        ("NotBestEffort", false, true),
        ("PriorityClass", false, true),
        ("CrossNamespacePodAffinity", false, true),
        ("VolumeAttributesClass", false, false),
    ];
    for (scope, of_plain, of_more) in table {
        assert_eq!(matches(json!([scope]), json!([]), plain.clone()), of_plain, "{scope}");
        assert_eq!(matches(json!([scope]), json!([]), more.clone()), of_more, "{scope}");
    }
    let class =
        |operator: &str, values: Value| json!([{"scopeName": "PriorityClass", "operator": operator, "values": values}]);
    assert!(matches(json!([]), class("In", json!(["high"])), more.clone()));
    assert!(!matches(json!([]), class("NotIn", json!(["high"])), more.clone()));
    assert!(matches(json!([]), class("NotIn", json!(["high"])), plain.clone()));
    assert!(matches(json!([]), class("DoesNotExist", json!([])), plain.clone()));
    assert!(!matches(json!(["BestEffort"]), class("In", json!(["high"])), more));
    // Nothing of what it limits is about pods.
    assert!(!quota(json!({"hard": {"services": "1"}})).matches(&Evaluator::Pods, &json!({"spec": plain})));
    let claims = quota(json!({"hard": {"requests.storage": "1"}, "scopes": ["VolumeAttributesClass"]}));
    assert!(claims.matches(&Evaluator::VolumeClaims, &json!({"spec": {"volumeAttributesClassName": "fast"}})));
    assert!(!claims.matches(&Evaluator::VolumeClaims, &json!({"spec": {}})));
}

#[test]
fn charges() {
    let mut quota = quota(json!({"hard": {"pods": "2", "requests.cpu": "1"}}));
    let now: Timestamp = NOW.parse().unwrap();
    let pod = json!({"spec": {"containers": [container("a", json!({"cpu": "600m"}), json!({}))]}});
    let usage = Evaluator::Pods.usage(&pod, now);
    quota.charge(&usage, true).unwrap();
    assert_eq!(show(quota.used.iter()), "pods=2,requests.cpu=600m");
    assert_eq!(
        quota.charge(&usage, true).unwrap_err(),
        "exceeded quota: q, requested: pods=1,requests.cpu=600m, used: pods=2,requests.cpu=600m, limited: pods=2,requests.cpu=1"
    );
    assert_eq!(show(quota.used.iter()), "pods=2,requests.cpu=600m");
    quota.charge(&usage, false).unwrap();
    assert_eq!(show(quota.used.iter()), "pods=3,requests.cpu=1200m");
}

#[test]
fn what_is_limited_must_be_stated() {
    let missing = |names: &[&str], pod: Value| Evaluator::Pods.missing(names.iter().copied(), &pod);
    let pod = json!({"spec": {"containers": [{"name": "b"}, container("a", json!({"cpu": "1"}), json!({}))]}});
    assert_eq!(
        missing(&["requests.cpu", "limits.memory", "requests.ephemeral-storage", "pods"], pod.clone()).as_deref(),
        Some("must specify limits.memory for: a,b; requests.cpu for: b")
    );
    let mut whole = pod;
    whole["spec"]["resources"] = json!({"requests": {"cpu": "1"}});
    assert_eq!(missing(&["limits.memory"], whole), None);
}
