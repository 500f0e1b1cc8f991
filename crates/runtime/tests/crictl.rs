//! `keelson crictl` on our runtime and, with the same expectations, on Debian's containerd.

mod world;

use std::{
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use clap::Parser;
use keelson_cri::v1::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::World;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    crictl: keelson_crictl::Crictl,
}

/// What a command shows, readable while it runs.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<u8>>>);

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shown {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    async fn contains(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.text().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in {:?}", self.text());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Crictl(String);

impl Crictl {
    fn command(&self, args: &str) -> keelson_crictl::Crictl {
        let words = ["crictl", "-t", "20s", "-r", &self.0].into_iter().chain(args.split(' '));
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{args}: {error}")).crictl
    }

    async fn run(&self, args: &str) -> (u8, String) {
        let mut shown = Shown::default();
        match self.command(args).run(&mut shown).await {
            Ok(code) => (code, shown.text()),
            Err(error) => panic!("{args}: {error}"),
        }
    }

    async fn text(&self, args: &str) -> String {
        let (code, text) = self.run(args).await;
        assert_eq!(code, 0, "{args}: {text}");
        text
    }

    async fn json(&self, args: &str) -> Value {
        let text = self.text(args).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args}: {error}: {text}"))
    }

    async fn error(&self, args: &str) -> String {
        let outcome = self.command(args).run(&mut Shown::default()).await;
        outcome.map(|code| panic!("{args} ended with {code}")).unwrap_err().to_string()
    }
}

/// The cells of a table's row that holds `text`, and of the first row.
fn row(table: &str, text: &str) -> (Vec<String>, Vec<String>) {
    let cells = |line: &str| {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(String::from).collect::<Vec<_>>()
    };
    let found = table.lines().skip(1).find(|line| line.contains(text));
    (cells(table.lines().next().unwrap()), cells(found.unwrap_or_else(|| panic!("no {text} in {table}"))))
}

/// Every command, on the runtime at `endpoint`, with a pod and two containers that are made here.
async fn every_command(world: &mut World, endpoint: String, runtime_name: &str) {
    let crictl = Crictl(endpoint);
    let mut pod = world.pod("shown");
    let labels = [("io.kubernetes.pod.name", "shown"), ("io.kubernetes.pod.namespace", "default")];
    let labels: std::collections::HashMap<_, _> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    pod.labels = labels.clone();
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell(
        "main",
        "echo one; echo two; httpd -p 8080 -h /etc; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo three; exit 4",
    );
    config.labels = labels;
    let id = world.run(&sandbox, &pod, config).await;
    world.logged("main.log", "stdout F two").await;

    let version = crictl.text("version").await;
    assert!(
        version.contains(&format!("RuntimeName:  {runtime_name}\n")) && version.contains("RuntimeApiVersion:  v1\n")
    );
    let info = crictl.json("info").await;
    assert_eq!(
        info["status"]["conditions"][0],
        serde_json::json!({"type": "RuntimeReady", "status": true, "reason": "", "message": ""})
    );

    let (columns, pods) = row(&crictl.text("pods").await, "shown");
    assert_eq!(columns, ["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"]);
    assert_eq!(
        (&pods[0], &pods[2..]),
        (
            &sandbox[..13].to_owned(),
            &["Ready", "shown", "default", &pod.metadata.as_ref().unwrap().attempt.to_string(), "(default)"]
                .map(String::from)[..]
        )
    );
    assert_eq!(crictl.text("pods -q --name ^shown$ --state ready").await, format!("{sandbox}\n"));
    assert_eq!(crictl.text("pods -q --state notready").await, "");
    assert_eq!(crictl.json("pods -o json").await["items"][0]["state"], "SANDBOX_READY");

    let (columns, containers) = row(&crictl.text("ps").await, "main");
    assert_eq!(columns, ["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD", "NAMESPACE"]);
    assert_eq!(
        (&containers[0], &containers[3..]),
        (&id[..13].to_owned(), &["Running", "main", "0", &sandbox[..13], "shown", "default"].map(String::from)[..])
    );
    assert_eq!(crictl.text(&format!("ps -q --pod {sandbox} --image {}", world::BUSYBOX)).await, format!("{id}\n"));
    assert_eq!(crictl.text("ps -q --name nothing").await, "");

    let (columns, image) = row(&crictl.text("images --digests --pinned").await, "busybox");
    assert_eq!(columns, ["IMAGE", "TAG", "DIGEST", "IMAGE ID", "SIZE", "PINNED"]);
    assert_eq!((image[0].as_str(), image[1].as_str(), image[5].as_str()), (world::BUSYBOX, "latest", "false"));
    let inspected = crictl.json(&format!("inspecti {}", world::BUSYBOX)).await;
    assert!(inspected["status"]["id"].as_str().unwrap().contains(&image[3]), "{inspected}");
    assert!(
        crictl.error("inspecti nobody.test/has:this").await.contains("no such image \"nobody.test/has:this\" present")
    );
    crictl.json("imagefsinfo").await["status"]["imageFilesystems"][0]["usedBytes"]["value"]
        .as_str()
        .unwrap()
        .parse::<u64>()
        .unwrap();

    let inspected = crictl.json(&format!("inspect {id}")).await;
    assert_eq!(
        (inspected["status"]["state"].as_str(), inspected["status"]["metadata"]["name"].as_str()),
        (Some("CONTAINER_RUNNING"), Some("main"))
    );
    assert!(inspected["status"]["startedAt"].as_str().unwrap().starts_with("20"));
    assert_eq!(
        (inspected["status"]["finishedAt"].as_str(), inspected["info"]["sandboxID"].as_str()),
        (Some("0001-01-01T00:00:00Z"), Some(sandbox.as_str()))
    );
    assert!(inspected["info"]["pid"].as_i64().unwrap() > 0, "{inspected}");
    assert!(inspected["info"]["runtimeSpec"]["process"]["args"][0].is_string(), "{inspected}");
    let inspected = crictl.json(&format!("inspectp {sandbox}")).await;
    assert_eq!(
        (inspected["status"]["state"].as_str(), inspected["status"]["network"]["ip"].as_str()),
        (Some("SANDBOX_READY"), Some("10.99.0.2"))
    );
    assert!(inspected["info"].is_object(), "{inspected}");
    assert!(crictl.error("inspect nope").await.contains("code = NotFound"));

    assert_eq!(crictl.run(&format!("exec {id} sh -c exit$IFS$((3+4))")).await.0, 7);
    assert_eq!(crictl.text(&format!("exec {id} cat /etc/hostname")).await, "shown\n");
    assert_eq!(crictl.text(&format!("exec -t {id} cat /etc/hostname")).await, "shown\r\n");
    assert_eq!(crictl.text(&format!("exec -s {id} hostname")).await, "shown\n");
    assert_eq!(crictl.run(&format!("exec -s {id} false")).await.0, 1);

    assert_eq!(crictl.text(&format!("logs {id}")).await, "one\ntwo\n");
    assert_eq!(crictl.text(&format!("logs --tail 1 {id}")).await, "two\n");
    assert_eq!(crictl.text(&format!("logs --limit-bytes 2 {id}")).await, "on");
    assert_eq!(crictl.text(&format!("logs --since 1h {id}")).await, "one\ntwo\n");
    assert!(crictl.text(&format!("logs -t {id}")).await.starts_with("20"));
    let following = Shown::default();
    let (follow, mut shown) = (crictl.command(&format!("logs -f {id}")), following.clone());
    let follow = tokio::spawn(async move { follow.run(&mut shown).await.map_err(|error| error.to_string()) });

    let (columns, stats) = row(&crictl.text("stats").await, "main");
    assert_eq!(columns, ["CONTAINER", "NAME", "CPU %", "MEM", "DISK", "INODES", "SWAP"]);
    assert_eq!((&stats[0], &stats[1]), (&id[..13].to_owned(), &"main".to_owned()));
    let used = crictl.json(&format!("stats -o json {id}")).await;
    assert!(
        used["stats"][0]["memory"]["workingSetBytes"]["value"].as_str().unwrap().parse::<u64>().unwrap() > 0,
        "{used}"
    );

    let forwarding = Shown::default();
    let (forward, mut shown) = (crictl.command(&format!("port-forward {sandbox} 0:8080")), forwarding.clone());
    let forward = tokio::spawn(async move { forward.run(&mut shown).await.map_err(|error| error.to_string()) });
    forwarding.contains("-> 8080").await;
    let address = forwarding.text().trim().trim_start_matches("Forwarding from ").split(' ').next().unwrap().to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with("shown\n"), "{answer}");
    forward.abort();

    crictl.text(&format!("update --memory 67108864 {id}")).await;
    let limit = crictl.json(&format!("inspect {id}")).await["info"]["runtimeSpec"].is_object();
    assert!(limit);
    assert_eq!(crictl.text(&format!("exec {id} touch /tmp/go")).await, "");
    following.contains("three\n").await;
    tokio::time::timeout(Duration::from_secs(20), follow).await.unwrap().unwrap().unwrap();
    assert_eq!(following.text(), "one\ntwo\nthree\n");
    let ended = crictl.json(&format!("inspect {id}")).await;
    assert_eq!((ended["status"]["exitCode"].as_i64(), ended["status"]["reason"].as_str()), (Some(4), Some("Error")));
    assert_eq!(crictl.text("ps -q").await, "");
    assert_eq!(crictl.text("ps -a -q").await, format!("{id}\n"));

    assert_eq!(crictl.text(&format!("stop {id}")).await, format!("{id}\n"));
    assert_eq!(crictl.text(&format!("rm {id}")).await, format!("{id}\n"));
    assert!(crictl.error(&format!("rmp {sandbox}")).await.contains("is running, please stop it first"));
    assert_eq!(crictl.text(&format!("stopp {sandbox}")).await, format!("Stopped sandbox {sandbox}\n"));
    assert_eq!(crictl.text(&format!("rmp {sandbox}")).await, format!("Removed sandbox {sandbox}\n"));
    assert_eq!(crictl.text(&format!("rmi {}", world::BUSYBOX)).await, format!("Deleted: {}:latest\n", world::BUSYBOX));
    assert!(!crictl.text("images").await.contains("busybox"));
}

