//! Many watchers on one resource: how long a change takes to reach them all, and what a delivery costs the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::process::Server;
use super::request::{open, send};
use super::{Figure, Row, Size, millis, thousands};
use crate::cli::Failure;

/// Between two changes: 20 a second.
const PACE: Duration = Duration::from_millis(50);
const CHANGES: usize = 200;
const CONNECTING: usize = 32;
const PATH: &str = "/api/v1/namespaces/default/configmaps";
const OBJECT: &str = "bench-watched";
/// Stands before the time at which a change was sent.
const SENT: &[u8] = b"\"sent\":\"";

/// 500, then 1,000 watchers.
pub(super) async fn deliveries(
    client: &kube::Client,
    server: &Server,
    size: Size,
    print: impl Fn(Row),
) -> Result<(), Failure> {
    let start = Instant::now();
    send(client, "POST", PATH, Some(json!({"metadata": {"name": OBJECT}}))).await?;
    // What the changes cost by themselves.
    let alone = change(client, server, start).await?;
    for watchers in [500, 1000].map(|full| size.of(full)) {
        let many = thousands(watchers);
        let (mut latencies, cpu) = watched(client, server, start, watchers).await?;
        print(Row::new(
            format!("API: {many} watchers, 20 changes/s: delivery p99"),
            Figure::Millis(5.0),
            millis(ninety_nine(&mut latencies)),
        ));
        let used = cpu.saturating_sub(alone).as_secs_f64();
        let measured = used * 1e6 / latencies.len().max(1) as f64;
        print(Row::new(format!("API: {many} watchers: CPU per delivery"), Figure::Micros(5.0), measured));
    }
    send(client, "DELETE", &format!("{PATH}/{OBJECT}"), None).await?;
    Ok(())
}

/// How long a change takes to reach so many watchers, all but one in a hundred times.
pub(super) async fn p99(client: &kube::Client, server: &Server, watchers: usize) -> Result<Duration, Failure> {
    send(client, "POST", PATH, Some(json!({"metadata": {"name": OBJECT}}))).await?;
    let (mut latencies, _) = watched(client, server, Instant::now(), watchers).await?;
    send(client, "DELETE", &format!("{PATH}/{OBJECT}"), None).await?;
    Ok(ninety_nine(&mut latencies))
}

fn ninety_nine(latencies: &mut [Duration]) -> Duration {
    latencies.sort_unstable();
    latencies.get(latencies.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(Duration::MAX)
}

/// Makes the changes; returns the server's processor time meanwhile.
async fn change(client: &kube::Client, server: &Server, start: Instant) -> Result<Duration, Failure> {
    let before = server.cpu()?;
    let mut tick = tokio::time::interval(PACE);
    let path = format!("{PATH}/{OBJECT}");
    for _ in 0..CHANGES {
        tick.tick().await;
        let sent = start.elapsed().as_nanos().to_string();
        send(client, "PATCH", &path, Some(json!({"data": {"sent": sent}}))).await?;
    }
    Ok(server.cpu()?.saturating_sub(before))
}

/// Every delivery's time from the sending of the change, and the server's processor time.
async fn watched(
    client: &kube::Client,
    server: &Server,
    start: Instant,
    count: usize,
) -> Result<(Vec<Duration>, Duration), Failure> {
    let (stop, seen) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let path = format!("{PATH}?watch=1&fieldSelector=metadata.name%3D{OBJECT}&resourceVersion=");
    let list = send_text(client, &format!("{PATH}/{OBJECT}")).await?;
    let revision = list.split("\"resourceVersion\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let path = format!("{path}{}", revision.ok_or("an object without resourceVersion")?);
    let bodies: Vec<_> = futures::stream::iter(0..count)
        .map(|_| open(client, "GET", &path, None))
        .buffer_unordered(CONNECTING)
        .collect()
        .await;
    let mut watchers = Vec::new();
    for body in bodies {
        watchers.push(tokio::spawn(watcher(body?.into_body(), start, stop.clone(), seen.clone())));
    }
    let cpu = change(client, server, start).await?;
    let all = async {
        while seen.load(Ordering::Relaxed) < CHANGES * count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let late = tokio::time::timeout(Duration::from_secs(10), all).await.is_err();
    stop.cancel();
    let mut latencies = Vec::with_capacity(CHANGES * count);
    for watcher in watchers {
        latencies.extend(watcher.await?);
    }
    if late {
        return Err(format!("{} of {} deliveries came", latencies.len(), CHANGES * count).into());
    }
    Ok((latencies, cpu))
}

async fn watcher(
    mut body: kube::client::Body,
    start: Instant,
    stop: CancellationToken,
    seen: Arc<AtomicUsize>,
) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(CHANGES);
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let frame = tokio::select! {
            () = stop.cancelled() => return latencies,
            frame = body.frame() => frame,
        };
        let Some(Ok(frame)) = frame else { return latencies };
        let now = start.elapsed();
        rest.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref));
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Some(sent) = sent_at(&line) {
                latencies.push(now.saturating_sub(sent));
                seen.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn sent_at(line: &[u8]) -> Option<Duration> {
    let at = line.windows(SENT.len()).position(|window| window == SENT)? + SENT.len();
    let digits = line.get(at..)?.split(|b| *b == b'"').next()?;
    Some(Duration::from_nanos(std::str::from_utf8(digits).ok()?.parse().ok()?))
}

async fn send_text(client: &kube::Client, path: &str) -> Result<String, Failure> {
    let body = open(client, "GET", path, None).await?.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}
