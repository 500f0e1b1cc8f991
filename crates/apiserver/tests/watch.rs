//! Watches, in process.

mod support;

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api as KubeApi, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use support::{Api, TestServer};

const CM: &str = "/api/v1/namespaces/default/configmaps";

/// A watch's events, one JSON object each.
struct Events {
    body: keelson_apiserver::Body,
    ready: Vec<u8>,
}

impl Events {
    async fn open(api: &Api, query: &str) -> Self {
        let response = api.send(&format!("GET {CM}?watch=1&{query}"), String::new()).await;
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), ready: Vec::new() }
    }

    /// The next event; `None` at the end of the watch.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.ready.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.ready.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(600), self.body.frame()).await.unwrap()?;
            self.ready.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    /// `ADDED a`
    async fn expect(&mut self, expected: &str) -> Value {
        let event = self.next().await.unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        assert_eq!(format!("{} {name}", event["type"].as_str().unwrap()).trim(), expected);
        event
    }
}

fn labelled(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": label}}})
}

#[tokio::test]
async fn selectors_turn_changes_into_additions_and_deletions() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok(&format!("POST {CM}"), labelled("a", "yes")).await;
    let mut events = Events::open(&api, "labelSelector=l%3Dyes").await;
    events.expect("ADDED a").await;
    api.ok(&format!("POST {CM}"), labelled("b", "no")).await;
    api.ok(&format!("PATCH+merge {CM}/b"), json!({"metadata": {"labels": {"l": "yes"}}})).await;
    events.expect("ADDED b").await;
    api.ok(&format!("PATCH+merge {CM}/b"), json!({"data": {"x": "y"}})).await;
    events.expect("MODIFIED b").await;
    let moved = api.ok(&format!("PATCH+merge {CM}/b"), json!({"metadata": {"labels": {"l": "no"}}})).await;
    let deleted = events.expect("DELETED b").await;
    assert_eq!(deleted["object"]["metadata"]["resourceVersion"], moved["metadata"]["resourceVersion"]);
    assert_eq!(deleted["object"]["metadata"]["labels"]["l"], "yes", "a deletion shows the last version that matched");
    api.ok(&format!("DELETE {CM}/a"), json!(null)).await;
    events.expect("DELETED a").await;
}

#[tokio::test]
async fn watches_start_anywhere_in_the_ring() {
    let test = TestServer::start().await;
    let api = test.admin();
    let first = api.ok(&format!("POST {CM}"), labelled("a", "x")).await;
    api.ok(&format!("POST {CM}"), labelled("b", "x")).await;
    let rv = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = Events::open(&api, &format!("resourceVersion={rv}")).await;
    events.expect("ADDED b").await;
    // A server that started after these revisions does not have them in its ring.
    let second = keelson_apiserver::ApiServer::new(Default::default(), test.store.clone()).await.unwrap();
    let fresh = Api::new(second, keelson_apiserver::UserInfo::new("admin", ["system:masters"]));
    let (code, status) = fresh.call(&format!("GET {CM}?watch=1&resourceVersion={rv}"), json!(null)).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    assert!(status["message"].as_str().unwrap().starts_with("too old resource version: "), "{status}");
    let (code, _) = api.call(&format!("GET {CM}?watch=1&resourceVersion=999999"), json!(null)).await;
    assert_eq!(code, 504);
}

#[tokio::test]
async fn streaming_lists_end_with_a_bookmark() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok(&format!("POST {CM}"), labelled("a", "x")).await;
    let query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut events = Events::open(&api, query).await;
    events.expect("ADDED a").await;
    let end = events.expect("BOOKMARK").await;
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(end["object"]["kind"], "ConfigMap");
    let at: u64 = end["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert_eq!(at, keelson_store::Store::revision(&*test.store).await.unwrap());
    let (code, _) = api.call(&format!("GET {CM}?watch=1&sendInitialEvents=true"), json!(null)).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn quiet_watches_get_bookmarks_and_end_in_time() {
    let test = TestServer::start().await;
    let api = test.admin();
    let mut events = Events::open(&api, "allowWatchBookmarks=true&timeoutSeconds=100").await;
    // Something that this watch does not show.
    api.ok("POST /api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
    let newest = keelson_store::Store::revision(&*test.store).await.unwrap().to_string();
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    let bookmark = events.expect("BOOKMARK").await;
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], newest.as_str());
    assert!(begin.elapsed() < Duration::from_secs(61));
    while let Some(event) = events.next().await {
        assert_eq!(event["type"], "BOOKMARK");
    }
    assert!(begin.elapsed() >= Duration::from_secs(99));
}

#[tokio::test]
async fn slow_watchers_are_cut_off() {
    let test = TestServer::start().await;
    let api = test.admin();
    let mut events = Events::open(&api, "").await;
    api.ok(&format!("POST {CM}"), json!({"metadata": {"name": "a"}})).await;
    events.expect("ADDED a").await;
    // More bytes than the ring keeps alive for a reader that does not read.
    let filler = "x".repeat(900 << 10);
    for i in 0..24 {
        api.ok(&format!("PATCH+merge {CM}/a"), json!({"data": {"n": i.to_string(), "filler": filler}})).await;
    }
    let event = events.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn tables_are_watched() {
    let test = TestServer::start().await;
    let mut api = test.admin();
    api.ok(&format!("POST {CM}"), labelled("a", "x")).await;
    api.accept = Some("application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let mut events = Events::open(&api, "").await;
    let first = events.next().await.unwrap();
    assert_eq!((&first["object"]["kind"], &first["object"]["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert!(first["object"]["columnDefinitions"].is_array());
}

#[tokio::test]
async fn informers_work_in_process() {
    let test = TestServer::start().await;
    let maps: KubeApi<ConfigMap> = KubeApi::namespaced(test.client(), "default");
    let map = |name: &str| -> ConfigMap { serde_json::from_value(json!({"metadata": {"name": name}})).unwrap() };
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let name =
            format!("later-{:?}", config.initial_list_strategy).to_lowercase().replace(['{', '}', ' ', ':', '_'], "");
        let stream = watcher(maps.clone(), config).applied_objects();
        let mut stream = std::pin::pin!(stream);
        let seen = stream.try_next().await.unwrap().unwrap();
        assert_eq!(seen.metadata.name.as_deref(), Some("a"));
        maps.create(&PostParams::default(), &map(&name)).await.unwrap();
        let wait = async {
            while let Some(object) = stream.next().await {
                if object.unwrap().metadata.name.as_deref() == Some(&name) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
        maps.delete(&name, &Default::default()).await.unwrap();
    }
}
