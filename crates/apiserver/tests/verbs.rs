//! The generic verbs, in process.

#[path = "verbs/services.rs"]
mod services;
mod support;

use keelson_apiserver::UserInfo;
use serde_json::{Value, json};
use support::{Api, TestServer};

const CM: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn cm(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "b"}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// Sends requests in order; each says the code and a part of the answer that it expects.
async fn check(api: &Api, cases: &[(&str, Value, u16, &str)]) {
    for (request, body, code, part) in cases {
        let (got, text, _) = api.raw(request, body.to_string()).await;
        assert!(got == *code && text.contains(part), "{request} {body}\n  wanted {code} {part}\n  got {got} {text}");
    }
}

#[tokio::test]
async fn errors_are_upstreams() {
    let test = TestServer::start().await;
    let api = test.admin();
    let one = format!("{CM}/one");
    let get = format!("GET {one}");
    let put = format!("PUT {one}");
    let merge = format!("PATCH+merge {one}");
    let post = format!("POST {CM}");
    let strict = format!("POST {CM}?fieldValidation=Strict");
    let post_elsewhere = "POST /api/v1/namespaces/missing/configmaps";
    let modified = "the object has been modified; please apply your changes to the latest version and try again";
    check(
        &api,
        &[
            (&get, json!(null), 404, r#""message":"configmaps \"one\" not found""#),
            (&post, cm("one"), 201, r#""name":"one""#),
            (&post, cm("one"), 409, r#"configmaps \"one\" already exists"#),
            (&post, cm("Bad_Name"), 422, "a lowercase RFC 1123 subdomain must consist of"),
            (&post, json!({"metadata": {}}), 422, "name or generateName is required"),
            (&post, json!({"kind": "Pod", "metadata": {"name": "x"}}), 400, "cannot be handled as a ConfigMap"),
            (
                &post,
                json!({"apiVersion": "v2", "metadata": {"name": "x"}}),
                400,
                "does not match the expected API version",
            ),
            (&post, json!({"metadata": {"name": "x"}, "data": 7}), 400, "BadRequest"),
            (&post, json!([]), 400, "BadRequest"),
            (
                &strict,
                json!({"metadata": {"name": "x"}, "foo": 1}),
                400,
                r#"strict decoding error: unknown field \"foo\""#,
            ),
            (post_elsewhere, cm("x"), 404, r#"namespaces \"missing\" not found"#),
            (&put, json!({"metadata": {"name": "one", "resourceVersion": "1"}}), 409, modified),
            (&put, json!({"metadata": {"name": "two"}}), 400, "does not match the name on the URL (one)"),
            (
                &put,
                json!({"metadata": {"name": "one", "uid": "x"}}),
                409,
                "Precondition failed: UID in precondition: x",
            ),
            (&put, json!({"metadata": {"name": "one", "namespace": "x"}}), 400, "does not match the namespace sent"),
            (&merge, json!({"metadata": {"resourceVersion": "1"}}), 409, modified),
            (&merge, json!({"data": {"c": "d"}}), 200, r#""c":"d""#),
            (&format!("PATCH {one}"), json!({}), 415, "the body of the request was in an unknown format"),
            (
                &format!("PATCH+application/apply-patch+yaml {one}"),
                json!({}),
                422,
                "fieldManager: Required value: is required for apply patch",
            ),
            (&format!("PATCH+json {one}"), json!([{"op": "remove", "path": "/data/zz"}]), 422, "Invalid"),
            (&format!("POST {one}"), cm("one"), 405, "MethodNotAllowed"),
            (
                &format!("DELETE {one}"),
                json!({"preconditions": {"uid": "x"}}),
                409,
                "the UID in the precondition (x) does not",
            ),
            (&format!("DELETE {one}"), json!({"propagationPolicy": "x"}), 422, "propagationPolicy"),
            (&format!("DELETE {one}"), json!(null), 200, r#""status":"Success""#),
            (&get, json!(null), 404, "NotFound"),
            ("GET /api/v1/foos", json!(null), 404, "the server could not find the requested resource"),
            ("GET /api/v1/pods/x", json!(null), 404, "the server could not find the requested resource"),
            ("DELETE /api/v1/namespaces/default", json!(null), 403, "this namespace may not be deleted"),
            ("GET /api/v1/configmaps?labelSelector=a%20b", json!(null), 400, "unable to parse requirement"),
            ("GET /api/v1/configmaps?resourceVersion=x", json!(null), 400, "invalid resource version: "),
            ("GET /api/v1/configmaps?limit=x", json!(null), 400, "invalid syntax"),
            ("GET /api/v1/configmaps?continue=x", json!(null), 400, "continue key is not valid"),
            (
                "GET /api/v1/configmaps?resourceVersionMatch=Exact",
                json!(null),
                422,
                "is forbidden unless resourceVersion",
            ),
        ],
    )
    .await;
    let (code, text, _) = api.raw(&post, "{".into()).await;
    assert!(code == 400 && text.contains("json parse error"), "{code} {text}");
    let (code, text, _) = api.raw(&post, format!("\"{}\"", "x".repeat(3 << 20))).await;
    assert!(code == 413 && text.contains("RequestEntityTooLarge"), "{code} {text}");
    let (_, _, warnings) = api.raw(&post, json!({"metadata": {"name": "w"}, "foo": 1}).to_string()).await;
    assert_eq!(warnings, [r#"299 - "unknown field \"foo\"""#]);
}

#[tokio::test]
async fn names_are_generated_and_dry_runs_change_nothing() {
    let test = TestServer::start().await;
    test.settled().await;
    let api = test.admin();
    let generated = api.ok(&format!("POST {CM}"), json!({"metadata": {"generateName": "x-"}})).await;
    let name = generated["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
    let before = keelson_store::Store::revision(&*test.store).await.unwrap();
    api.ok(&format!("POST {CM}?dryRun=All"), cm("dry")).await;
    api.ok(&format!("DELETE {CM}/{name}?dryRun=All"), json!(null)).await;
    api.ok(&format!("PATCH+merge {CM}/{name}?dryRun=All"), json!({"data": {"a": "c"}})).await;
    // A patch that changes nothing writes nothing either.
    api.ok(&format!("PATCH+merge {CM}/{name}"), json!({"metadata": {"generateName": "x-"}})).await;
    assert_eq!(keelson_store::Store::revision(&*test.store).await.unwrap(), before);
    let (code, _) = api.call(&format!("POST {CM}?dryRun=Some"), cm("dry")).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn lists_come_in_pages_of_one_revision() {
    let test = TestServer::start().await;
    let api = test.admin();
    for i in 0..7 {
        let labels = json!({"parity": if i % 2 == 0 { "even" } else { "odd" }});
        api.ok(&format!("POST {CM}"), json!({"metadata": {"name": format!("c{i}"), "labels": labels}})).await;
    }
    let (mut names, mut next) = (Vec::new(), String::new());
    loop {
        let page = api.ok(&format!("GET {CM}?limit=3&continue={next}"), json!(null)).await;
        names.extend(
            page["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        if names.len() == 3 {
            assert_eq!(page["metadata"]["remainingItemCount"], 4);
            // What happens between the pages is not seen.
            api.ok(&format!("POST {CM}"), cm("c5x")).await;
            api.ok(&format!("DELETE {CM}/c6"), json!(null)).await;
        }
        next = page["metadata"]["continue"].as_str().unwrap_or_default().replace('+', "%2B");
        if next.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4", "c5", "c6"]);
    let list = api.ok(&format!("GET {CM}?labelSelector=parity%3Dodd"), json!(null)).await;
    assert_eq!(list["kind"], "ConfigMapList");
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    assert_eq!(list["items"][0].get("kind"), None, "items of a list carry no type");
    let one = api.ok("GET /api/v1/configmaps?fieldSelector=metadata.name%3Dc1", json!(null)).await;
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    let (code, status) = api.call("GET /api/v1/configmaps?resourceVersion=999999", json!(null)).await;
    assert_eq!((code, &status["reason"]), (504, &json!("Timeout")));
    let gone = api.ok(&format!("DELETE {CM}?labelSelector=parity%3Dodd"), json!(null)).await;
    assert_eq!(gone["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn tables_and_metadata_are_made_when_asked_for() {
    let test = TestServer::start().await;
    let mut api = test.admin();
    api.ok(&format!("POST {CM}"), cm("one")).await;
    api.accept = Some("application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let table = api.ok(&format!("GET {CM}"), json!(null)).await;
    assert_eq!(table["kind"], "Table");
    let columns: Vec<_> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let bare = api.ok(&format!("GET {CM}/one?includeObject=None"), json!(null)).await;
    assert_eq!((&bare["rows"][0]["cells"][0], bare["rows"][0].get("object")), (&json!("one"), None));
    api.accept = Some("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    let list = api.ok(&format!("GET {CM}"), json!(null)).await;
    assert_eq!(list["items"][0].get("data"), None);
    api.accept = Some("application/yaml");
    let (_, yaml, _) = api.raw(&format!("GET {CM}/one"), "null".into()).await;
    assert!(yaml.contains("kind: ConfigMap"), "{yaml}");
    api.accept = Some("image/png");
    assert_eq!(api.call(&format!("GET {CM}"), json!(null)).await.0, 406);
}

#[tokio::test]
async fn pods_are_deleted_gracefully_and_finalizers_wait() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let (created, text, _) = api.raw(&format!("POST {PODS}"), pod("p").to_string()).await;
    assert_eq!(created, 201, "{text}");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    api.ok(&format!("POST {PODS}/p/binding"), binding.clone()).await;
    let (code, again) = api.call(&format!("POST {PODS}/p/binding"), binding).await;
    assert_eq!((code, &again["reason"]), (409, &json!("Conflict")));
    let bound = api.ok(&format!("GET {PODS}?fieldSelector=spec.nodeName%3Dn1"), json!(null)).await;
    assert_eq!(bound["items"][0]["status"]["conditions"][0]["type"], "PodScheduled");
    let marked = api.ok(&format!("DELETE {PODS}/p"), json!(null)).await;
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = api.ok(&format!("DELETE {PODS}/p"), json!({"gracePeriodSeconds": 5})).await;
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let least = api.ok(&format!("DELETE {PODS}/p"), json!({"gracePeriodSeconds": -1})).await;
    assert_eq!(least["metadata"]["deletionGracePeriodSeconds"], 1, "less than nothing is not at once");
    let kubelet = test.api(UserInfo::new("system:node:n1", ["system:nodes"]));
    kubelet.ok(&format!("PATCH+merge {PODS}/p/status"), json!({"status": {"phase": "Succeeded"}})).await;
    let other = test.api(UserInfo::new("system:node:n2", ["system:nodes"]));
    let (code, refused) = other.call(&format!("DELETE {PODS}/p"), json!({"gracePeriodSeconds": 0})).await;
    let why = "pods \"p\" is forbidden: node \"n2\" can only delete pods with spec.nodeName set to itself";
    assert_eq!((code, &refused["message"]), (403, &json!(why)));
    let gone = kubelet.ok(&format!("DELETE {PODS}/p"), json!({"gracePeriodSeconds": 0})).await;
    assert_eq!((&gone["kind"], &gone["metadata"]["name"]), (&json!("Pod"), &json!("p")), "pods answer with themselves");
    assert_eq!(api.call(&format!("GET {PODS}/p"), json!(null)).await.0, 404);

    api.ok(&format!("POST {PODS}"), pod("patient")).await;
    let binding = json!({"metadata": {"name": "patient"}, "target": {"kind": "Node", "name": "n1"}});
    api.ok(&format!("POST {PODS}/patient/binding"), binding).await;
    let delete = format!("DELETE {PODS}/patient");
    let marked = api.ok(&delete, json!({"gracePeriodSeconds": i64::MAX})).await;
    assert!(marked["metadata"]["deletionTimestamp"].as_str().is_some_and(|at| at.starts_with("21")), "{marked}");
    let shorter = api.ok(&delete, json!({"gracePeriodSeconds": 5})).await;
    assert!(shorter["metadata"]["deletionTimestamp"].as_str().is_some_and(|at| at.starts_with("20")), "{shorter}");

    let held = json!({"metadata": {"name": "h", "finalizers": ["example.com/wait"]}});
    api.ok(&format!("POST {CM}"), held).await;
    let marked = api.ok(&format!("DELETE {CM}/h"), json!(null)).await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    api.ok(&format!("PATCH+merge {CM}/h"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(api.call(&format!("GET {CM}/h"), json!(null)).await.0, 404);
    api.ok(&format!("POST {CM}"), cm("f")).await;
    let foreground = api.ok(&format!("DELETE {CM}/f"), json!({"propagationPolicy": "Foreground"})).await;
    assert_eq!(foreground["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn namespaces_go_when_they_are_finalized() {
    let test = TestServer::start().await;
    let api = test.admin();
    let created = api.ok("POST /api/v1/namespaces", json!({"metadata": {"name": "n"}})).await;
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    let marked = api.ok("DELETE /api/v1/namespaces/n", json!(null)).await;
    assert_eq!(marked["status"]["phase"], "Terminating");
    let (code, status) = api.call("POST /api/v1/namespaces/n/configmaps", cm("x")).await;
    assert_eq!((code, &status["details"]["causes"][0]["reason"]), (403, &json!("NamespaceTerminating")));
    assert_eq!(api.call("DELETE /api/v1/namespaces/n", json!(null)).await.0, 409);
    let mut empty = marked.clone();
    empty["spec"] = json!({"finalizers": []});
    api.ok("PUT /api/v1/namespaces/n/finalize", empty).await;
    assert_eq!(api.call("GET /api/v1/namespaces/n", json!(null)).await.0, 404);
}

#[tokio::test]
async fn scale_and_status_are_separate() {
    let test = TestServer::start().await;
    let api = test.admin();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template});
    let body = json!({"metadata": {"name": "d"}, "spec": spec, "status": {"replicas": 9}});
    let created = api.ok(&format!("POST {path}"), body).await;
    assert_eq!(created["status"], json!({}));
    for endpoint in ["d", "d/status"] {
        let marked = json!({"metadata": {"labels": {"endpoint": endpoint.replace('/', "-")}}});
        let marked = api.ok(&format!("PATCH+merge {path}/{endpoint}"), marked).await;
        assert_eq!(marked["status"], json!({}), "an empty status stays: {endpoint}");
    }
    let scale = api.ok(&format!("GET {path}/d/scale"), json!(null)).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("a=b")));
    api.ok(&format!("PATCH+merge {path}/d/scale"), json!({"spec": {"replicas": 5}})).await;
    let mut scale = api.ok(&format!("GET {path}/d/scale"), json!(null)).await;
    assert_eq!(scale["spec"]["replicas"], 5);
    scale["spec"]["replicas"] = json!(-1);
    assert_eq!(api.call(&format!("PUT {path}/d/scale"), scale).await.0, 422);
    let status = json!({"spec": {"replicas": 1}, "status": {"replicas": 5, "observedGeneration": 2}});
    let updated = api.ok(&format!("PATCH+merge {path}/d/status"), status).await;
    assert_eq!((&updated["spec"]["replicas"], &updated["status"]["replicas"]), (&json!(5), &json!(5)));
    assert_eq!(updated["metadata"]["generation"], 2);
}

#[tokio::test]
async fn services_get_addresses_and_give_them_back() {
    let test = TestServer::start().await;
    let api = test.admin();
    let path = "/api/v1/namespaces/default/services";
    let service =
        |name: &str, ip: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    api.ok(&format!("POST {path}"), service("a", "10.96.0.50")).await;
    let (code, status) = api.call(&format!("POST {path}"), service("b", "10.96.0.50")).await;
    assert_eq!(code, 422, "{status}");
    assert!(status["message"].as_str().unwrap().contains("provided IP is already allocated"), "{status}");
    api.ok(&format!("DELETE {path}/a"), json!(null)).await;
    api.ok(&format!("POST {path}"), service("b", "10.96.0.50")).await;
    let node_port = api.ok(&format!("PATCH+merge {path}/b"), json!({"spec": {"type": "NodePort"}})).await;
    assert!(node_port["spec"]["ports"][0]["nodePort"].as_u64().unwrap() >= 30000);
    let back = api.ok(&format!("PATCH+merge {path}/b"), json!({"spec": {"type": "ClusterIP"}})).await;
    assert_eq!(back["spec"]["clusterIP"], "10.96.0.50");
}

#[tokio::test]
async fn events_are_one_thing_in_two_groups() {
    let test = TestServer::start().await;
    let api = test.admin();
    let event = json!({
        "metadata": {"name": "e"}, "reportingController": "example.com/c", "reportingInstance": "i", "action": "Act",
        "reason": "Because", "type": "Normal", "note": "said", "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
    });
    api.ok("POST /apis/events.k8s.io/v1/namespaces/default/events", event).await;
    let core = api.ok("GET /api/v1/namespaces/default/events/e", json!(null)).await;
    assert_eq!((&core["message"], &core["involvedObject"]["name"]), (&json!("said"), &json!("p")));
    let list = api.ok("GET /apis/events.k8s.io/v1/events", json!(null)).await;
    assert_eq!((&list["kind"], &list["items"][0]["note"]), (&json!("EventList"), &json!("said")));
    let selected = api.ok("GET /api/v1/events?fieldSelector=involvedObject.name%3Dp", json!(null)).await;
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let test = TestServer::start().await;
    let api = test.admin();
    let created = api.ok(&format!("POST {CM}"), cm("kept")).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.60", "ports": [{"port": 80}]}});
    api.ok("POST /api/v1/namespaces/default/services", service.clone()).await;
    let second = keelson_apiserver::ApiServer::new(Default::default(), test.store.clone()).await.unwrap();
    let again = support::Api::new(second, UserInfo::new("admin", ["system:masters"]));
    assert_eq!(again.ok(&format!("GET {CM}/kept"), json!(null)).await, created);
    let mut other = service;
    other["metadata"]["name"] = "t".into();
    assert_eq!(again.call("POST /api/v1/namespaces/default/services", other).await.0, 422);
}
