//! Several API servers over one etcd: they behave as one, and bear what happens to etcd and to each other.

#[path = "shared/services.rs"]
mod services;
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
    Api::new(server_with(etcd, Config::default()).await, UserInfo::new("admin", ["system:masters"]))
}

async fn server_with(etcd: &Etcd, config: Config) -> ApiServer {
    let store = EtcdStore::connect(Options::new(vec![etcd.endpoint()])).await.unwrap();
    ApiServer::new(config, Arc::new(store)).await.unwrap()
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

#[tokio::test(flavor = "multi_thread")]
async fn events_expire() {
    let dir = scratch();
    let etcd = start(dir.path());
    let config = Config { event_ttl: Duration::from_secs(2), ..Config::default() };
    let api = Api::new(server_with(&etcd, config).await, UserInfo::new("admin", ["system:masters"]));
    let about = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    let event = json!({"metadata": {"name": "e"}, "involvedObject": about, "reason": "Tested", "type": "Normal"});
    api.ok("POST /api/v1/namespaces/default/events", event).await;
    let started = Instant::now();
    while api.call("GET /api/v1/namespaces/default/events/e", json!(null)).await.0 != 404 {
        // The server itself would only look after half a minute.
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The addresses behind the `kubernetes` Service, when both kinds of endpoints agree.
async fn addresses(api: &Api) -> Option<Vec<String>> {
    let texts = |list: &Value, field: &str| -> Vec<String> {
        let all = list.as_array().into_iter().flatten();
        all.map(|one| one.pointer(field).and_then(Value::as_str).unwrap_or_default().to_owned()).collect()
    };
    let endpoints = api.ok("GET /api/v1/namespaces/default/endpoints/kubernetes", json!(null)).await;
    let slices = "GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = api.ok(slices, json!(null)).await;
    let all = texts(&endpoints["subsets"][0]["addresses"], "/ip");
    (all == texts(&slice["endpoints"], "/addresses/0")).then_some(all)
}

async fn leads_to(api: &Api, expected: &[&str]) {
    let started = Instant::now();
    loop {
        let now = addresses(api).await;
        if now.as_ref().is_some_and(|now| now == expected) {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{now:?} is not {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubernetes_service_leads_to_who_lives() {
    let dir = scratch();
    let etcd = start(dir.path());
    let pki = support::Pki::new();
    let config = |ip: &str| Config {
        advertise_address: ip.parse().unwrap(),
        endpoint_interval: Duration::from_secs(1),
        hostname: Some(format!("host-{ip}")),
        serving: Some(pki.identity("kube-apiserver")),
        ..Config::default()
    };
    let first = server_with(&etcd, config("192.0.2.9")).await;
    let admin = |server: &ApiServer| Api::new(server.clone(), UserInfo::new("admin", ["system:masters"]));
    let api = admin(&first);
    assert_eq!(addresses(&api).await.unwrap(), ["192.0.2.9"], "from the start");
    let (second, third) =
        tokio::join!(server_with(&etcd, config("192.0.2.7")), server_with(&etcd, config("192.0.2.10")));
    leads_to(&api, &["192.0.2.10", "192.0.2.7", "192.0.2.9"]).await;
    // What is right is left alone.
    let endpoints = "GET /api/v1/namespaces/default/endpoints/kubernetes";
    let before = api.ok(endpoints, json!(null)).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(api.ok(endpoints, json!(null)).await, before);

    // One stops in order: it is gone at once.
    let stop = tokio_util::sync::CancellationToken::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let serving = tokio::spawn({
        let (second, stop) = (second.clone(), stop.clone());
        async move { second.serve(listener, stop).await }
    });
    stop.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(addresses(&api).await.unwrap(), ["192.0.2.10", "192.0.2.9"]);
    // One is gone without a word.
    drop((second, third));
    leads_to(&api, &["192.0.2.9"]).await;
    // Somebody meddles.
    api.ok("DELETE /api/v1/namespaces/default/endpoints/kubernetes", json!(null)).await;
    let started = Instant::now();
    while api.call(endpoints, json!(null)).await.0 != 200 {
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    leads_to(&api, &["192.0.2.9"]).await;

    // Each has left a lease, which runs out much later.
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let ours = format!("GET {leases}?labelSelector=apiserver.kubernetes.io%2Fidentity%3Dkube-apiserver");
    let list = api.ok(&ours, json!(null)).await;
    let list = list["items"].as_array().unwrap();
    assert_eq!(list.len(), 3, "{list:?}");
    let of_first = list.iter().find(|l| l["metadata"]["labels"]["kubernetes.io/hostname"] == "host-192.0.2.9").unwrap();
    let (name, spec) = (of_first["metadata"]["name"].as_str().unwrap(), &of_first["spec"]);
    assert!(spec["holderIdentity"].as_str().unwrap().starts_with(&format!("{name}_")), "{of_first}");
    assert_eq!(spec["leaseDurationSeconds"], 3600);
    // The next server of that name takes the lease over, and collects one that is over; others are none of its business.
    let lease = |name: &str, labels: Value| {
        let spec =
            json!({"holderIdentity": "x", "leaseDurationSeconds": 1, "renewTime": "2020-01-01T00:00:00.000000Z"});
        json!({"metadata": {"name": name, "labels": labels}, "spec": spec})
    };
    let label = json!({"apiserver.kubernetes.io/identity": "kube-apiserver"});
    api.ok(&format!("POST {leases}"), lease("dead", label)).await;
    api.ok(&format!("POST {leases}"), lease("other", json!({}))).await;
    let _again = server_with(&etcd, config("192.0.2.9")).await;
    api.eventually(&format!("GET {leases}/dead"), |code, _| code == 404).await;
    let renewed = api.ok(&format!("GET {leases}/{name}"), json!(null)).await;
    assert_ne!(renewed["spec"]["holderIdentity"], spec["holderIdentity"]);
    assert_eq!(renewed["metadata"]["uid"], of_first["metadata"]["uid"]);
    api.ok(&format!("GET {leases}/other"), json!(null)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_is_not_ready() {
    let dir = scratch();
    let etcd =
        Etcd::start(dir.path(), &["--quota-backend-bytes", "4000000"]).expect("Debian's etcd-server is installed");
    let api = server(&etcd).await;
    api.eventually("GET /readyz", |code, _| code == 200).await;
    let filling = "x".repeat(200_000);
    let mut full = false;
    for n in 0..200 {
        let object = json!({"metadata": {"name": format!("big{n}")}, "data": {"a": filling}});
        full = api.call(&format!("POST {CM}"), object).await.0 >= 500;
        if full {
            break;
        }
    }
    assert!(full, "etcd takes no more writes");
    let told =
        |code: u16, text: &Value| code == 500 && text.as_str().unwrap_or_default().contains("[-]etcd-readiness failed");
    api.eventually("GET /readyz", told).await;
}
