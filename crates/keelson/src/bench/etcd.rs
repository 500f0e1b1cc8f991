//! The API on etcd beside the server's own store, and three servers over one etcd: processes without nodes, each on a loopback
//! address of its own, with their data in the same place.

use std::process::{Command, Stdio};
use std::time::Duration;

use keelson_store::etcd::process::Etcd;
use serde_json::json;

use super::request::{load, send};
use super::scratch::Scratch;
use super::standalone::Process;
use super::{Figure, NO_BUDGET, Row, Size, api, millis, thousands, watch};
use crate::cli::Failure;

const OBJECTS: usize = 10_000;
const IN_FLIGHT: usize = 32;
const LISTS: usize = 10;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Prints the rows, or why there are none.
pub(super) async fn beside(size: Size, print: impl Fn(Row)) -> Result<(), Failure> {
    if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!(
            "{:62} skipped: there is no `etcd` program (Debian: etcd-server)",
            "etcd beside the server's own store"
        );
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let (dir, objects) = (scratch.path(), size.of(OBJECTS));
    {
        let local = Process::start(&dir.join("local"), 1, &[], None).await?;
        figures(&local, "own store", objects, &print).await?;
    }
    let etcd = Etcd::start(dir, &[])?;
    let flags = [format!("--etcd-servers={}", etcd.endpoint())];
    let first = Process::start(&dir.join("first"), 1, &flags, None).await?;
    figures(&first, "etcd", objects, &print).await?;
    let keys = Some(dir.join("first/pki"));
    let second = Process::start(&dir.join("second"), 2, &flags, keys.as_deref()).await?;
    let third = Process::start(&dir.join("third"), 3, &flags, keys.as_deref()).await?;
    let clients = [&first.client, &second.client, &third.client];
    let create = |i: usize| send(clients[i % clients.len()], "POST", MAPS, Some(api::config_map(objects + i)));
    let measured = load(objects, IN_FLIGHT, create).await?;
    print(Row::new("etcd: create, 32 in flight, spread over three API servers", Figure::PerSecond(0.0), measured));
    Ok(())
}

async fn figures(process: &Process, engine: &str, objects: usize, print: &impl Fn(Row)) -> Result<(), Failure> {
    let client = &process.client;
    let measured = load(objects, IN_FLIGHT, |i| send(client, "POST", MAPS, Some(api::config_map(i)))).await?;
    print(Row::new(format!("{engine}: create a 1 KiB ConfigMap, 32 in flight"), Figure::PerSecond(0.0), measured));
    let change = |i: usize| {
        let path = format!("{MAPS}/bench-{i}");
        async move { send(client, "PATCH", &path, Some(json!({"data": {"n": i.to_string()}}))).await }
    };
    let measured = load(objects, IN_FLIGHT, change).await?;
    print(Row::new(format!("{engine}: merge patch, 32 in flight"), Figure::PerSecond(0.0), measured));
    let mut times = Vec::new();
    for _ in 0..LISTS {
        times.push(send(client, "GET", MAPS, None).await?.total);
    }
    times.sort_unstable();
    let median = times.get(LISTS / 2).copied().unwrap_or(Duration::MAX);
    print(Row::new(
        format!("{engine}: LIST {} ConfigMaps (median)", thousands(objects)),
        Figure::Millis(NO_BUDGET),
        millis(median),
    ));
    let p99 = watch::p99(client, &process.server(), 1).await?;
    print(Row::new(
        format!("{engine}: one watcher, 20 changes/s: delivery p99"),
        Figure::Millis(NO_BUDGET),
        millis(p99),
    ));
    Ok(())
}
