//! What the server says about itself, and encodings other than JSON.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt;
use keelson_apiserver::{ApiServer, Config, UserInfo};
use keelson_store::{Error, Expect, KeyValue, LocalStore, Options, Range, Store, WatchStream};
use serde_json::{Value, json};
use support::{Api, TestServer};

#[tokio::test]
async fn kinds_are_discovered() {
    let test = TestServer::start().await;
    let mut api = test.admin();
    assert_eq!(api.ok("GET /api", json!(null)).await["versions"], json!(["v1"]));
    let groups = api.ok("GET /apis", json!(null)).await;
    let apps = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "apps").unwrap();
    assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
    let resources = api.ok("GET /apis/apps/v1", json!(null)).await;
    let scale = resources["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
    assert_eq!(
        (&scale["kind"], &scale["group"], &scale["verbs"]),
        (&json!("Scale"), &json!("autoscaling"), &json!(["get", "patch", "update"]))
    );
    assert_eq!(api.ok("GET /version", json!(null)).await["minor"], "35");
    assert_eq!(api.call("GET /apis/nothing", json!(null)).await.0, 404);
    assert_eq!(api.call("POST /apis", json!({})).await.0, 405);

    api.accept = Some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json");
    let response = api.send("GET /apis", "").await;
    assert_eq!(
        response.headers()["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    let list: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&json!("APIGroupDiscoveryList"), &json!("apiregistration.k8s.io"))
    );
    let again = api.send_with("GET /apis", "", &[("if-none-match", &etag)]).await;
    assert_eq!(again.status(), 304);
}

#[tokio::test]
async fn schemas_are_published() {
    let test = TestServer::start().await;
    let api = test.admin();
    let index = api.ok("GET /openapi/v3", json!(null)).await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = api.ok(&format!("GET {url}"), json!(null)).await;
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]["properties"].is_object());
    let v2 = api.ok("GET /openapi/v2", json!(null)).await;
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    assert_eq!(api.call("GET /openapi/v3/apis/no/v1", json!(null)).await.0, 404);
    for path in index["paths"].as_object().unwrap().values() {
        let url = path["serverRelativeURL"].as_str().unwrap();
        assert!(api.ok(&format!("GET {url}"), json!(null)).await["paths"].is_object(), "{url}");
    }

    // What the URL with the hash answers with never changes.
    let header = |response: &http::Response<_>, name: &str| {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let response = api.send(&format!("GET {url}"), "").await;
    assert_eq!(header(&response, "cache-control").unwrap(), "public, immutable");
    let etag = header(&response, "etag").unwrap();
    assert!(url.ends_with(etag.trim_matches('"')));
    let again = api.send_with(&format!("GET {url}"), "", &[("if-none-match", &etag)]).await;
    assert_eq!(again.status(), 304);
    let plain = api.send("GET /openapi/v3/apis/apps/v1", "").await;
    assert_eq!(
        (header(&plain, "cache-control"), header(&plain, "etag")),
        (Some("no-cache, private".to_owned()), Some(etag))
    );
    let old = api.send("GET /openapi/v3/apis/apps/v1?hash=OLD", "").await;
    assert_eq!((old.status().as_u16(), header(&old, "location").as_deref()), (301, Some(url)));
}

#[tokio::test]
async fn bodies_come_in_several_encodings() {
    let test = TestServer::start().await;
    let api = test.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"}, "data": {"a": "b"}});
    let schema = keelson_api::schema::builtin("io.k8s.api.core.v1.ConfigMap").unwrap();
    let protobuf = keelson_api::codec::protobuf::encode(&object, schema).unwrap();
    let response = api.send(&format!("POST+application/vnd.kubernetes.protobuf {path}"), protobuf).await;
    assert_eq!(response.status(), 201);
    assert_eq!(api.ok(&format!("GET {path}/p"), json!(null)).await["data"]["a"], "b");
    let yaml = "metadata: {name: why}\ndata: {a: c}\n";
    let response = api.send(&format!("POST+application/yaml {path}"), yaml).await;
    assert_eq!(response.status(), 201);
    let response = api.send(&format!("POST+text/plain {path}"), yaml).await;
    assert_eq!(response.status(), 415);
    let garbage = api.send(&format!("POST+application/vnd.kubernetes.protobuf {path}"), "k8s\0\x7f\x7f").await;
    assert_eq!(garbage.status(), 400);
}

