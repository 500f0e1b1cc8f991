//! Built-in admission plugins, over a real store.

#[path = "plugins/classes.rs"]
mod classes;
#[path = "plugins/limits.rs"]
mod limits;
#[path = "plugins/pod_security.rs"]
mod pod_security;
#[path = "plugins/quota.rs"]
mod quota;
#[path = "plugins/settings.rs"]
mod settings;
mod support;

use serde_json::{Value, json};
use support::{Api, TestServer};

/// A server, and in it a namespace `team` with these labels, where pods can be made.
async fn start(labels: Value) -> (TestServer, Api) {
    let server = TestServer::start().await;
    let api = server.admin();
    namespace(&api, "team", labels).await;
    (server, api)
}

async fn namespace(api: &Api, name: &str, labels: Value) {
    api.ok("POST /api/v1/namespaces", json!({"metadata": {"name": name, "labels": labels}})).await;
    let account = json!({"metadata": {"name": "default"}});
    api.ok(&format!("POST /api/v1/namespaces/{name}/serviceaccounts"), account).await;
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// A request that must fail with this code and exactly this message.
async fn refused(api: &Api, request: &str, body: Value, code: u16, message: &str) {
    let (got, status) = api.call(request, body.clone()).await;
    assert_eq!((got, status["message"].as_str()), (code, Some(message)), "{request} {body}\n{status}");
}
