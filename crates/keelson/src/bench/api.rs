//! Requests a second over TLS, from one client process that shares the machine with the server.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use http::Request;
use serde_json::{Value, json};

use super::{Figure, Row, millis};
use crate::cli::Failure;

const IN_FLIGHT: usize = 32;
const OBJECTS: usize = 10_000;
const ALONE: usize = 1000;
const GETS: usize = 50_000;
const LISTS: usize = 10;
const NAMESPACE: &str = "bench";

/// Runs each load and prints its row.
pub(super) async fn rates(client: &kube::Client, print: impl Fn(Row)) -> Result<(), Failure> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    send(client, "POST", "/api/v1/namespaces", Some(namespace)).await?;
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let row = |what, least, measured| Row { what, budget: Figure::PerSecond(least), measured };

    let measured = load(OBJECTS, IN_FLIGHT, |i| send(client, "POST", &maps, Some(config_map(i)))).await?;
    print(row("API: create a 1 KiB ConfigMap, 32 in flight", 5000.0, measured));
    let measured = load(ALONE, 1, |i| send(client, "POST", &maps, Some(config_map(OBJECTS + i)))).await?;
    print(row("API: create a 1 KiB ConfigMap, 1 in flight", 1500.0, measured));
    let patch = |i: usize| {
        let path = format!("{maps}/bench-{}", i % OBJECTS);
        async move { send(client, "PATCH", &path, Some(json!({"data": {"n": i.to_string()}}))).await }
    };
    print(row("API: merge patch, 32 in flight", 5000.0, load(OBJECTS, IN_FLIGHT, patch).await?));
    let path = format!("{maps}/bench-1");
    let measured = load(GETS, IN_FLIGHT, |_| send(client, "GET", &path, None)).await?;
    print(row("API: GET one object, 32 in flight", 25_000.0, measured));
    let measured = load(OBJECTS, IN_FLIGHT, |i| send(client, "POST", &pods, Some(pod(i)))).await?;
    print(row("API: create a realistic pod, 32 in flight", 5000.0, measured));

    let mut took = Vec::new();
    for _ in 0..LISTS {
        let start = Instant::now();
        send(client, "GET", &pods, None).await?;
        took.push(start.elapsed());
    }
    took.sort();
    let median = took.get(LISTS / 2).copied().unwrap_or(Duration::MAX);
    print(Row { what: "API: LIST 10,000 pods (median)", budget: Figure::Millis(30.0), measured: millis(median) });

    for path in [&pods, &maps] {
        send(client, "DELETE", &format!("{path}?gracePeriodSeconds=0"), None).await?;
    }
    Ok(())
}

/// Operations a second.
async fn load<F>(count: usize, in_flight: usize, operation: impl Fn(usize) -> F) -> Result<f64, Failure>
where
    F: Future<Output = Result<usize, Failure>>,
{
    let start = Instant::now();
    futures::stream::iter(0..count)
        .map(operation)
        .buffer_unordered(in_flight)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Sends a request and reads the whole answer; returns its size in bytes.
async fn send(client: &kube::Client, method: &str, path: &str, body: Option<Value>) -> Result<usize, Failure> {
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header("content-type", content_type).body(body.into())?;
    let response = client.send(request).await?;
    let status = response.status();
    let mut body = response.into_body();
    let mut size = 0;
    let mut text = Vec::new();
    while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
        let frame = frame?;
        let data = frame.data_ref().map(|d| d.as_ref()).unwrap_or_default();
        size += data.len();
        if !status.is_success() {
            text.extend_from_slice(data);
        }
    }
    if status.is_success() { Ok(size) } else { Err(format!("{status}: {}", String::from_utf8_lossy(&text)).into()) }
}

fn config_map(index: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("bench-{index}")},
        "data": {"text": "x".repeat(900)}})
}

/// About 3 KiB when stored. No scheduler serves it.
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
