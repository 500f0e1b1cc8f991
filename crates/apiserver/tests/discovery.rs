//! What the server says about itself, and encodings other than JSON.

mod support;

use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use http_body_util::BodyExt;
use keelson_apiserver::{ApiServer, Config, UserInfo};
use keelson_store::Error;
use serde_json::{Value, json};
use support::store::{Hook, Hooked};
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
    let store = Hooked::open(Moody { mood: AtomicU8::new(FINE) });
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

#[tokio::test]
async fn metrics_have_upstreams_names() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok("POST /api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "a"}})).await;
    api.raw("GET /api/v1/namespaces/default/configmaps", String::new()).await;
    api.call("GET /api/v1/namespaces/default/configmaps/none", json!(null)).await;
    api.call("GET /api/v1/namespaces/default/nonsense", json!(null)).await;
    api.call("GET /api/v1/namespaces/default/secrets?dryRun=nonsense", json!(null)).await;
    api.call("PUT /api/v1/namespaces/default/bindings/a?dryRun=All", json!({})).await;
    let ann = test.api(UserInfo::new("ann", Vec::<String>::new()));
    assert_eq!(ann.call("GET /api/v1/namespaces/default/configmaps/a", json!(null)).await.0, 403);
    let mut watch = api.send("GET /api/v1/namespaces/default/configmaps?watch=1", "").await.into_body();
    watch.frame().await.unwrap().unwrap();
    api.ok("GET /readyz/etcd", json!(null)).await;
    api.raw("GET /readyz", String::new()).await;
    let response = api.send("GET /metrics", "").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&text).unwrap();
    let place = r#"group="",resource="configmaps""#;
    for line in [
        r#"apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1"#,
        r#"apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"} 1"#,
        r#"apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 1"#,
        r#"apiserver_request_total{code="403",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 1"#,
        r#"apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="",scope="",subresource="/readyz",verb="GET",version=""} 1"#,
        r#"apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1"#,
        r#"apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1",le="60"} 1"#,
        r#"apiserver_request_sli_duration_seconds_count{component="apiserver",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1"#,
        r#"apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH",version="v1"} 1"#,
        r#"apiserver_watch_events_total{group="",resource="configmaps",version="v1"} 1"#,
        r#"apiserver_current_inflight_requests{request_kind="mutating"} 0"#,
        r#"apiserver_current_inflight_requests{request_kind="readOnly"} 1"#,
        r#"apiserver_storage_objects{resource="configmaps"} 2"#,
        r#"etcd_request_duration_seconds_count{group="",operation="create",resource="configmaps"} 2"#,
        r#"etcd_requests_total{group="",operation="create",resource="configmaps"} 2"#,
        r#"apiserver_flowcontrol_nominal_limit_seats{priority_level="exempt"} 0"#,
        r##"# TYPE apiserver_request_total counter"##,
        r##"# TYPE apiserver_request_duration_seconds histogram"##,
        r##"# TYPE process_resident_memory_bytes gauge"##,
    ] {
        assert!(text.lines().any(|there| there == line), "{line}\n{}", similar(text, line));
    }
    for family in [
        &*format!("apiserver_resource_objects{{{place}}}"),
        r#"apiserver_flowcontrol_dispatched_requests_total{flow_schema="exempt",priority_level="exempt"}"#,
        r#"apiserver_flowcontrol_current_executing_requests{flow_schema="exempt",priority_level="exempt"}"#,
        r#"apiserver_response_sizes_sum{component="apiserver",group="",resource="configmaps""#,
        r#"authorization_attempts_total{result="denied"}"#,
        r#"authentication_attempts{result="success"}"#,
        "process_cpu_seconds_total ",
        "process_open_fds ",
        "process_start_time_seconds ",
    ] {
        assert!(text.lines().any(|there| there.starts_with(family)), "{family}\n{}", similar(text, family));
    }
    assert!(!text.contains("nonsense"), "what does not exist has no series");
    let odd = text.lines().find(|line| line.contains(r#"dry_run="All""#) || line.contains(r#"resource="bindings""#));
    assert_eq!(odd, None, "nor what nothing serves");
    let slis = api.raw("GET /metrics/slis", String::new()).await.1;
    assert!(slis.lines().any(|line| line == r#"kubernetes_healthcheck{name="etcd",type="readyz"} 1"#), "{slis}");
    drop(watch);
    // What is only tried is measured, but is no indicator of the service's level.
    api.ok("POST /api/v1/namespaces/default/configmaps?dryRun=All", json!({"metadata": {"name": "b"}})).await;
    let text = api.raw("GET /metrics", String::new()).await.1;
    for line in [
        r#"apiserver_request_duration_seconds_count{component="apiserver",dry_run="All",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1"#,
        r#"apiserver_request_sli_duration_seconds_count{component="apiserver",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1"#,
    ] {
        assert!(text.lines().any(|there| there == line), "{line}\n{}", similar(&text, line));
    }

    // CVE-2019-11248: who may not see the server's insides does not.
    let anonymous = test.api(UserInfo::anonymous());
    let paths = [
        "/metrics",
        "/metrics/slis",
        "/debug/pprof/",
        "/debug/pprof/heap",
        "/debug/api_priority_and_fairness/dump_priority_levels",
    ];
    for (api, path) in [&anonymous, &ann].into_iter().flat_map(|api| paths.map(|path| (api, path))) {
        assert_eq!(api.call(&format!("GET {path}"), json!(null)).await.0, 403, "{path}");
    }
    assert_eq!(api.call("GET /debug/pprof/", json!(null)).await.0, 404, "there is no profiling over HTTP at all");
}

/// Lines of the same family.
fn similar(text: &str, line: &str) -> String {
    let family = line.split('{').next().unwrap_or_default();
    text.lines().filter(|there| there.starts_with(family)).collect::<Vec<_>>().join("\n")
}

const FINE: u8 = 0;
const SILENT: u8 = 1;
const BROKEN: u8 = 2;

/// Reads of single keys may be left without an answer, or fail.
struct Moody {
    mood: AtomicU8,
}

#[async_trait]
impl Hook for Moody {
    async fn before_get(&self, _key: &str) -> Result<(), Error> {
        match self.mood.load(Ordering::SeqCst) {
            SILENT => std::future::pending().await,
            BROKEN => Err(Error::Closed),
            _ => Ok(()),
        }
    }
}
