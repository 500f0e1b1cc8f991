//! 100,000 objects: what each needs of memory, without and with watchers.

use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::process::Server;
use super::request::{load, open, send};
use super::{Figure, Row, Size, thousands};
use crate::cli::Failure;

const OBJECTS: usize = 100_000;
const IN_FLIGHT: usize = 32;
const WATCHERS: usize = 100;
/// Changes that the watchers see.
const CHANGES: usize = 1000;
/// Until freed memory has gone back.
const SETTLE: Duration = Duration::from_secs(3);
const PATH: &str = "/api/v1/namespaces/bench-scale/configmaps";

/// Leaves the objects in the store, and says how many.
pub(super) async fn memory(
    client: &kube::Client,
    server: &Server,
    size: Size,
    print: impl Fn(Row),
) -> Result<usize, Failure> {
    let objects = size.of(OBJECTS);
    let namespace = json!({"metadata": {"name": "bench-scale"}});
    send(client, "POST", "/api/v1/namespaces", Some(namespace)).await?;
    let before = server.resident_mib()?;
    let create = |i: usize| {
        let object = json!({"metadata": {"name": format!("object-{i}"), "labels": {"app": "bench"}},
            "data": {"text": "x".repeat(900)}});
        send(client, "POST", PATH, Some(object))
    };
    load(objects, IN_FLIGHT, create).await?;
    tokio::time::sleep(SETTLE).await;
    let json_mib = send(client, "GET", PATH, None).await?.bytes as f64 / 1_048_576.0;
    let times = |resident: f64| (resident - before) / json_mib;
    let budget = Figure::Times(1.5);
    let measured = times(server.resident_mib()?);
    print(Row::new(format!("API: memory per stored object, of {}, by its JSON", thousands(objects)), budget, measured));

    let path = format!("{PATH}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan");
    let watchers: Vec<_> = futures::stream::iter(0..WATCHERS)
        .map(|_| open(client, "GET", &path, None))
        .buffer_unordered(IN_FLIGHT)
        .collect()
        .await;
    let mut readers = tokio::task::JoinSet::new();
    for watcher in watchers {
        let mut body = watcher?.into_body();
        readers.spawn(async move { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} });
    }
    let patch = |i: usize| {
        let path = format!("{PATH}/object-{}", i % objects);
        async move { send(client, "PATCH", &path, Some(json!({"data": {"n": "1"}}))).await }
    };
    let changes = size.of(CHANGES);
    load(changes, IN_FLIGHT, patch).await?;
    let measured = times(server.resident_mib()?);
    print(Row::new(
        format!("API: the same with 100 watchers that see {} changes", thousands(changes)),
        budget,
        measured,
    ));
    readers.shutdown().await;
    Ok(objects)
}
