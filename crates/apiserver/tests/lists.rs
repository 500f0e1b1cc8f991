//! Lists, in process: which revision they are owed, pages, selectors.

mod support;

use keelson_apiserver::{ApiServer, UserInfo};
use serde_json::{Value, json};
use support::{Api, TestServer};

const CM: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": label}}})
}

/// `a,b` and the `continue` token.
async fn names(api: &Api, query: &str) -> (String, Value) {
    let list = api.ok(&format!("GET {CM}?{query}"), json!(null)).await;
    let names: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    (names.join(","), list["metadata"].clone())
}

async fn revision(test: &TestServer) -> u64 {
    test.store.revision().await.unwrap()
}

/// A server whose rings are empty.
async fn fresh(test: &TestServer) -> Api {
    let server = ApiServer::new(Default::default(), test.store.clone()).await.unwrap();
    Api::new(server, UserInfo::new("admin", ["system:masters"]))
}

#[tokio::test]
async fn revisions_are_what_was_asked_for() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok(&format!("POST {CM}"), map("a", "x")).await;
    api.ok(&format!("POST {CM}"), map("b", "x")).await;
    let then = revision(&test).await;
    api.ok(&format!("DELETE {CM}/a"), json!(null)).await;
    api.ok(&format!("PATCH+merge {CM}/b"), json!({"metadata": {"labels": {"l": "y"}}})).await;
    api.ok(&format!("POST {CM}"), map("c", "x")).await;
    // One server shows the past from its ring, one from the store.
    for api in [&api, &fresh(&test).await] {
        for (query, expected) in [
            (String::new(), "b,c"),
            ("resourceVersion=0".into(), "b,c"),
            ("resourceVersion=0&limit=1".into(), "b"),
            (format!("resourceVersion={then}"), "b,c"),
            (format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan"), "b,c"),
            (format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan&limit=1"), "b"),
            (format!("resourceVersion={then}&resourceVersionMatch=Exact"), "a,b"),
            (format!("resourceVersion={then}&resourceVersionMatch=Exact&limit=1"), "a"),
            (format!("resourceVersion={then}&limit=5"), "a,b"),
            (format!("resourceVersion={then}&resourceVersionMatch=Exact&labelSelector=l%3Dx"), "a,b"),
            (format!("resourceVersion={then}&resourceVersionMatch=Exact&fieldSelector=metadata.name%3Da"), "a"),
        ] {
            let (found, metadata) = names(api, &query).await;
            assert_eq!(found, expected, "{query}");
            if expected.starts_with('a') {
                assert_eq!(metadata["resourceVersion"], then.to_string().as_str(), "{query}");
            }
        }
    }
    let (code, status) = api.call(&format!("GET {CM}?resourceVersion={}", then + 100), json!(null)).await;
    let message = format!("Timeout: Too large resource version: {}, current: {}", then + 100, revision(&test).await);
    assert_eq!((code, status["message"].as_str().unwrap()), (504, message.as_str()));
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn expired_pages_say_how_to_go_on() {
    let test = TestServer::start().await;
    let api = test.admin();
    for name in ["a", "b", "c", "d"] {
        api.ok(&format!("POST {CM}"), map(name, "x")).await;
    }
    let then = revision(&test).await;
    let (first, metadata) = names(&api, "limit=2").await;
    assert_eq!((first.as_str(), &metadata["remainingItemCount"]), ("a,b", &json!(2)));
    let next = metadata["continue"].as_str().unwrap();
    let (_, selected) = names(&api, "limit=2&labelSelector=l%3Dx").await;
    assert_eq!(selected.get("remainingItemCount"), None, "what a selector leaves is not counted");
    api.ok(&format!("DELETE {CM}/c"), json!(null)).await;
    api.ok(&format!("POST {CM}"), map("e", "x")).await;
    test.store.compact(revision(&test).await).await.unwrap();
    // The ring still has it; a server that started later does not.
    assert_eq!(names(&api, &format!("limit=1&continue={next}")).await.0, "c");
    let fresh = fresh(&test).await;
    let (code, status) = fresh.call(&format!("GET {CM}?limit=1&continue={next}"), json!(null)).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    assert!(status["message"].as_str().unwrap().contains("results in an inconsistent list"), "{status}");
    let inconsistent = status["metadata"]["continue"].as_str().unwrap();
    let (rest, metadata) = names(&fresh, &format!("limit=1&continue={inconsistent}")).await;
    assert_eq!((rest.as_str(), &metadata["remainingItemCount"]), ("d", &json!(1)));
    let next = metadata["continue"].as_str().unwrap();
    assert_eq!(names(&fresh, &format!("continue={next}")).await.0, "e");
    let exact = format!("GET {CM}?resourceVersion={then}&resourceVersionMatch=Exact");
    let (code, status) = fresh.call(&exact, json!(null)).await;
    let too_old = json!("The resourceVersion for the provided list is too old.");
    assert_eq!((code, &status["message"], &status["metadata"]), (410, &too_old, &json!({})));
}

#[tokio::test]
async fn options_of_lists_are_checked() {
    let test = TestServer::start().await;
    let api = test.admin();
    let head = "ListOptions.meta.k8s.io \"\" is invalid: ";
    for (query, code, message) in [
        ("limit=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
        ("limit=99999999999999999999", 400, "strconv.ParseInt: parsing \"99999999999999999999\": value out of range".into()),
        ("resourceVersion=-1", 400, "invalid resource version: resourceVersion: Invalid value: \"-1\": strconv.ParseUint: parsing \"-1\": invalid syntax".into()),
        (
            "resourceVersionMatch=Exact",
            422,
            format!("{head}resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            422,
            format!("{head}resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
        ),
        (
            "resourceVersionMatch=Newer&resourceVersion=1",
            422,
            format!("{head}resourceVersionMatch: Unsupported value: \"Newer\": supported values: \"Exact\", \"NotOlderThan\", \"\""),
        ),
        (
            "resourceVersionMatch=Exact&continue=abc",
            422,
            format!("{head}[resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided]"),
        ),
        ("sendInitialEvents=true", 422, format!("{head}sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list")),
        // {"v":"meta.k8s.io/v1","rv":1,"start":"a"}
        (
            "resourceVersion=5&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0",
            400,
            "specifying resource version is not allowed when using continue".into(),
        ),
        ("labelSelector=a+in+x", 400, "unable to parse requirement: found 'x' expected: '('".into()),
        ("labelSelector=a%3Db%2C", 400, "found '', expected: identifier after ','".into()),
        ("fieldSelector=a", 400, "invalid selector: 'a'; can't understand 'a'".into()),
        (
            "fieldSelector=spec.x%3D1",
            400,
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"".into(),
        ),
    ] {
        let (got, status) = api.call(&format!("GET {CM}?{query}"), json!(null)).await;
        assert_eq!((got, status["message"].as_str().unwrap_or_default()), (code, message.as_str()), "{query}");
    }
    let (code, status) = api.call(&format!("GET {CM}?continue=!"), json!(null)).await;
    assert_eq!(code, 400);
    assert!(status["message"].as_str().unwrap().starts_with("invalid continue token: continue key is not valid: "));
    let (code, status) = api.call("GET /api/v1/pods?fieldSelector=spec.x%3D1", json!(null)).await;
    assert_eq!((code, &status["message"]), (400, &json!("field label not supported: spec.x")));
    assert_eq!(names(&api, "limit=-1").await.0, "", "a negative limit is none");
}

#[tokio::test]
async fn selectors_choose() {
    let test = TestServer::start().await;
    let api = test.admin();
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "z")] {
        api.ok(&format!("POST {CM}"), map(name, label)).await;
    }
    api.ok(&format!("POST {CM}"), json!({"metadata": {"name": "d"}})).await;
    for (query, expected) in [
        ("labelSelector=l", "a,b,c"),
        ("labelSelector=!l", "d"),
        ("labelSelector=l+in+(x,z)", "a,c"),
        ("labelSelector=l+notin+(x,z)", "b,d"),
        ("labelSelector=l!%3Dx", "b,c,d"),
        ("labelSelector=l,l!%3Dx", "b,c"),
        ("labelSelector=l%3D%3Dy", "b"),
        ("fieldSelector=metadata.name!%3Da", "b,c,d"),
        ("fieldSelector=metadata.name!%3Da,metadata.name!%3Db", "c,d"),
        ("fieldSelector=metadata.name%3Da,metadata.namespace%3Ddefault", "a"),
        ("fieldSelector=metadata.name%3Da,metadata.name%3Db", ""),
        ("fieldSelector=metadata.namespace%3Dother", ""),
        ("fieldSelector=metadata.name%3Da&labelSelector=l%3Dy", ""),
        ("labelSelector=l&limit=2", "a,b"),
    ] {
        assert_eq!(names(&api, query).await.0, expected, "{query}");
    }
    let list = api
        .ok("GET /apis/rbac.authorization.k8s.io/v1/clusterroles?fieldSelector=metadata.namespace%3Dx", json!(null))
        .await;
    assert_eq!(list["items"], json!([]));
    let pod = |name: &str, node: &str| json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    for (name, node) in [("p", "one"), ("q", "two")] {
        api.ok("POST /api/v1/namespaces/default/pods", pod(name, node)).await;
    }
    for (selector, expected) in [
        ("spec.nodeName%3Done", "p"),
        ("spec.nodeName!%3Done", "q"),
        ("status.phase%3DPending,spec.nodeName%3Dtwo", "q"),
        ("spec.restartPolicy!%3DAlways", ""),
    ] {
        let list = api.ok(&format!("GET /api/v1/pods?fieldSelector={selector}"), json!(null)).await;
        let names: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names.join(","), expected, "{selector}");
    }
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let test = TestServer::start().await;
    let api = test.admin();
    for i in 0..40 {
        api.ok(&format!("POST {CM}"), map(&format!("m{i:02}"), if i < 35 { "old" } else { "new" })).await;
    }
    let all = async |query: &str| {
        let list = api.ok(&format!("DELETE {CM}?{query}"), json!(null)).await;
        assert_eq!(list["kind"], "ConfigMapList");
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(all("labelSelector=l%3Dold&dryRun=All").await, 35);
    assert_eq!(all("labelSelector=l%3Dold&limit=2").await, 2);
    assert_eq!(all("labelSelector=l%3Dold").await, 33);
    assert_eq!(all("fieldSelector=metadata.name!%3Dm39").await, 4);
    assert_eq!(names(&api, "").await.0, "m39");
    for (query, code) in [("labelSelector=a%20b", 400), ("resourceVersionMatch=Exact", 422), ("dryRun=Some", 422)] {
        assert_eq!(api.call(&format!("DELETE {CM}?{query}"), json!(null)).await.0, code, "{query}");
    }
    assert_eq!(names(&api, "").await.0, "m39");
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_in_nobody_elses_way() {
    let test = TestServer::start().await;
    let running = test.admin();
    running.ok(&format!("POST {CM}"), map("a", "x")).await;
    let key = "/registry/configmaps/default/broken";
    test.store.put(key, "no object".into(), keelson_store::Expect::Absent).await.unwrap();
    // One server sees it come, the other starts with it.
    for api in [&running, &fresh(&test).await] {
        let status = api.eventually(&format!("GET {CM}/broken"), |code, _| code == 500).await;
        let message = status["message"].as_str().unwrap();
        assert!(message.contains("unable to decode") && message.contains(key), "{message}");
        assert_eq!(api.call(&format!("GET {CM}"), json!(null)).await.0, 500);
        api.ok(&format!("GET {CM}/a"), json!(null)).await;
        api.ok("GET /api/v1/namespaces/kube-system/configmaps", json!(null)).await;
        api.ok("GET /api/v1/namespaces/default/secrets", json!(null)).await;
    }
    test.store.delete(key, keelson_store::Expect::Any).await.unwrap();
    running.eventually(&format!("GET {CM}"), |code, _| code == 200).await;
}

#[tokio::test]
async fn what_is_left_is_counted_once() {
    let test = TestServer::start().await;
    let api = test.admin();
    for name in ["a", "b", "c", "d", "e"] {
        api.ok(&format!("POST {CM}"), map(name, "x")).await;
    }
    // Pages of all namespaces, and of one.
    for path in ["/api/v1/configmaps", CM] {
        let whole = api.ok(&format!("GET {path}"), json!(null)).await["items"].as_array().unwrap().len();
        let (mut seen, mut query) = (0, "limit=2".to_owned());
        loop {
            let page = api.ok(&format!("GET {path}?{query}"), json!(null)).await;
            seen += page["items"].as_array().unwrap().len();
            let remaining = page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0) as usize;
            assert_eq!(seen + remaining, whole, "{path} {query}");
            let Some(next) = page["metadata"]["continue"].as_str() else { break };
            assert!(remaining > 0);
            // Nothing that happens in between changes what the pages are of.
            api.call(&format!("POST {CM}"), map(&format!("z{seen}"), "x")).await;
            query = format!("limit=2&continue={next}");
        }
        assert_eq!(seen, whole);
    }
}
