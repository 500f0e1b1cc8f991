//! The API on etcd beside the server's own store, and three servers over one etcd: processes without nodes, each on a loopback
//! address of its own, with their data in the same place.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keelson_cluster::kubeconfig::{self, Access};
use keelson_cluster::pki::{ADMIN, Pki};
use keelson_store::etcd::process::Etcd;
use serde_json::json;

use super::process::Server;
use super::request::{load, send};
use super::{Figure, NO_BUDGET, Row, api, millis, watch};
use crate::cli::Failure;

const OBJECTS: usize = 10_000;
const IN_FLIGHT: usize = 32;
const LISTS: usize = 10;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// The first address of the range that servers give out by default.
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const START: Duration = Duration::from_secs(60);

/// Names of rows: create, patch, LIST, watch.
type Names = [&'static str; 4];
const LOCAL: Names = [
    "own store: create a 1 KiB ConfigMap, 32 in flight",
    "own store: merge patch, 32 in flight",
    "own store: LIST 10,000 ConfigMaps (median)",
    "own store: one watcher, 20 changes/s: delivery p99",
];
const ETCD: Names = [
    "etcd: create a 1 KiB ConfigMap, 32 in flight",
    "etcd: merge patch, 32 in flight",
    "etcd: LIST 10,000 ConfigMaps (median)",
    "etcd: one watcher, 20 changes/s: delivery p99",
];
const THREE: &str = "etcd: create, 32 in flight, spread over three API servers";

/// Prints the rows, or why there are none.
pub(super) async fn beside(print: impl Fn(Row)) -> Result<(), Failure> {
    if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!(
            "{:62} skipped: there is no `etcd` program (Debian: etcd-server)",
            "etcd beside the server's own store"
        );
        return Ok(());
    }
    let dir = Dir(std::env::temp_dir().join(format!("keelson-bench-etcd-{}", std::process::id())));
    std::fs::create_dir_all(&dir.0)?;
    {
        let local = Process::start(&dir.0.join("local"), 1, &[], None).await?;
        figures(&local, LOCAL, &print).await?;
    }
    let etcd = Etcd::start(&dir.0, &[])?;
    let flags = [format!("--etcd-servers={}", etcd.endpoint())];
    let first = Process::start(&dir.0.join("first"), 1, &flags, None).await?;
    figures(&first, ETCD, &print).await?;
    let keys = Some(dir.0.join("first/pki"));
    let second = Process::start(&dir.0.join("second"), 2, &flags, keys.as_deref()).await?;
    let third = Process::start(&dir.0.join("third"), 3, &flags, keys.as_deref()).await?;
    let clients = [&first.client, &second.client, &third.client];
    let create = |i: usize| send(clients[i % clients.len()], "POST", MAPS, Some(api::config_map(OBJECTS + i)));
    let measured = load(OBJECTS, IN_FLIGHT, create).await?;
    print(Row { what: THREE, budget: Figure::PerSecond(0.0), measured });
    Ok(())
}

async fn figures(process: &Process, names: Names, print: &impl Fn(Row)) -> Result<(), Failure> {
    let (client, [create, patch, list, delivery]) = (&process.client, names);
    let measured = load(OBJECTS, IN_FLIGHT, |i| send(client, "POST", MAPS, Some(api::config_map(i)))).await?;
    print(Row { what: create, budget: Figure::PerSecond(0.0), measured });
    let change = |i: usize| {
        let path = format!("{MAPS}/bench-{i}");
        async move { send(client, "PATCH", &path, Some(json!({"data": {"n": i.to_string()}}))).await }
    };
    let measured = load(OBJECTS, IN_FLIGHT, change).await?;
    print(Row { what: patch, budget: Figure::PerSecond(0.0), measured });
    let mut times = Vec::new();
    for _ in 0..LISTS {
        times.push(send(client, "GET", MAPS, None).await?.total);
    }
    times.sort_unstable();
    let median = times.get(LISTS / 2).copied().unwrap_or(Duration::MAX);
    print(Row { what: list, budget: Figure::Millis(NO_BUDGET), measured: millis(median) });
    let p99 = watch::p99(client, &Server::of(process.child.id()), 1).await?;
    print(Row { what: delivery, budget: Figure::Millis(NO_BUDGET), measured: millis(p99) });
    Ok(())
}

/// Removed at the end, after who uses it.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A `keelson server`.
struct Process {
    child: Child,
    client: kube::Client,
}

impl Process {
    /// Starts one on 127.0.0.`host`, with keys of its own or those of another.
    async fn start(dir: &Path, host: u8, flags: &[String], keys: Option<&Path>) -> Result<Self, Failure> {
        let (address, pki) = (Ipv4Addr::new(127, 0, 0, host), dir.join("pki"));
        std::fs::create_dir_all(&pki)?;
        if let Some(keys) = keys {
            for file in std::fs::read_dir(keys)?.flatten() {
                std::fs::copy(file.path(), pki.join(file.file_name()))?;
            }
        }
        let authority = Pki::open(&pki)?;
        authority.write_apiserver(SERVICE_IP, address, "bench")?;
        let port = TcpListener::bind((address, 0))?.local_addr()?.port();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["server", "--data-dir"]).arg(dir).arg(format!("--advertise-address={address}"));
        command.arg(format!("--secure-port={port}")).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(dir.join("log"))?);
        let child = command.spawn()?;
        let (server, admin) = (format!("https://{address}:{port}"), authority.client(ADMIN)?);
        let access = Access { server: &server, ca_pem: authority.ca_pem(), client: &admin };
        let config = kubeconfig::render("bench", &access)?;
        let client = keelson_client::connect::from_kubeconfig_text(&config).await?;
        let mut process = Self { child, client };
        let started = Instant::now();
        while send(&process.client, "GET", "/readyz", None).await.is_err() {
            if process.child.try_wait()?.is_some() || started.elapsed() > START {
                let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
                return Err(format!("the server at {address} does not get ready: {log}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
