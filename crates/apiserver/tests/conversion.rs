//! Custom resources whose versions a webhook converts, in process: the webhook is a server of the test's own.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::https::Https;
use support::{Pki, TestServer};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/example.com/v1/namespaces/default/points";
const V2: &str = "/apis/example.com/v2/namespaces/default/points";

/// What the webhook does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Works,
    SaysNo,
    ForgetsOne,
    Renames,
    AnswersAnother,
    Breaks,
    /// Refuses whatever comes with the object of this name.
    Dislikes(&'static str),
}

/// `v1` has `spec.at: "x,y"`, `v2` has `spec.x` and `spec.y`.
fn convert(object: &Value, wanted: &str, mood: Mood) -> Value {
    let mut object = object.clone();
    let spec = object["spec"].clone();
    object["apiVersion"] = wanted.into();
    object["spec"] = if wanted.ends_with("/v2") {
        let (x, y) = spec["at"].as_str().and_then(|at| at.split_once(',')).unwrap_or(("0", "0"));
        json!({"x": x.parse::<i64>().unwrap_or(0), "y": y.parse::<i64>().unwrap_or(0)})
    } else {
        json!({"at": format!("{},{}", spec["x"], spec["y"])})
    };
    object["metadata"]["annotations"] = json!({"converted": "yes"});
    // Only labels and annotations are the webhook's to change.
    object["metadata"]["finalizers"] = json!(["example.com/mischief"]);
    if mood == Mood::Renames {
        object["metadata"]["name"] = "other".into();
    }
    object
}

fn answer(review: &Value, mood: Mood) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let mut objects: Vec<Value> =
        request["objects"].as_array().unwrap().iter().map(|object| convert(object, wanted, mood)).collect();
    if mood == Mood::ForgetsOne {
        objects.pop();
    }
    let result = match mood {
        Mood::SaysNo => json!({"status": "Failure", "message": "no such point"}),
        _ => json!({"status": "Success"}),
    };
    let named = |name: &str| objects.iter().any(|object| object["metadata"]["name"] == name);
    let result = match mood {
        Mood::Dislikes(name) if named(name) => json!({"status": "Failure", "message": format!("not {name}")}),
        _ => result,
    };
    let uid = if mood == Mood::AnswersAnother { json!("x") } else { request["uid"].clone() };
    json!({"kind": review["kind"], "apiVersion": review["apiVersion"],
        "response": {"uid": uid, "convertedObjects": objects, "result": result}})
}

/// A definition with two versions, stored as v1, whose webhook, which is returned, is in this mood; served.
async fn define(server: &TestServer, mood: Arc<Mutex<Mood>>) -> Https {
    let webhook = serve(&server.pki, mood, Arc::default()).await;
    let bundle = base64::prelude::BASE64_STANDARD.encode(&server.pki.ca_pem);
    let api = server.admin();
    api.ok(&format!("POST {CRDS}"), definition(webhook.address, &bundle, "v1")).await;
    api.eventually(&format!("GET {V2}"), |code, _| code == 200).await;
    webhook
}

/// Managers, the versions that they wrote in, and what of the spec they own.
fn owners(object: &Value) -> Vec<(&str, &str, Vec<&str>)> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut owners: Vec<_> = entries
        .map(|entry| {
            let spec = entry["fieldsV1"]["f:spec"].as_object().into_iter().flatten();
            let fields = spec.map(|(name, _)| name.as_str()).filter(|name| *name != ".").collect();
            (entry["manager"].as_str().unwrap(), entry["apiVersion"].as_str().unwrap(), fields)
        })
        .collect();
    owners.sort_unstable();
    owners
}

