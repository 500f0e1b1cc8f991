//! Custom resources whose definitions change while others read, write and wait, over a store that can be held up.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use http_body_util::BodyExt;
use keelson_apiserver::{ApiServer, Config, UserInfo};
use keelson_store::{Error, Store as _, WatchStream};
use serde_json::{Value, json};
use support::Api;
use support::store::{Hook, Hooked};
use tokio::sync::watch;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAME: &str = "things.example.com";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What becomes of ranges over all things.
#[derive(Clone, Copy, PartialEq)]
enum Gate {
    Open,
    /// They are read, and then held back.
    Closed,
    Broken,
}

/// What holds the store up.
struct Held {
    gate: watch::Sender<Gate>,
    /// Ranges that have been held back.
    held: watch::Sender<usize>,
    /// Writes of APIServices that are still to fail.
    refused: AtomicUsize,
    /// Whether watches tell nothing.
    silent: watch::Sender<bool>,
}

#[async_trait]
impl Hook for Held {
    async fn before_put(&self, key: &str) -> Result<(), Error> {
        let one_less = |left: usize| left.checked_sub(1);
        if key.starts_with("/registry/apiregistration.k8s.io/")
            && self.refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
        {
            return Err(Error::Invalid { what: "a test".into() });
        }
        Ok(())
    }

    async fn after_range(&self, prefix: &str) -> Result<(), Error> {
        if prefix == "/registry/example.com/things/" && *self.gate.borrow() != Gate::Open {
            self.held.send_modify(|held| *held += 1);
            if *self.gate.borrow() == Gate::Broken {
                return Err(Error::Invalid { what: "a test".into() });
            }
            let mut gate = self.gate.subscribe();
            gate.wait_for(|gate| *gate == Gate::Open).await.unwrap();
        }
        Ok(())
    }

    fn watched(&self, stream: WatchStream) -> WatchStream {
        let silent = self.silent.subscribe();
        let stream = stream.then(move |item| {
            let mut silent = silent.clone();
            async move {
                silent.wait_for(|silent| !silent).await.unwrap();
                item
            }
        });
        stream.boxed()
    }
}

async fn start(gate: Gate) -> (Api, Arc<Hooked<Held>>) {
    start_refusing(gate, 0).await
}

async fn start_refusing(gate: Gate, refused: usize) -> (Api, Arc<Hooked<Held>>) {
    let refused = AtomicUsize::new(refused);
    let store = Hooked::open(Held {
        gate: watch::Sender::new(gate),
        held: watch::Sender::new(0),
        refused,
        silent: watch::Sender::new(false),
    });
    let server = ApiServer::new(Config::default(), store.clone()).await.unwrap();
    (Api::new(server, UserInfo::new("admin", ["system:masters"])), store)
}

impl Held {
    async fn held(&self, count: usize) {
        let mut held = self.held.subscribe();
        tokio::time::timeout(Duration::from_secs(30), held.wait_for(|held| *held >= count)).await.unwrap().unwrap();
    }
}

fn definition(plural: &str, kind: &str) -> Value {
    json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}]}})
}

/// A change of the definition that gives things a color.
fn colored() -> Value {
    let mut versions = definition("things", "Thing")["spec"]["versions"].clone();
    versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["color"] =
        json!({"type": "string", "default": "red"});
    json!({"spec": {"versions": versions}})
}

fn thing(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"size": 1}})
}

fn is(object: &Value, ty: &str, field: &str, value: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == ty && condition[field] == value)
}

async fn established(api: &Api, name: &str) {
    api.eventually(&format!("GET {CRDS}/{name}"), |_, object| is(object, "Established", "status", "True")).await;
}

#[tokio::test]
async fn what_a_cluster_starts_with_is_tried_again() {
    let (api, store) = start_refusing(Gate::Open, 3).await;
    api.eventually("GET /apis/apiregistration.k8s.io/v1/apiservices", |_, list| {
        let names = list["items"].as_array().into_iter().flatten().map(|item| &item["metadata"]["name"]);
        let names: Vec<_> = names.collect();
        names.contains(&&json!("v1."))
            && names.contains(&&json!("v1.apps"))
            && names.contains(&&json!("v1.batch"))
            && store.refused.load(Ordering::SeqCst) == 0
            && names.len() > 20
    })
    .await;
}

