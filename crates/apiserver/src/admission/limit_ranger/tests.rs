use serde_json::{Value, json};

use super::Limits;

fn limits(limit: Value) -> Limits {
    Limits::of(&json!({"spec": {"limits": [limit]}}))
}

fn pod(containers: Value, init: Value) -> Value {
    json!({"metadata": {}, "spec": {"containers": containers, "initContainers": init}})
}

fn container(requests: Value, limits: Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
}

#[test]
fn defaults_are_filled_in_and_told() {
    let limits = limits(json!({
        "type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "500m", "memory": "512Mi"},
    }));
    let mut pod =
        pod(json!([{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "2"}}}]), json!([{"name": "i"}]));
    limits.fill_in(&mut pod);
    let all = json!({"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
    assert_eq!(pod["spec"]["containers"][0]["resources"], all);
    assert_eq!(pod["spec"]["initContainers"][0]["resources"], all);
    assert_eq!(pod["spec"]["containers"][1]["resources"]["limits"], json!({"cpu": "2", "memory": "1Gi"}));
    assert_eq!(
        pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for container a; \
         cpu, memory request for container b; memory limit for container b; cpu, memory request for init container i; \
         cpu, memory limit for init container i"
    );
    let before = pod.clone();
    limits.fill_in(&mut pod);
    assert_eq!(pod, before);
    // Nothing else is touched.
    let mut one = json!({"metadata": {}, "spec": {"containers": []}});
    limits.fill_in(&mut one);
    assert_eq!(one, json!({"metadata": {}, "spec": {"containers": []}}));
}

#[test]
fn pods_stay_within_limits() {
    let check = |limit: Value, pod: Value, expected: &str| {
        assert_eq!(limits(limit).judge_pod(&pod).join("; "), expected, "{pod}");
    };
    let of = |kind: &str, rest: Value| {
        let mut limit = rest;
        limit["type"] = kind.into();
        limit
    };
    let one = |requests: Value, limits: Value| pod(json!([container(requests, limits)]), json!([]));
    let min = || json!({"min": {"cpu": "100m"}});
    check(of("Container", min()), one(json!({"cpu": "100m"}), json!({})), "");
    check(
        of("Container", min()),
        one(json!({}), json!({})),
        "minimum cpu usage per Container is 100m.  No request is specified",
    );
    check(
        of("Container", min()),
        one(json!({"cpu": "50m"}), json!({})),
        "minimum cpu usage per Container is 100m, but request is 50m",
    );
    let max = || json!({"max": {"memory": "1Gi"}});
    check(of("Container", max()), one(json!({}), json!({"memory": "1Gi"})), "");
    check(
        of("Container", max()),
        one(json!({}), json!({})),
        "maximum memory usage per Container is 1Gi.  No limit is specified",
    );
    check(
        of("Container", max()),
        one(json!({}), json!({"memory": "2Gi"})),
        "maximum memory usage per Container is 1Gi, but limit is 2Gi",
    );
    let ratio = || json!({"maxLimitRequestRatio": {"cpu": "2"}});
    check(of("Container", ratio()), one(json!({"cpu": "1"}), json!({"cpu": "2"})), "");
    check(
        of("Container", ratio()),
        one(json!({"cpu": "400m"}), json!({"cpu": "1"})),
        "cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000",
    );
    check(
        of("Container", ratio()),
        one(json!({}), json!({"cpu": "1"})),
        "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
    );
    let two = pod(
        json!([
            container(json!({"cpu": "1"}), json!({"cpu": "1"})),
            container(json!({"cpu": "1"}), json!({"cpu": "1"}))
        ]),
        json!([container(json!({"cpu": "3"}), json!({"cpu": "3"}))]),
    );
    check(of("Pod", json!({"max": {"cpu": "3"}})), two.clone(), "");
    check(of("Pod", json!({"max": {"cpu": "2"}})), two.clone(), "maximum cpu usage per Pod is 2, but limit is 3");
    // What was given before a resize does not count.
    let mut resized = two.clone();
    let given = json!({"requests": {"cpu": "8"}, "limits": {"cpu": "8"}});
    resized["status"] =
        json!({"containerStatuses": [{"name": "c", "resources": given, "allocatedResources": {"cpu": "8"}}]});
    check(of("Pod", json!({"max": {"cpu": "3"}})), resized, "");
    let mut whole = two;
    whole["spec"]["resources"] = json!({"limits": {"cpu": "4"}});
    check(of("Pod", json!({"max": {"cpu": "3"}})), whole, "maximum cpu usage per Pod is 3, but limit is 4");
}

#[test]
fn claims_stay_within_limits() {
    let limits = limits(json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}));
    let judge =
        |size: &str| limits.judge_claim(&json!({"spec": {"resources": {"requests": {"storage": size}}}})).join("; ");
    assert_eq!(judge("1500Mi"), "");
    assert_eq!(judge("1Mi"), "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi");
    assert_eq!(judge("3Gi"), "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi");
}