#[tokio::test]
async fn health_is_told_by_check() {
    let test = TestServer::start().await;
    let api = test.admin();
    let get = async |path: &str| {
        let (code, text, _) = api.raw(&format!("GET {path}"), String::new()).await;
        (code, text)
    };
    for path in ["/healthz", "/livez", "/readyz", "/readyz/ping", "/livez/etcd", "/readyz/informer-sync"] {
        assert_eq!(get(path).await, (200, "ok".into()), "{path}");
    }
    assert_eq!(get("/livez/shutdown").await.0, 404, "only readiness has it");
    let (code, text) = get("/readyz?verbose").await;
    assert_eq!(code, 200);
    assert!(text.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n"), "{text}");
    assert!(text.ends_with("[+]shutdown ok\nreadyz check passed\n"), "{text}");
    let (_, text) = get("/readyz?verbose&exclude=etcd&exclude=no&exclude=never").await;
    assert!(text.contains("[+]etcd excluded: ok\n"), "{text}");
    let warning = "warn: some health checks cannot be excluded: no matches for \"never\",\"no\"\n";
    assert!(text.ends_with(&format!("{warning}readyz check passed\n")), "{text}");

    // A store that hangs, and one that says no.
    let dir = tempfile::tempdir().unwrap();
    let local = LocalStore::open(dir.path(), Options::default()).unwrap();
    let store = Arc::new(Moody { local, mood: AtomicU8::new(FINE) });
    let server = ApiServer::new(Config::default(), store.clone()).await.unwrap();
    let api = Api::new(server, UserInfo::new("admin", ["system:masters"]));
    let get = async |path: &str| {
        let (code, text, _) = api.raw(&format!("GET {path}"), String::new()).await;
        (code, text)
    };
    assert_eq!(get("/readyz").await.0, 200);
    for mood in [SILENT, BROKEN] {
        store.mood.store(mood, Ordering::SeqCst);
        tokio::time::pause();
        let (code, text) = get("/readyz").await;
        assert_eq!(code, 500);
        assert!(text.contains("[-]etcd failed: reason withheld\n"), "{text}");
        assert!(text.contains("[+]ping ok\n") && text.ends_with("\nreadyz check failed\n"), "{text}");
        let (code, text) = get("/readyz/etcd").await;
        assert!(code == 500 && text.starts_with("internal server error: the store d"), "{code} {text}");
        assert_eq!(get("/readyz/ping").await.0, 200);
        tokio::time::resume();
    }
    store.mood.store(FINE, Ordering::SeqCst);
    assert_eq!(get("/readyz").await.0, 200);
}

const FINE: u8 = 0;
const SILENT: u8 = 1;
const BROKEN: u8 = 2;

/// A store that may stop to answer reads of single keys.
struct Moody {
    local: LocalStore,
    mood: AtomicU8,
}

#[async_trait::async_trait]
impl Store for Moody {
    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<u64, Error> {
        self.local.put(key, value, expect).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<(u64, KeyValue), Error> {
        self.local.delete(key, expect).await
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        match self.mood.load(Ordering::SeqCst) {
            SILENT => std::future::pending().await,
            BROKEN => Err(Error::Closed),
            _ => self.local.get(key).await,
        }
    }

    async fn range(&self, prefix: &str, start: &str, revision: Option<u64>, limit: usize) -> Result<Range, Error> {
        self.local.range(prefix, start, revision, limit).await
    }

    async fn watch(&self, prefix: &str, revision: u64) -> Result<WatchStream, Error> {
        self.local.watch(prefix, revision).await
    }

    async fn revision(&self) -> Result<u64, Error> {
        self.local.revision().await
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.local.request_progress().await
    }

    async fn compact(&self, revision: u64) -> Result<(), Error> {
        self.local.compact(revision).await
    }
}