#[tokio::test]
async fn others_go_on_while_a_resource_is_read() {
    let (api, store) = start(Gate::Closed).await;
    api.ok(&format!("POST {CRDS}"), definition("things", "Thing")).await;
    store.held(1).await;
    // Writes are answered once the caches have them.
    api.ok(&format!("POST {MAPS}"), json!({"metadata": {"name": "a"}})).await;
    store.gate.send_replace(Gate::Open);
    established(&api, NAME).await;

    for name in ["a", "b"] {
        api.ok(&format!("POST {THINGS}"), thing(name)).await;
    }
    let listed = api.ok(&format!("GET {THINGS}"), json!(null)).await;
    let revision = listed["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let events = api.send(&format!("GET {THINGS}?watch=1&resourceVersion={revision}"), "").await;
    store.gate.send_replace(Gate::Closed);
    api.ok(&format!("PATCH+merge {CRDS}/{NAME}"), colored()).await;
    store.held(2).await;
    // What was read already changes, in the cache of before.
    api.ok(&format!("POST {THINGS}"), thing("c")).await;
    api.ok(&format!("PATCH+merge {THINGS}/b"), json!({"spec": {"size": 2}})).await;
    api.ok(&format!("DELETE {THINGS}/a"), json!(null)).await;
    api.ok(&format!("POST {MAPS}"), json!({"metadata": {"name": "b"}})).await;
    store.gate.send_replace(Gate::Open);
    let ended = tokio::time::timeout(Duration::from_secs(30), events.into_body().collect()).await.unwrap().unwrap();
    let seen: Vec<String> = String::from_utf8(ended.to_bytes().to_vec())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|event| format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"]))
        .collect();
    assert_eq!(seen, ["ADDED \"c\"", "MODIFIED \"b\"", "DELETED \"a\""], "the watch ends when it has told all");
    // The watch ends with the old cache: from here on there is the new one.
    let listed = api.ok(&format!("GET {THINGS}"), json!(null)).await;
    let now: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| format!("{} {} {}", item["metadata"]["name"], item["spec"]["size"], item["spec"]["color"]))
        .collect();
    assert_eq!(now, ["\"b\" 2 \"red\"", "\"c\" 1 \"red\""]);
}

/// Readers and writers see no gap while the definition changes again and again.
#[tokio::test]
async fn a_replaced_resource_is_answered_by_its_successor() {
    let (api, _store) = start(Gate::Open).await;
    api.ok(&format!("POST {CRDS}"), definition("things", "Thing")).await;
    established(&api, NAME).await;
    api.ok(&format!("POST {THINGS}"), thing("a")).await;
    let other = api.clone();
    let changes = tokio::spawn(async move {
        for n in 0..20 {
            let body = json!({"spec": {"names": {"categories": [format!("c{n}")]}}});
            other.ok(&format!("PATCH+merge {CRDS}/{NAME}"), body).await;
        }
    });
    let mut size = 1;
    while !changes.is_finished() {
        size += 1;
        api.ok(&format!("PATCH+merge {THINGS}/a"), json!({"spec": {"size": size}})).await;
        let listed = api.ok(&format!("GET {THINGS}"), json!(null)).await;
        assert_eq!(listed["items"][0]["spec"]["size"], size, "{listed}");
        let read = api.ok(&format!("GET {THINGS}/a"), json!(null)).await;
        assert_eq!(read["spec"]["size"], size);
    }
    changes.await.unwrap();
}

