//! Several API servers over one etcd: they behave as one, and bear what happens to etcd and to each other.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use keelson_apiserver::{ApiServer, Body, Config, UserInfo};
use keelson_store::EtcdStore;
use keelson_store::etcd::{Options, process::Etcd};
use serde_json::{Value, json};
use support::Api;

const DEADLINE: Duration = Duration::from_secs(40);
const CM: &str = "/api/v1/namespaces/default/configmaps";

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn start(dir: &Path) -> Etcd {
    Etcd::start(dir, &[]).expect("Debian's etcd-server is installed")
}

/// One more server, with connections of its own.
async fn server(etcd: &Etcd) -> Api {
    let store = EtcdStore::connect(Options::new(vec![etcd.endpoint()])).await.unwrap();
    let server = ApiServer::new(Config::default(), Arc::new(store)).await.unwrap();
    Api::new(server, UserInfo::new("admin", ["system:masters"]))
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// A watch of ConfigMaps.
struct Watch {
    body: Body,
    read: Vec<u8>,
    /// The resourceVersion of the last event.
    last: u64,
}

impl Watch {
    async fn after(api: &Api, last: u64) -> Self {
        let response = api.send(&format!("GET {CM}?watch=1&resourceVersion={last}"), "null").await;
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), read: Vec::new(), last }
    }

    /// The next event's name; `None` when the watch is over.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                assert_ne!(event["type"], "ERROR", "{event}");
                assert!(revision(&event["object"]) > self.last, "events come in order, and once: {event}");
                self.last = revision(&event["object"]);
                return Some(event["object"]["metadata"]["name"].as_str().unwrap().to_owned());
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("an event in time")?;
            self.read.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_has_acknowledged_the_others_know() {
    let dir = scratch();
    let etcd = start(dir.path());
    let (a, b, c) = tokio::join!(server(&etcd), server(&etcd), server(&etcd));
    for n in 0..20 {
        let name = format!("c{n}");
        let made = a.ok(&format!("POST {CM}"), config_map(&name)).await;
        let read = b.ok(&format!("GET {CM}/{name}"), json!(null)).await;
        assert_eq!(read, made, "a read is as new as the newest write");
        // Each refusal would be one that rests on an old version.
        let mut next = read;
        next["data"]["a"] = "2".into();
        let put = c.ok(&format!("PUT {CM}/{name}"), next).await;
        let patched = a.ok(&format!("PATCH+merge {CM}/{name}"), json!({"data": {"a": "1"}})).await;
        assert!(revision(&patched) > revision(&put), "a change back is a change");
        let list = b.ok(&format!("GET {CM}?fieldSelector=metadata.name%3D{name}"), json!(null)).await;
        assert_eq!(revision(&list["items"][0]), revision(&patched));
        let precondition = json!({"preconditions": {"resourceVersion": patched["metadata"]["resourceVersion"]}});
        c.ok(&format!("DELETE {CM}/{name}"), precondition).await;
        assert_eq!(a.call(&format!("GET {CM}/{name}"), json!(null)).await.0, 404);
        assert_eq!(b.call(&format!("POST {CM}"), config_map(&name)).await.0, 201);

        let space = format!("n{n}");
        a.ok("POST /api/v1/namespaces", json!({"metadata": {"name": space}})).await;
        b.ok(&format!("POST /api/v1/namespaces/{space}/configmaps"), config_map("c")).await;
        assert_eq!(c.call(&format!("POST {CM}"), config_map(&name)).await.0, 409);
    }
    // What is forbidden and allowed follows too.
    let rule = json!({"metadata": {"name": "reader"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]});
    a.ok("POST /apis/rbac.authorization.k8s.io/v1/clusterroles", rule).await;
    let subject = json!([{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]);
    let role = json!({"kind": "ClusterRole", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "reader"}, "subjects": subject, "roleRef": role});
    a.ok("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    let review = json!({"spec": {"user": "jane", "resourceAttributes": {"verb": "list", "resource": "pods"}}});
    let started = Instant::now();
    loop {
        let answer = b.ok("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", review.clone()).await;
        if answer["status"]["allowed"] == true {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_at_another_server() {
    let dir = scratch();
    let etcd = start(dir.path());
    let (a, b, c) = tokio::join!(server(&etcd), server(&etcd), server(&etcd));
    let list = a.ok(&format!("GET {CM}"), json!(null)).await;
    let mut watch = Watch::after(&a, revision(&list)).await;
    let writer = |api: Api, by: &'static str| {
        tokio::spawn(async move {
            for n in 0..150 {
                api.ok(&format!("POST {CM}"), config_map(&format!("{by}{n}"))).await;
            }
        })
    };
    let writers = [writer(b.clone(), "b"), writer(c.clone(), "c")];
    let mut seen = Vec::new();
    while seen.len() < 40 {
        seen.push(watch.next().await.unwrap());
    }
    // The server goes away in the midst of it; events that were on their way are lost, and come again.
    let last = watch.last;
    drop((watch, a));
    let mut watch = Watch::after(&b, last).await;
    while seen.len() < 300 {
        seen.push(watch.next().await.unwrap());
    }
    for writer in writers {
        writer.await.unwrap();
    }
    seen.sort();
    let mut all: Vec<String> = (0..150).flat_map(|n| [format!("b{n}"), format!("c{n}")]).collect();
    all.sort();
    assert_eq!(seen, all, "each acknowledged write once");
    let list = c.ok(&format!("GET {CM}"), json!(null)).await;
    let ours = list["items"].as_array().unwrap().iter().filter(|item| item["data"]["a"] == "1").count();
    assert_eq!(ours, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_bears_the_loss_of_etcd() {
    let dir = scratch();
    let mut etcd = start(dir.path());
    let (a, b) = tokio::join!(server(&etcd), server(&etcd));
    let made = a.ok(&format!("POST {CM}"), config_map("before")).await;
    let mut watch = Watch::after(&b, revision(&made)).await;
    assert_eq!(a.raw("GET /readyz", "null".into()).await.0, 200);
    etcd.stop();
    // The answer to the check of writes may be a second old.
    let down = |code: u16, text: &Value| {
        let text = text.as_str().unwrap_or_default();
        code == 500 && text.contains("[-]etcd failed") && text.contains("[-]etcd-readiness failed")
    };
    a.eventually("GET /readyz", down).await;
    let (code, status) = a.call(&format!("POST {CM}"), config_map("during")).await;
    assert!(code >= 500, "{status}");
    let (code, status) = b.call(&format!("GET {CM}/before"), json!(null)).await;
    assert!(code >= 500, "nobody knows whether it is the newest: {status}");
    let any = b.ok(&format!("GET {CM}/before?resourceVersion=0"), json!(null)).await;
    assert_eq!(any, made, "who takes any version gets it");
    etcd.restart().unwrap();
    a.eventually("GET /readyz", |code, _| code == 200).await;
    let started = Instant::now();
    while a.call(&format!("POST {CM}"), config_map("after")).await.0 >= 500 {
        assert!(started.elapsed() < DEADLINE);
    }
    assert_eq!(b.ok(&format!("GET {CM}/before"), json!(null)).await, made);
    // The same watch goes on, with no event lost; the write that failed may have happened.
    let mut name = watch.next().await.unwrap();
    if name == "during" {
        name = watch.next().await.unwrap();
    }
    assert_eq!(name, "after");
}
