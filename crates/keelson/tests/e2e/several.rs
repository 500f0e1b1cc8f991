//! One control plane of several processes: `keelson server` three times over one etcd, of which one is killed under load.
//! No nodes; everything is on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use keelson_client::connect;
use keelson_cluster::kubeconfig::{self, Access};
use keelson_cluster::pki::{ADMIN, Identity, KeyCert, Pki};
use keelson_store::etcd::process::Etcd;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const DEADLINE: Duration = Duration::from_secs(60);
const WRITERS: usize = 32;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// One process, and a client of it.
struct Server {
    process: Child,
    address: Ipv4Addr,
    client: kube::Client,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What every server of the control plane is started with.
struct Plane {
    dir: tempfile::TempDir,
    etcd: Etcd,
    /// Lets servers into etcd.
    flags: Vec<String>,
    /// Where the cluster's authorities are.
    pki: PathBuf,
    admin: KeyCert,
}

impl Plane {
    /// An etcd that asks for certificates, and the cluster's keys.
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let (etcd_pki, pki) = (dir.path().join("etcd-pki"), dir.path().join("pki"));
        let authority = Pki::open(&etcd_pki).expect("etcd's authority");
        let serving = authority.serving("etcd", &["localhost"], &[Ipv4Addr::LOCALHOST.into()]).expect("a certificate");
        let client = Identity { user: "kube-apiserver-etcd-client", group: None };
        let client = authority.client(client).expect("a certificate");
        let file = |name: &str, text: &str| {
            let path = etcd_pki.join(name);
            std::fs::write(&path, text).expect("written");
            path.to_str().expect("UTF-8").to_owned()
        };
        let ca = etcd_pki.join("ca.crt").to_str().expect("UTF-8").to_owned();
        let (certificate, key) = (file("server.crt", &serving.certificate), file("server.key", &serving.key));
        let tls = ["--cert-file", &certificate, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
        let etcd = Etcd::start(dir.path(), &tls).expect("Debian's etcd-server is installed");
        let flags = vec![
            format!("--etcd-servers={}", etcd.endpoint()),
            format!("--etcd-cafile={ca}"),
            format!("--etcd-certfile={}", file("client.crt", &client.certificate)),
            format!("--etcd-keyfile={}", file("client.key", &client.key)),
        ];
        let cluster = Pki::open(&pki).expect("the cluster's authority");
        let admin = cluster.client(ADMIN).expect("a certificate");
        Self { dir, etcd, flags, pki, admin }
    }