/// Fields that one version names otherwise are owned by whoever wrote what they are made from.
#[tokio::test]
async fn owners_in_two_versions() {
    let server = TestServer::start().await;
    let api = server.admin();
    let mood = Arc::new(Mutex::new(Mood::Works));
    let _webhook = define(&server, mood.clone()).await;
    let apply = |path: &str, more: &str, spec: Value| {
        let api_version = if path == V1 { "example.com/v1" } else { "example.com/v2" };
        let config = json!({"apiVersion": api_version, "kind": "Point", "metadata": {"name": "a"}, "spec": spec});
        let request = format!("PATCH+application/apply-patch+yaml {path}/a?fieldManager={more}");
        let api = api.clone();
        async move { api.call(&request, config).await }
    };
    let (code, made) = apply(V2, "alice", json!({"x": 1, "y": 2})).await;
    assert_eq!(code, 201, "{made}");
    // The same value is no conflict, and both have it.
    let (code, shared) = apply(V1, "bob", json!({"at": "1,2"})).await;
    assert_eq!(code, 200, "{shared}");
    let expected = [("alice", "example.com/v2", vec!["f:x", "f:y"]), ("bob", "example.com/v1", vec!["f:at"])];
    assert_eq!(owners(&shared), expected);
    // Another x is.
    let (code, conflict) = apply(V1, "bob", json!({"at": "5,2"})).await;
    assert_eq!(code, 409, "{conflict}");
    assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"alice\": .spec.x");
    let (code, forced) = apply(V1, "bob&force=true", json!({"at": "5,2"})).await;
    assert_eq!((code, &forced["spec"]["at"]), (200, &json!("5,2")), "{forced}");
    let expected = [("alice", "example.com/v2", vec!["f:y"]), ("bob", "example.com/v1", vec!["f:at"])];
    assert_eq!(owners(&forced), expected);
    // An update in v2 takes what it changes from who owns it in v1.
    let changed = api.ok(&format!("PATCH+merge {V2}/a?fieldManager=carol"), json!({"spec": {"x": 6}})).await;
    let expected = [("alice", "example.com/v2", vec!["f:y"]), ("carol", "example.com/v2", vec!["f:x"])];
    assert_eq!(owners(&changed), expected);

    // A webhook that fails: who applies is told, who writes otherwise has the others' fields in that version forgotten.
    *mood.lock() = Mood::SaysNo;
    let (code, failed) = apply(V1, "bob", json!({"at": "6,2"})).await;
    assert_eq!(code, 500);
    assert!(failed["message"].as_str().unwrap().ends_with("failed: no such point"), "{failed}");
    let written = api.ok(&format!("PATCH+merge {V1}/a?fieldManager=dora"), json!({"spec": {"unit": "m"}})).await;
    assert_eq!(owners(&written), [("dora", "example.com/v1", vec!["f:unit"])]);
}

/// An object that cannot be converted is in the way of lists of its version, and of nothing else.
#[tokio::test]
async fn one_object_that_cannot_be_converted() {
    let server = TestServer::start().await;
    let api = server.admin();
    let mood = Arc::new(Mutex::new(Mood::Works));
    let _webhook = define(&server, mood.clone()).await;
    let point = |name: &str, at: &str| json!({"metadata": {"name": name}, "spec": {"at": at}});
    api.ok(&format!("POST {V1}"), point("good", "1,1")).await;
    let list = api.ok(&format!("GET {V2}"), json!(null)).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut old = api.send(&format!("GET {V1}?watch=1&resourceVersion={revision}"), String::new()).await.into_body();
    let mut new = api.send(&format!("GET {V2}?watch=1&resourceVersion={revision}"), String::new()).await.into_body();
    *mood.lock() = Mood::Dislikes("bad");
    api.ok(&format!("POST {V1}"), point("bad", "2,2")).await;
    api.ok(&format!("POST {V1}"), point("late", "3,3")).await;

    let expected = "conversion webhook for example.com/v1, Kind=Point failed: not bad";
    for request in [format!("GET {V2}"), format!("GET {V2}/bad")] {
        let (code, answer) = api.call(&request, json!(null)).await;
        assert_eq!(code, 500, "{request}: {answer}");
        assert!(answer["message"].as_str().unwrap().ends_with(expected), "{answer}");
    }
    for name in ["good", "late"] {
        assert_eq!(api.ok(&format!("GET {V2}/{name}"), json!(null)).await["apiVersion"], "example.com/v2");
    }
    let changed = api.ok(&format!("PATCH+merge {V2}/late"), json!({"spec": {"x": 4}})).await;
    assert_eq!(changed["spec"], json!({"x": 4, "y": 3, "z": 0}));
    // The stored version goes on.
    let list = api.ok(&format!("GET {V1}"), json!(null)).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    for (ty, name) in [("ADDED", "bad"), ("ADDED", "late"), ("MODIFIED", "late")] {
        let event = event(&mut old).await;
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(ty), &json!(name)));
    }

    // Once it is gone, so is the trouble, and the watch sees the rest.
    api.ok(&format!("DELETE {V1}/bad"), json!(null)).await;
    let list = api.ok(&format!("GET {V2}"), json!(null)).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    for ty in ["ADDED", "MODIFIED"] {
        let event = event(&mut new).await;
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(ty), &json!("late")));
    }
}

