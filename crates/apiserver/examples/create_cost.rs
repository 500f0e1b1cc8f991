//! What writes cost the API server itself: no socket, no TLS, one thread, a store in DIR.
//! `cargo run --release --example create_cost -- DIR [N]` prints microseconds of CPU for each operation.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use keelson_apiserver::{ApiServer, Config, InProcess, UserInfo};
use keelson_store::{LocalStore, Options};
use serde_json::{Value, json};
use tower::Service;

const MAPS: &str = "/api/v1/namespaces/bench/configmaps";
const PODS: &str = "/api/v1/namespaces/bench/pods";

fn main() {
    let usage = "usage: create_cost DIR [N]";
    let mut args = std::env::args().skip(1);
    let dir = std::path::PathBuf::from(args.next().expect(usage));
    let count: usize = args.next().map_or(5000, |n| n.parse().expect(usage));
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(&dir, count));
}

async fn run(dir: &std::path::Path, count: usize) {
    let store = Arc::new(LocalStore::open(dir, Options::default()).unwrap());
    let server = ApiServer::new(Config::default(), store).await.unwrap();
    let service = server.service_for(UserInfo::new("bench", ["system:masters"]));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    send(&service, "POST", "/api/v1/namespaces".into(), &namespace).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    send(&service, "POST", "/api/v1/namespaces/bench/serviceaccounts".into(), &account).await;
    measure("create a ConfigMap", count, async |i| send(&service, "POST", MAPS.into(), &config_map(i)).await).await;
    let patch = async |i: usize| {
        send(&service, "PATCH", format!("{MAPS}/bench-{i}"), &json!({"data": {"n": i.to_string()}})).await;
    };
    measure("first merge patch", count, patch).await;
    measure("merge patch again", count, async |i| {
        send(&service, "PATCH", format!("{MAPS}/bench-{i}"), &json!({"data": {"n": format!("again {i}")}})).await;
    })
    .await;
    measure("create a pod", count, async |i| send(&service, "POST", PODS.into(), &pod(i)).await).await;
    measure("patch a pod's status", count, async |i| {
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        send(&service, "PATCH", format!("{PODS}/bench-{i}/status"), &status).await;
    })
    .await;
}

async fn measure(what: &str, count: usize, operation: impl AsyncFn(usize)) {
    let before = cpu_ticks();
    for i in 0..count {
        operation(i).await;
    }
    // A tick is a hundredth of a second wherever Linux runs.
    let used = (cpu_ticks() - before) * 10_000;
    println!("{what}: {:.1} us", used as f64 / count as f64);
}

/// User and system time of the process.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum()
}

async fn send(service: &InProcess, method: &str, path: String, body: &Value) {
    let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = Full::new(Bytes::from(serde_json::to_vec(body).unwrap()));
    let request = Request::builder().method(method).uri(path).header("content-type", media_type).body(body).unwrap();
    let response = service.clone().call(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
}

fn config_map(index: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("bench-{index}")},
        "data": {"text": "x".repeat(900)}})
}

/// The pod of `keelson bench`.
fn pod(index: usize) -> Value {
    let container = |name: &str| {
        json!({"name": name, "image": format!("registry.example/team/{name}:1.2.3"), "args": ["--verbose", "--port=8080"],
            "env": (0..8).map(|i| json!({"name": format!("SETTING_{i}"), "value": "a value of some length"})).collect::<Vec<_>>(),
            "ports": [{"containerPort": 8080, "name": format!("{name}-http")}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5}})
    };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("bench-{index}"), "labels": {"app": "bench", "tier": "back", "version": "1"},
            "annotations": {"example.com/checksum": "0123456789abcdef0123456789abcdef"}},
        "spec": {"schedulerName": "nobody", "containers": [container("web"), container("log")]}})
}
