//! Requests a second over TLS, from one client process that shares the machine with the server, and what they cost it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::process::Server;
use super::request::{load, send};
use super::{Figure, NO_BUDGET, Row, Size, millis, thousands};
use crate::cli::Failure;

const IN_FLIGHT: usize = 32;
const OBJECTS: usize = 10_000;
const ALONE: usize = 1000;
const GETS: usize = 50_000;
const LISTS: usize = 10;
/// Clients that list at once, and how often each does.
const LISTERS: usize = 16;
const LISTS_AT_ONCE: usize = 3;
const NAMESPACE: &str = "bench";

/// Runs each load and prints its rows.
pub(super) async fn rates(
    client: &kube::Client,
    server: &Server,
    size: Size,
    print: impl Fn(Row),
) -> Result<(), Failure> {
    let (objects, gets) = (size.of(OBJECTS), size.of(GETS));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    send(client, "POST", "/api/v1/namespaces", Some(namespace)).await?;
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let row = |what, least, measured| Row::new(what, Figure::PerSecond(least), measured);
    // The whole control plane's time: controllers and scheduler see every change, too.
    let cost = |what, before: Duration, count: usize| {
        let used = server.cpu()?.saturating_sub(before);
        let measured = used.as_secs_f64() * 1e6 / count as f64;
        Ok::<_, Failure>(Row::new(what, Figure::Micros(NO_BUDGET), measured))
    };

    let before = server.cpu()?;
    let measured = load(objects, IN_FLIGHT, |i| send(client, "POST", &maps, Some(config_map(i)))).await?;
    print(row("API: create a 1 KiB ConfigMap, 32 in flight", 5000.0, measured));
    print(cost("API: CPU of one such create", before, objects)?);
    let measured = load(size.of(ALONE), 1, |i| send(client, "POST", &maps, Some(config_map(objects + i)))).await?;
    print(row("API: create a 1 KiB ConfigMap, 1 in flight", 1500.0, measured));
    let patch = |i: usize| {
        let path = format!("{maps}/bench-{}", i % objects);
        async move { send(client, "PATCH", &path, Some(json!({"data": {"n": i.to_string()}}))).await }
    };
    let before = server.cpu()?;
    print(row("API: merge patch, 32 in flight", 5000.0, load(objects, IN_FLIGHT, patch).await?));
    print(cost("API: CPU of one such patch", before, objects)?);
    let path = format!("{maps}/bench-1");
    let before = server.cpu()?;
    let measured = load(gets, IN_FLIGHT, |_| send(client, "GET", &path, None)).await?;
    print(row("API: GET one object, 32 in flight", 25_000.0, measured));
    print(cost("API: CPU of one such GET", before, gets)?);
    let before = server.cpu()?;
    let measured = load(objects, IN_FLIGHT, |i| send(client, "POST", &pods, Some(pod(i)))).await?;
    print(row("API: create a realistic pod, 32 in flight", 5000.0, measured));
    print(cost("API: CPU of one such create of a pod", before, objects)?);
    lists(client, server, &pods, &thousands(objects), &print).await?;
    for path in [&pods, &maps] {
        send(client, "DELETE", &format!("{path}?gracePeriodSeconds=0"), None).await?;
    }
    Ok(())
}

async fn lists(
    client: &kube::Client,
    server: &Server,
    pods: &str,
    count: &str,
    print: &impl Fn(Row),
) -> Result<(), Failure> {
    let mut answers = Vec::new();
    let before = server.cpu()?;
    for _ in 0..LISTS {
        answers.push(send(client, "GET", pods, None).await?);
    }
    let cpu = server.cpu()?.saturating_sub(before);
    answers.sort_by_key(|answer| answer.total);
    let Some(median) = answers.get(LISTS / 2) else { return Ok(()) };
    let (total, budget) = (millis(median.total), Figure::Millis(30.0));
    print(Row::new(format!("API: LIST {count} pods (median)"), budget, total));
    let (first, budget) = (millis(median.first), Figure::Millis(NO_BUDGET));
    print(Row::new(format!("API: LIST {count} pods, to the first byte"), budget, first));
    let rate = median.bytes as f64 / 1_048_576.0 / median.total.as_secs_f64();
    print(Row::new(format!("API: LIST {count} pods, throughput"), Figure::MibPerSecond(0.0), rate));
    let measured = millis(cpu) / LISTS as f64;
    print(Row::new(format!("API: LIST {count} pods, CPU"), Figure::Millis(NO_BUDGET), measured));

    let before = server.resident_mib()?;
    let over = Arc::new(AtomicBool::new(false));
    let watch = async {
        let mut most = before;
        while !over.load(Ordering::Relaxed) {
            most = most.max(server.resident_mib()?);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok::<_, Failure>(most)
    };
    let list = async {
        let result = load(LISTERS * LISTS_AT_ONCE, LISTERS, |_| send(client, "GET", pods, None)).await;
        over.store(true, Ordering::Relaxed);
        result
    };
    let (most, _) = tokio::try_join!(watch, list)?;
    let measured = most - before;
    print(Row::new(format!("API: extra memory while 16 clients list {count} pods"), Figure::Mib(32.0), measured));
    Ok(())
}

pub(super) fn config_map(index: usize) -> Value {
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
