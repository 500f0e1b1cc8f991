//! What the server says about itself, and encodings other than JSON.

mod support;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::TestServer;

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