#[tokio::test]
async fn a_definition_that_changes_while_it_ends_still_ends() {
    let (api, _store) = start(Gate::Open).await;
    api.ok(&format!("POST {CRDS}"), definition("things", "Thing")).await;
    established(&api, NAME).await;
    let mut held = thing("a");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    api.ok(&format!("POST {THINGS}"), held).await;
    api.ok(&format!("DELETE {CRDS}/{NAME}"), json!(null)).await;
    let path = format!("GET {CRDS}/{NAME}");
    api.eventually(&path, |_, object| is(object, "Terminating", "reason", "InstanceDeletionInProgress")).await;
    api.eventually(&format!("GET {THINGS}/a"), |_, object| object["metadata"].get("deletionTimestamp").is_some()).await;
    api.ok(&format!("PATCH+merge {CRDS}/{NAME}"), colored()).await;
    api.eventually(&format!("GET {THINGS}/a"), |_, object| object["spec"]["color"] == "red").await;
    api.ok(&format!("PATCH+merge {THINGS}/a"), json!({"metadata": {"finalizers": null}})).await;
    api.eventually(&path, |code, _| code == 404).await;
    // The next of that name is another.
    api.ok(&format!("POST {CRDS}"), definition("things", "Thing")).await;
    established(&api, NAME).await;
    api.ok(&format!("POST {THINGS}"), thing("a")).await;
    api.ok(&format!("GET {THINGS}/a"), json!(null)).await;
}

#[tokio::test]
async fn one_failure_does_not_stop_the_others() {
    let (api, store) = start(Gate::Broken).await;
    api.ok(&format!("POST {CRDS}"), definition("things", "Thing")).await;
    store.held(1).await;
    api.ok(&format!("POST {CRDS}"), definition("zebras", "Zebra")).await;
    established(&api, "zebras.example.com").await;
    api.ok("GET /apis/example.com/v1/zebras", json!(null)).await;
    assert_eq!(api.call("GET /apis/example.com/v1/things", json!(null)).await.0, 404);
    // Not said to be served before it is.
    let (_, unserved) = api.call(&format!("GET {CRDS}/{NAME}"), json!(null)).await;
    assert!(!is(&unserved, "Established", "status", "True"), "{unserved}");
    store.gate.send_replace(Gate::Open);
    established(&api, NAME).await;
    api.ok(&format!("POST {THINGS}"), thing("a")).await;
}

#[tokio::test]
async fn a_write_is_answered_though_the_caches_stand_still() {
    let (api, store) = start(Gate::Open).await;
    let cm = "/api/v1/namespaces/default/configmaps";
    let old = api.ok(&format!("POST {cm}"), json!({"metadata": {"name": "old"}})).await;
    let gone = api.ok(&format!("POST {cm}"), json!({"metadata": {"name": "gone"}})).await;
    store.silent.send_replace(true);
    let mut changed = old.clone();
    changed["data"] = json!({"a": "1"});
    let (post, put, delete) = (format!("POST {cm}"), format!("PUT {cm}/old"), format!("DELETE {cm}/gone"));
    let (made, put, deleted) = tokio::join!(
        api.call(&post, json!({"metadata": {"name": "new"}, "data": {"b": "2"}})),
        api.call(&put, changed),
        api.call(&delete, json!(null)),
    );
    let stored = |name: &'static str| {
        let store = &store;
        async move { store.get(&format!("/registry/configmaps/default/{name}")).await.unwrap() }
    };
    let (new, there) = (stored("new").await.unwrap(), stored("old").await.unwrap());
    assert_eq!((made.0, &made.1["data"]["b"]), (201, &json!("2")), "{}", made.1);
    assert_eq!(made.1["metadata"]["resourceVersion"], new.mod_revision.to_string());
    assert!(made.1["metadata"]["managedFields"].is_array(), "it is whole: {}", made.1);
    assert_eq!((put.0, &put.1["data"]["a"]), (200, &json!("1")), "{}", put.1);
    assert_eq!(put.1["metadata"]["resourceVersion"], there.mod_revision.to_string());
    assert_eq!((deleted.0, &deleted.1["details"]["uid"]), (200, &gone["metadata"]["uid"]), "{}", deleted.1);
    assert_eq!(stored("gone").await, None);
    store.silent.send_replace(false);
    let read = |code: u16, object: &Value| code == 200 && *object == made.1;
    api.eventually(&format!("GET {cm}/new"), read).await;
}