#[tokio::test]
async fn on_our_runtime() {
    let mut world = World::new().await;
    let endpoint = world.dir.path().join("runtime.sock").to_str().unwrap().to_owned();
    let crictl = Crictl(endpoint.clone());
    assert!(crictl.text(&format!("pull {}", world::BUSYBOX)).await.starts_with("Image is up to date for sha256:"));
    Box::pin(every_command(&mut world, endpoint.clone(), "keelson")).await;
    // What only a runtime of this API level has.
    let pod = world.pod("level");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "sleep 1000");
    let id = world.run(&sandbox, &pod, config).await;
    let (columns, stats) = row(&crictl.text("statsp").await, "level");
    assert_eq!(columns, ["POD", "POD ID", "CPU %", "MEM"]);
    assert_eq!(stats[1], sandbox[..13]);
    assert_eq!(crictl.text("runtime-config").await, "cgroup driver: CGROUPFS\n");
    let events = Shown::default();
    let (command, mut shown) = (crictl.command("events"), events.clone());
    let listening = tokio::spawn(async move { command.run(&mut shown).await.map_err(|error| error.to_string()) });
    // Until the stream is there, nothing shows; so the container is stopped and another one started until it does.
    let deadline = Instant::now() + Duration::from_secs(20);
    while events.text().is_empty() {
        assert!(Instant::now() < deadline);
        let mut config = world.shell("next", "true");
        config.metadata.as_mut().unwrap().attempt = events.text().len() as u32;
        let next = world.run(&sandbox, &pod, config).await;
        world.ended(&next).await;
        world.clients.runtime.remove_container(RemoveContainerRequest { container_id: next }).await.unwrap();
    }
    let event: Value = serde_json::from_str(events.text().lines().next().unwrap()).unwrap();
    assert!(event["containerEventType"].as_str().unwrap().starts_with("CONTAINER_"), "{event}");
    listening.abort();
    assert_eq!(crictl.text(&format!("stop --timeout 0 {id}")).await, format!("{id}\n"));
    world.finish().await;
}

#[tokio::test]
async fn on_containerd() {
    assert!(Path::new("/usr/bin/containerd").exists(), "containerd is missing: apt-get install containerd");
    let mut world = World::containerd().await;
    let endpoint = world.dir.path().join("containerd/containerd.sock").to_str().unwrap().to_owned();
    Box::pin(every_command(&mut world, endpoint, "containerd")).await;
}
