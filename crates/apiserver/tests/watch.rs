//! Watches, in process.

mod support;

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api as KubeApi, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use support::events::Events;
use support::{Api, TestServer};

const CM: &str = "/api/v1/namespaces/default/configmaps";

/// Watches ConfigMaps.
async fn open(api: &Api, query: &str) -> Events {
    Events::of(api, &format!("{CM}?watch=1&{query}")).await
}

fn labelled(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": label}}})
}

#[tokio::test]
async fn selectors_turn_changes_into_additions_and_deletions() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok(&format!("POST {CM}"), labelled("a", "yes")).await;
    let mut events = open(&api, "labelSelector=l%3Dyes").await;
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
    let mut events = open(&api, &format!("resourceVersion={rv}")).await;
    events.expect("ADDED b").await;
    // A server that started after these revisions does not have them in its ring.
    let second = keelson_apiserver::ApiServer::new(Default::default(), test.store.clone()).await.unwrap();
    let fresh = Api::new(second, keelson_apiserver::UserInfo::new("admin", ["system:masters"]));
    let mut events = open(&fresh, &format!("resourceVersion={rv}")).await;
    let event = events.next().await.unwrap();
    let status = &event["object"];
    assert_eq!((&event["type"], &status["code"], &status["reason"]), (&json!("ERROR"), &json!(410), &json!("Expired")));
    assert!(status["message"].as_str().unwrap().starts_with("too old resource version: "), "{status}");
    assert_eq!(events.next().await, None);
    // A revision that has not happened yet: nothing is shown until it has.
    let newest = keelson_store::Store::revision(&*test.store).await.unwrap();
    let mut events = open(&api, &format!("resourceVersion={}", newest + 2)).await;
    // The server itself writes, too, so what comes first is known by its revision only.
    let mut first = None;
    for name in ["c", "d", "e"] {
        let made = api.ok(&format!("POST {CM}"), labelled(name, "x")).await;
        let revision: u64 = made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        first = first.or((revision > newest + 2).then_some(name));
    }
    events.expect(&format!("ADDED {}", first.expect("three writes are more than two"))).await;
}

#[tokio::test]
async fn watches_of_one_object() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok(&format!("POST {CM}"), labelled("a", "x")).await;
    api.ok(&format!("POST {CM}"), labelled("b", "x")).await;
    for path in [
        "/api/v1/watch/namespaces/default/configmaps/b?",
        "/api/v1/watch/namespaces/default/configmaps?fieldSelector=metadata.name%3Db",
        "/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3Db",
        "/api/v1/configmaps?watch=true&fieldSelector=metadata.name%3Db,metadata.namespace%3Ddefault",
    ] {
        Events::of(&api, path).await.expect("ADDED b").await;
    }
    let old = "/api/v1/watch/namespaces/default/configmaps/b";
    let (code, status) = api.call(&format!("GET {old}?fieldSelector=metadata.name%3Da"), json!(null)).await;
    assert_eq!((code, &status["message"]), (400, &json!("fieldSelector metadata.name doesn't match requested name")));
    assert_eq!(api.call(&format!("POST {old}"), json!({})).await.0, 405);
    let one = api.ok(&format!("GET {CM}/b?watch=1"), json!(null)).await;
    assert_eq!(one["kind"], "ConfigMap", "by its own path an object is got");
}

#[tokio::test]
async fn options_of_watches_are_checked() {
    let test = TestServer::start().await;
    let api = test.admin();
    for (query, code, message) in [
        ("sendInitialEvents=true", 422, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        (
            "sendInitialEvents=false&resourceVersionMatch=Exact",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
             resourceVersionMatch to NotOlderThan, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \
             \"NotOlderThan\"]",
        ),
        (
            "resourceVersionMatch=NotOlderThan",
            422,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        ("resourceVersion=x", 400, "invalid resource version: "),
        ("timeoutSeconds=soon", 400, "strconv.ParseInt: parsing \"soon\": invalid syntax"),
        ("labelSelector=a%20b", 400, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("fieldSelector=data%3Dx", 400, "\"data\" is not a known field selector: only"),
    ] {
        let (got, status) = api.call(&format!("GET {CM}?watch=1&{query}"), json!(null)).await;
        assert_eq!(got, code, "{query}: {status}");
        assert!(status["message"].as_str().unwrap().contains(message), "{query}: {status}");
    }
}

#[tokio::test]
async fn streaming_lists_end_with_a_bookmark() {
    let test = TestServer::start().await;
    let api = test.admin();
    let made = api.ok(&format!("POST {CM}"), labelled("a", "x")).await;
    let revision = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    let query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut events = open(&api, query).await;
    events.expect("ADDED a").await;
    let end = events.expect("BOOKMARK").await;
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(end["object"]["kind"], "ConfigMap");
    // The server itself may write meanwhile.
    let newest = test.store.revision().await.unwrap();
    assert!((revision(&made)..=newest).contains(&revision(&end["object"])), "{end}");
    let (code, _) = api.call(&format!("GET {CM}?watch=1&sendInitialEvents=true"), json!(null)).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn quiet_watches_get_bookmarks_and_end_in_time() {
    let test = TestServer::start().await;
    let api = test.admin();
    let mut events = open(&api, "allowWatchBookmarks=true&timeoutSeconds=100").await;
    // Something that this watch does not show.
    api.ok("POST /api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
    let newest = keelson_store::Store::revision(&*test.store).await.unwrap();
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    let bookmark = events.expect("BOOKMARK").await;
    let told: u64 = bookmark["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(told >= newest, "{told} {newest}: the server itself may have written since");
    assert!(begin.elapsed() < Duration::from_secs(61));
    let mut last = Duration::ZERO;
    while let Some(event) = events.next().await {
        assert_eq!(event["type"], "BOOKMARK");
        last = begin.elapsed();
    }
    assert!(begin.elapsed() >= Duration::from_secs(99));
    let before_end = begin.elapsed().saturating_sub(last).as_secs_f64();
    assert!((1.5..2.5).contains(&before_end), "the last bookmark came {before_end} s before the end");
}

#[tokio::test]
async fn slow_watchers_are_cut_off() {
    let test = TestServer::start().await;
    let api = test.admin();
    let mut events = open(&api, "").await;
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
    let mut events = open(&api, "").await;
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
