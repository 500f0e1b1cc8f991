//! `pods/eviction` and disruption budgets.

mod support;

use serde_json::{Value, json};
use support::{Api, TestServer};

const EVICTION: &str = "POST /api/v1/namespaces/default/pods/web/eviction";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A running pod, ready or not, that a budget counts.
async fn pod(api: &Api, ready: bool) {
    let pod = json!({
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30, "containers": [{"name": "c", "image": "i"}]},
    });
    api.ok("POST /api/v1/namespaces/default/pods", pod).await;
    let condition = json!({"type": "Ready", "status": if ready { "True" } else { "False" }});
    let status = json!({"status": {"phase": "Running", "conditions": [condition]}});
    api.ok("PATCH+merge /api/v1/namespaces/default/pods/web/status", status).await;
}

async fn budget(api: &Api, name: &str, spec: Value, status: Value) {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    api.ok(&format!("POST {BUDGETS}"), json!({"metadata": {"name": name}, "spec": spec})).await;
    api.ok(&format!("PATCH+merge {BUDGETS}/{name}/status"), json!({"status": status})).await;
}

async fn start() -> (TestServer, Api) {
    let server = TestServer::start().await;
    let api = server.admin();
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    (server, api)
}

#[tokio::test]
async fn budgets_are_honoured() {
    let (_server, api) = start().await;
    pod(&api, true).await;
    budget(&api, "web", json!({"minAvailable": 1}), json!({"desiredHealthy": 1, "currentHealthy": 1})).await;
    let (code, refused) = api.call(EVICTION, json!({})).await;
    assert_eq!((code, refused["details"]["retryAfterSeconds"].as_i64()), (429, Some(10)), "{refused}");

    let observed = json!({"status": {"observedGeneration": 1}});
    api.ok(&format!("PATCH+merge {BUDGETS}/web/status"), observed).await;
    let (code, refused) = api.call(EVICTION, json!({})).await;
    assert_eq!((code, refused["reason"].as_str()), (429, Some("TooManyRequests")), "{refused}");
    assert_eq!(refused["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "DisruptionBudget", "message": "The disruption budget web needs 1 healthy pods and has 1 currently"}])
    );

    api.ok(&format!("PATCH+merge {BUDGETS}/web/status"), json!({"status": {"disruptionsAllowed": 1}})).await;
    api.ok(&format!("{EVICTION}?dryRun=All"), json!({})).await;
    let unchanged = api.ok(&format!("GET {BUDGETS}/web"), Value::Null).await;
    assert_eq!(unchanged["status"]["disruptionsAllowed"], 1);
    api.ok(EVICTION, json!({"metadata": {"name": "web"}})).await;
    let taken = api.ok(&format!("GET {BUDGETS}/web"), Value::Null).await;
    assert_eq!(taken["status"]["disruptionsAllowed"], 0);
    assert!(taken["status"]["disruptedPods"]["web"].is_string(), "{taken}");
    let pod = api.ok("GET /api/v1/namespaces/default/pods/web", Value::Null).await;
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    let marked = pod["status"]["conditions"].as_array().unwrap().iter().any(|c| c["reason"] == "EvictionByEvictionAPI");
    assert!(marked, "{pod}");
}

#[tokio::test]
async fn some_pods_need_no_budget() {
    let (_server, api) = start().await;
    // Pending.
    let pending = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    budget(&api, "web", json!({"minAvailable": 1}), json!({"observedGeneration": 1})).await;
    api.ok("POST /api/v1/namespaces/default/pods", pending).await;
    api.ok(EVICTION, json!({})).await;
    assert_eq!(api.call("GET /api/v1/namespaces/default/pods/web", Value::Null).await.0, 404);
    // Not ready, which the budget lets go.
    pod(&api, false).await;
    assert_eq!(api.call(EVICTION, json!({})).await.0, 429);
    let policy = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}});
    api.ok(&format!("PATCH+merge {BUDGETS}/web"), policy).await;
    api.ok(EVICTION, json!({})).await;
    api.ok("DELETE /api/v1/namespaces/default/pods/web", json!({"gracePeriodSeconds": 0})).await;
    // Two budgets are one too many.
    pod(&api, true).await;
    budget(&api, "second", json!({"maxUnavailable": 1}), json!({"observedGeneration": 1})).await;
    let (code, refused) = api.call(EVICTION, json!({})).await;
    assert_eq!(code, 500);
    assert_eq!(
        refused["message"],
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    );
    // What the client insists on must hold.
    let (code, refused) = api.call(EVICTION, json!({"deleteOptions": {"preconditions": {"uid": "x"}}})).await;
    assert_eq!(code, 500, "{refused}");
    api.ok(&format!("DELETE {BUDGETS}/second"), Value::Null).await;
    api.ok(&format!("DELETE {BUDGETS}/web"), Value::Null).await;
    let (code, refused) = api.call(EVICTION, json!({"deleteOptions": {"preconditions": {"uid": "x"}}})).await;
    assert_eq!(code, 409, "{refused}");
    api.ok(EVICTION, json!({})).await;
}