    /// Starts a server that is known by an address of its own.
    async fn start(&self, address: Ipv4Addr) -> Server {
        let data = self.dir.path().join(address.to_string());
        let pki = data.join("pki");
        copy(&self.pki, &pki);
        let keys = Pki::open(&pki).expect("the cluster's keys");
        keys.write_apiserver(SERVICE_IP, address, "test").expect("certificates");
        let port = TcpListener::bind((address, 0)).and_then(|socket| socket.local_addr()).expect("a free port").port();
        let log = std::fs::File::create(data.join("log")).expect("a log");
        // It must not outlive the test.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_keelson"), "server", "--data-dir"]).arg(&data);
        command.arg(format!("--advertise-address={address}")).arg(format!("--secure-port={port}")).args(&self.flags);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("a process");
        let server = format!("https://{address}:{port}");
        let access = Access { server: &server, ca_pem: keys.ca_pem(), client: &self.admin };
        let config = kubeconfig::render("test", &access).expect("a kubeconfig");
        let client = connect::from_kubeconfig_text(&config).await.expect("a client");
        let mut server = Server { process, address, client };
        let started = Instant::now();
        while send(&server.client, "GET", "/readyz", None).await.is_err() {
            let ended = server.process.try_wait().expect("its state");
            let log = || std::fs::read_to_string(data.join("log")).unwrap_or_default();
            assert!(ended.is_none() && started.elapsed() < DEADLINE, "{ended:?} {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }
}

/// The files of a directory.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for file in std::fs::read_dir(from).expect("a directory").flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

/// The answer to a request; an error when there is none, or a refusal.
async fn send(client: &kube::Client, method: &str, path: &str, body: Option<Value>) -> Result<String, String> {
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    let response = client.send(request.body(body.into()).expect("a request")).await.map_err(|e| e.to_string())?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
}

async fn get(client: &kube::Client, path: &str) -> Value {
    let text = send(client, "GET", path, None).await.expect(path);
    serde_json::from_str(&text).expect("JSON")
}

/// Who holds the lease of a component.
async fn holder(client: &kube::Client, lease: &str) -> String {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{lease}");
    match send(client, "GET", &path, None).await {
        Ok(text) => {
            let lease: Value = serde_json::from_str(&text).expect("JSON");
            lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
        }
        Err(_) => String::new(),
    }
}

/// Writes until told to stop, at the next server when one does not answer; returns what was acknowledged.
async fn write(who: usize, clients: Vec<kube::Client>, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> Vec<String> {
    let (mut acknowledged, mut at) = (Vec::new(), who);
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // A name is tried once: after an error nobody knows whether it was written.
        let name = format!("w{who}-{n}");
        let object = json!({"metadata": {"name": name}, "data": {"a": "1"}});
        match send(&clients[at % clients.len()], "POST", MAPS, Some(object)).await {
            Ok(_) => {
                acknowledged.push(name);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => at += 1,
        }
    }
    acknowledged
}

/// Watches ConfigMaps from a revision on until one of this name comes; at the next server, with the last resourceVersion,
/// whenever a watch ends. Returns how often it saw each name, and how many watches it took.
async fn watch(clients: Vec<kube::Client>, mut last: u64, until: &str) -> (BTreeMap<String, usize>, usize) {
    let mut seen = BTreeMap::new();
    for watches in 1..100 {
        let path = format!("{MAPS}?watch=1&resourceVersion={last}");
        let request = http::Request::get(&path).body(Vec::new().into()).expect("a request");
        let Ok(response) = clients[(watches - 1) % clients.len()].send(request).await else { continue };
        assert_eq!(response.status(), 200);
        let (mut body, mut read) = (response.into_body(), Vec::new());
        while let Some(Ok(frame)) = body.frame().await {
            read.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
            while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = read.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).expect("an event");
                assert_eq!(event["type"], "ADDED", "{event}");
                let metadata = &event["object"]["metadata"];
                let revision =
                    metadata["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a revision");
                assert!(revision > last, "events come in order, and once: {event}");
                last = revision;
                let name = metadata["name"].as_str().expect("a name").to_owned();
                if name == until {
                    return (seen, watches);
                }
                *seen.entry(name).or_default() += 1;
            }
        }
    }
    panic!("the watch ends again and again");
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let started = Instant::now();
    while !check().await {
        assert!(started.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing() {
    let plane = Plane::new();
    let mut first = plane.start(Ipv4Addr::new(127, 0, 0, 1)).await;
    // What the first one made is the cluster's too, as kubeadm copies it: the key of what is encrypted.
    let made = plane.dir.path().join("127.0.0.1/pki/encryption.yaml");
    std::fs::copy(made, plane.pki.join("encryption.yaml")).expect("the encryption's key");
    let (second, third) =
        tokio::join!(plane.start(Ipv4Addr::new(127, 0, 0, 2)), plane.start(Ipv4Addr::new(127, 0, 0, 3)));
    let clients = vec![first.client.clone(), second.client.clone(), third.client.clone()];
    let alive = &second.client;
    let leases = ["kube-controller-manager", "kube-scheduler"];
    let by_first = format!("{}_", first.address);
    for lease in leases {
        eventually("the first server's components lead", async || holder(alive, lease).await.starts_with(&by_first))
            .await;
    }

    let list = get(alive, MAPS).await;
    let start = list["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a revision");
    let watching = tokio::spawn(watch(clients.clone(), start, "last"));
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut writers = JoinSet::new();
    for who in 0..WRITERS {
        writers.spawn(write(who, clients.clone(), stop.clone(), count.clone()));
    }
    eventually("writes", async || count.load(Ordering::Relaxed) >= 10 * WRITERS).await;
    first.process.kill().expect("kill -9");
    let before = count.load(Ordering::Relaxed);
    eventually("writes go on", async || count.load(Ordering::Relaxed) >= before + 10 * WRITERS).await;
    stop.store(true, Ordering::Relaxed);
    let acknowledged: BTreeSet<String> = writers.join_all().await.into_iter().flatten().collect();
    assert!(acknowledged.len() >= 20 * WRITERS);

    let there = |list: &Value| -> BTreeSet<String> {
        let items = list["items"].as_array().expect("items").iter();
        let ours = items.filter(|item| item["data"]["a"] == "1");
        ours.map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
    };
    let kept = there(&get(alive, MAPS).await);
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert_eq!(there(&get(&third.client, MAPS).await), kept, "both see the same");
    let last = json!({"metadata": {"name": "last"}});
    send(&third.client, "POST", MAPS, Some(last)).await.expect("a write");
    let (seen, watches) = tokio::time::timeout(DEADLINE, watching).await.expect("in time").expect("the watch");
    assert!(watches > 1, "the first watch was at the killed server");
    assert!(seen.values().all(|times| *times == 1));
    assert_eq!(seen.into_keys().collect::<BTreeSet<_>>(), kept, "every write is an event");

    // Another server's controllers and scheduler take over, and work.
    for lease in leases {
        let moved = async || {
            let holder = holder(alive, lease).await;
            !holder.is_empty() && !holder.starts_with(&by_first)
        };
        eventually("another leads", moved).await;
    }
    let space = json!({"metadata": {"name": "after"}});
    send(alive, "POST", "/api/v1/namespaces", Some(space)).await.expect("a namespace");
    let account = "/api/v1/namespaces/after/serviceaccounts/default";
    eventually("controllers act", async || send(&third.client, "GET", account, None).await.is_ok()).await;
    drop(plane.etcd);
}