/// The next event of a watch, one in each frame.
async fn event(body: &mut keelson_apiserver::Body) -> Value {
    let frame = tokio::time::timeout(Duration::from_secs(30), body.frame()).await.unwrap().unwrap().unwrap();
    serde_json::from_slice(frame.data_ref().unwrap()).unwrap()
}

/// Serves conversions.
async fn serve(pki: &Pki, mood: Arc<Mutex<Mood>>, calls: Arc<Mutex<Vec<usize>>>) -> Https {
    Https::start(pki, move |request| {
        let (mood, calls) = (*mood.lock(), calls.clone());
        async move {
            assert_eq!(request.uri().path(), "/convert");
            let review: Value = serde_json::from_slice(request.body()).unwrap();
            calls.lock().push(review["request"]["objects"].as_array().unwrap().len());
            let code = if mood == Mood::Breaks { 500 } else { 200 };
            let body = answer(&review, mood).to_string();
            http::Response::builder().status(code).body(Full::new(bytes::Bytes::from(body))).unwrap()
        }
    })
    .await
}

fn definition(address: SocketAddr, bundle: &str, storage: &str) -> Value {
    let version = |name: &str, properties: Value| {
        json!({"name": name, "served": true, "storage": name == storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": properties}}}}})
    };
    json!({
        "metadata": {"name": "points.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "points", "kind": "Point"},
            "versions": [
                version("v1", json!({"at": {"type": "string"}, "unit": {"type": "string", "default": "cm"}})),
                version("v2", json!({"x": {"type": "integer"}, "y": {"type": "integer"}, "z": {"type": "integer", "default": 0}})),
            ],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("https://127.0.0.1:{}/convert", address.port()), "caBundle": bundle}}},
        },
    })
}

#[tokio::test]
async fn versions_by_webhook() {
    let server = TestServer::start().await;
    let api = server.admin();
    let (mood, calls) = (Arc::new(Mutex::new(Mood::Works)), Arc::new(Mutex::new(Vec::new())));
    let webhook = serve(&server.pki, mood.clone(), calls.clone()).await;
    let bundle = base64::prelude::BASE64_STANDARD.encode(&server.pki.ca_pem);
    api.ok(&format!("POST {CRDS}"), definition(webhook.address, &bundle, "v1")).await;
    let ready = async {
        while api.call(&format!("GET {V2}"), json!(null)).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready).await.expect("the definition is served");

    // Written in v2, stored in v1, read in both.
    let made = api.ok(&format!("POST {V2}"), json!({"metadata": {"name": "a"}, "spec": {"x": 1, "y": 2}})).await;
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("example.com/v2"), &json!({"x": 1, "y": 2, "z": 0})));
    let old = api.ok(&format!("GET {V1}/a"), json!(null)).await;
    assert_eq!(old["spec"], json!({"at": "1,2", "unit": "cm"}));
    assert!(old["metadata"].get("finalizers").is_none(), "a webhook changes labels and annotations only");
    assert_eq!(old["metadata"]["annotations"]["converted"], "yes");
    for i in 0..20 {
        api.ok(&format!("POST {V1}"), json!({"metadata": {"name": format!("p{i}")}, "spec": {"at": format!("{i},0")}}))
            .await;
    }
    let list = api.ok(&format!("GET {V2}"), json!(null)).await;
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 21);
    assert!(
        items.iter().any(|item| item["metadata"]["name"] == "p7" && item["spec"] == json!({"x": 7, "y": 0, "z": 0}))
    );
    let before = calls.lock().len();
    api.ok(&format!("GET {V2}"), json!(null)).await;
    assert_eq!(calls.lock().len(), before, "what is converted is not converted again");

    // A watch sees changes in its version.
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let watch = api.send(&format!("GET {V2}?watch=1&resourceVersion={revision}"), String::new()).await;
    let mut body = watch.into_body();
    api.ok(&format!("PATCH+merge {V1}/a"), json!({"spec": {"at": "5,6"}})).await;
    let frame = tokio::time::timeout(Duration::from_secs(30), body.frame()).await.unwrap().unwrap().unwrap();
    let event: Value = serde_json::from_slice(frame.data_ref().unwrap()).unwrap();
    assert_eq!((&event["type"], &event["object"]["spec"]["x"]), (&json!("MODIFIED"), &json!(5)));

    // A patch in v2 is stored in v1.
    let patched = api.ok(&format!("PATCH+merge {V2}/a"), json!({"spec": {"x": 9}})).await;
    assert_eq!(patched["spec"], json!({"x": 9, "y": 6, "z": 0}));
    assert_eq!(api.ok(&format!("GET {V1}/a"), json!(null)).await["spec"]["at"], "9,6");

    // A webhook that does not do its work.
    let bad = |name: &str| json!({"metadata": {"name": name}, "spec": {"x": 1, "y": 1}});
    let expected = [
        (Mood::SaysNo, "conversion webhook for example.com/v2, Kind=Point failed: no such point"),
        (Mood::ForgetsOne, "conversion webhook for example.com/v2, Kind=Point returned 0 objects, expected 1"),
        (
            Mood::Renames,
            "conversion webhook for example.com/v2, Kind=Point returned invalid converted object at index 0: must have the \
             same name: bad != other",
        ),
        (Mood::Breaks, "an error on the server (\"unknown\") has prevented the request from succeeding"),
        (Mood::AnswersAnother, "failed: expected response.uid="),
    ];
    for (bad_mood, message) in expected {
        *mood.lock() = bad_mood;
        let (code, answer) = api.call(&format!("POST {V2}"), bad("bad")).await;
        assert_eq!(code, 500, "{bad_mood:?}");
        assert!(answer["message"].as_str().unwrap().contains(message), "{bad_mood:?}: {answer}");
    }
    // What needs no conversion goes on.
    api.ok(&format!("POST {V1}"), json!({"metadata": {"name": "b"}, "spec": {"at": "1,1"}})).await;
    let (code, answer) = api.call(&format!("GET {V2}/b"), json!(null)).await;
    assert_eq!(code, 500, "{answer}");
    *mood.lock() = Mood::Works;
    assert_eq!(api.ok(&format!("GET {V2}/b"), json!(null)).await["spec"]["x"], 1);

    // The storage version changes: both are read, and a write migrates.
    let storage = definition(webhook.address, &bundle, "v2");
    let patch = json!({"spec": {"versions": storage["spec"]["versions"]}});
    api.ok(&format!("PATCH+merge {CRDS}/points.example.com"), patch).await;
    let stored = || async {
        let range = server.store.range("/registry/example.com/points/default/a", "", None, 0).await.unwrap();
        serde_json::from_slice::<Value>(&range.kvs[0].value).unwrap()["apiVersion"].clone()
    };
    assert_eq!(stored().await, "example.com/v1");
    let migrate = async {
        while stored().await != "example.com/v2" {
            api.ok(&format!("PATCH+merge {V2}/a"), json!({})).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), migrate).await.expect("the object is migrated");
    assert_eq!(api.ok(&format!("GET {V1}/a"), json!(null)).await["spec"]["at"], "9,6");
    assert_eq!(api.ok(&format!("GET {V2}/p3"), json!(null)).await["spec"]["x"], 3);
}

