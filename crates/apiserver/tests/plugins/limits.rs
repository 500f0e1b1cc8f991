use serde_json::{Value, json};

use super::{pod, refused, start};
use crate::support::Api;

const PODS: &str = "POST /api/v1/namespaces/team/pods";

async fn limit(api: &Api, limit: Value) {
    let name = limit["type"].as_str().unwrap().to_lowercase();
    let range = json!({"metadata": {"name": name}, "spec": {"limits": [limit]}});
    api.ok("POST /api/v1/namespaces/team/limitranges", range).await;
}

fn sized(name: &str, requests: Value, limits: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": requests, "limits": limits});
    pod
}

#[tokio::test]
async fn pods_get_defaults_and_stay_within_limits() {
    let (_server, api) = start(json!({})).await;
    limit(&api, json!({"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}})).await;
    let made = api.ok(PODS, pod("a")).await;
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let large = sized("b", json!({}), json!({"cpu": "2"}));
    let said = "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
    refused(&api, PODS, large, 403, said).await;
    limit(&api, json!({"type": "Pod", "max": {"memory": "1Gi"}})).await;
    let two = sized("b", json!({}), json!({"cpu": "2", "memory": "2Gi"}));
    // The first range that objects decides.
    refused(&api, PODS, two, 403, said).await;
    let greedy = sized("b", json!({}), json!({"memory": "2Gi"}));
    refused(&api, PODS, greedy, 403, "pods \"b\" is forbidden: maximum memory usage per Pod is 1Gi, but limit is 2Gi")
        .await;
    let small = sized("b", json!({}), json!({"memory": "512Mi"}));
    api.ok(PODS, small).await;
    let resize = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "3"}}}]}});
    let (code, status) = api.call("PATCH+strategic /api/v1/namespaces/team/pods/b/resize", resize).await;
    assert_eq!(code, 403, "{status}");
    // Gone with the range.
    api.ok("DELETE /api/v1/namespaces/team/limitranges/container", Value::Null).await;
    let made = api.ok(PODS, sized("c", json!({}), json!({"memory": "1Mi", "cpu": "7"}))).await;
    assert_eq!(made["metadata"].get("annotations"), None);
}

#[tokio::test]
async fn claims_stay_within_limits() {
    let (_server, api) = start(json!({})).await;
    limit(&api, json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}})).await;
    let claim = |size: &str| json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
    let claims = "POST /api/v1/namespaces/team/persistentvolumeclaims";
    let said = "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi";
    refused(&api, claims, claim("2Gi"), 403, said).await;
    api.ok(claims, claim("1Gi")).await;
}