#[tokio::test]
async fn a_webhook_that_cannot_be_trusted_or_reached() {
    let server = TestServer::start().await;
    let api = server.admin();
    let (mood, calls) = (Arc::new(Mutex::new(Mood::Works)), Arc::new(Mutex::new(Vec::new())));
    let webhook = serve(&Pki::new(), mood, calls.clone()).await;
    let bundle = base64::prelude::BASE64_STANDARD.encode(&server.pki.ca_pem);
    api.ok(&format!("POST {CRDS}"), definition(webhook.address, &bundle, "v1")).await;
    let ready = async {
        while api.call(&format!("GET {V1}"), json!(null)).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready).await.expect("the definition is served");
    let (code, answer) = api.call(&format!("POST {V2}"), json!({"metadata": {"name": "a"}, "spec": {"x": 1}})).await;
    let message = answer["message"].as_str().unwrap();
    assert_eq!(code, 500);
    assert!(message.contains("failed to verify certificate"), "{message}");
    assert!(calls.lock().is_empty());
    let service = json!({"spec": {"conversion": {"webhook": {"clientConfig": {"url": null, "service": {"name": "w", "namespace": "default"}}}}}});
    api.ok(&format!("PATCH+merge {CRDS}/points.example.com"), service).await;
    let refused = async {
        loop {
            let (_, answer) =
                api.call(&format!("POST {V2}"), json!({"metadata": {"name": "a"}, "spec": {"x": 1}})).await;
            let message = answer["message"].as_str().unwrap().to_owned();
            if message.contains("services \"w\" not found") {
                return message;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let message = tokio::time::timeout(Duration::from_secs(30), refused).await.expect("the Service is looked for");
    assert!(message.contains("https://w.default.svc:443/"), "{message}");
}
