//! What the server's own documents say of an aggregated one, and APIServices that the server makes.

use serde_json::{Value, json};

use crate::extension::{APISERVICES, GROUP, Mood, REPORTS, ROOT, aggregated, becomes};
use crate::start;
use crate::support::{Api, TestServer};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// The version of the group in the aggregated document.
fn version(list: &Value) -> Option<&Value> {
    list["items"].as_array()?.iter().find(|group| group["metadata"]["name"] == GROUP)?["versions"].get(0)
}

fn with(api: &Api, accept: &'static str) -> Api {
    let mut api = api.clone();
    api.accept = Some(accept);
    api
}

/// Waits until the aggregated document says this of the other server.
async fn said(api: &Api, freshness: &str, resources: usize) -> Value {
    let done = |_: u16, list: &Value| {
        version(list).is_some_and(|version| {
            let found = version["resources"].as_array().map_or(0, Vec::len);
            version["freshness"] == freshness && found == resources
        })
    };
    with(api, AGGREGATED).eventually("GET /apis", done).await
}

fn names<'a>(list: &'a Value, items: &str, name: &str) -> Vec<&'a str> {
    list[items].as_array().unwrap().iter().map(|group| group.pointer(name).unwrap().as_str().unwrap()).collect()
}

#[tokio::test]
async fn discovery_is_merged() {
    let test = start().await;
    let extension = aggregated(&test).await;
    let api = test.admin();
    let list = said(&api, "Current", 1).await;
    let expected = json!({"version": "v1", "freshness": "Current", "resources": [{
        "resource": "reports", "singularResource": "report", "scope": "Namespaced", "shortNames": ["rep"],
        "responseKind": {"group": GROUP, "version": "v1", "kind": "Report"},
        "verbs": ["create", "get", "list", "watch"], "subresources": [{"subresource": "attach", "verbs": ["get"]}],
    }]});
    assert_eq!(version(&list), Some(&expected), "what it says of other groups and versions is not believed");
    let all = names(&list, "items", "/metadata/name");
    assert_eq!((all[0], *all.last().unwrap()), ("apiregistration.k8s.io", GROUP));
    let old = api.ok("GET /apis", json!(null)).await;
    assert_eq!(names(&old, "groups", "/name"), all, "both in the same order");
    let group = api.ok(&format!("GET /apis/{GROUP}"), json!(null)).await;
    assert_eq!(group["preferredVersion"], json!({"groupVersion": format!("{GROUP}/v1"), "version": "v1"}));
    assert_eq!(api.ok(&format!("GET {ROOT}"), json!(null)).await["resources"][0]["name"], "reports");
    assert!(api.ok("GET /", json!(null)).await["paths"].as_array().unwrap().contains(&json!(ROOT)));

    // Its place among groups is what the APIService says.
    let path = format!("{APISERVICES}/v1.{GROUP}");
    api.ok(&format!("PATCH+merge {path}"), json!({"spec": {"groupPriorityMinimum": 19_000}})).await;
    let second = |_: u16, list: &Value| list["groups"][1]["name"] == GROUP;
    api.eventually("GET /apis", second).await;
    let list = said(&api, "Current", 1).await;
    assert_eq!(names(&list, "items", "/metadata/name")[1], GROUP);

    // A server that is gone is still known, as it was.
    extension.stop();
    let touch = |host: &str| json!({"spec": {"externalName": host}});
    let service = "PATCH+merge /api/v1/namespaces/default/services/weather";
    api.ok(service, touch("127.0.0.1")).await;
    becomes(&api, "FailedDiscoveryCheck").await;
    said(&api, "Stale", 1).await;
    assert_eq!(names(&api.ok("GET /apis", json!(null)).await, "groups", "/name")[1], GROUP);
    // Back, it is asked whether anything changed.
    let extension = crate::extension::Extension::serve(&test.pki, extension.address.port()).await;
    becomes(&api, "Passed").await;
    said(&api, "Current", 1).await;
    assert_eq!(extension.last("GET /apis").headers["if-none-match"], "\"one\"");
    api.ok(&format!("DELETE {path}"), json!(null)).await;
    with(&api, AGGREGATED).eventually("GET /apis", |_, list| version(list).is_none()).await;
}

#[tokio::test]
async fn an_old_servers_discovery_is_translated() {
    let test = start().await;
    let extension = crate::extension::Extension::serve(&test.pki, 0).await;
    extension.is(Mood::IsOld);
    crate::extension::point_to(&test, &extension).await;
    let list = said(&test.admin(), "Current", 1).await;
    let resource = &version(&list).unwrap()["resources"][0];
    assert_eq!(resource["responseKind"], json!({"group": GROUP, "version": "v1", "kind": "Report"}));
    assert_eq!((&resource["scope"], &resource["shortNames"]), (&json!("Namespaced"), &json!(["rep"])));
}

/// Documents that are none, or do not end, are not taken; everything else goes on.
#[tokio::test]
async fn a_server_that_lies_of_itself() {
    for mood in [Mood::Lies, Mood::Floods] {
        let test = start().await;
        let extension = crate::extension::Extension::serve(&test.pki, 0).await;
        extension.is(mood);
        crate::extension::point_to(&test, &extension).await;
        let api = test.admin();
        said(&api, "Stale", 0).await;
        let begin = std::time::Instant::now();
        for _ in 0..20 {
            api.ok("GET /api/v1/namespaces/default", json!(null)).await;
            api.ok("GET /apis/apps/v1", json!(null)).await;
        }
        assert!(begin.elapsed() < std::time::Duration::from_secs(2), "{:?}", begin.elapsed());
        extension.is(Mood::Works);
        said(&api, "Current", 1).await;
        api.ok(&format!("GET {REPORTS}"), json!(null)).await;
    }
}

#[tokio::test]
async fn custom_resources_have_api_services() {
    let test = start().await;
    let api = test.admin();
    let crd = json!({
        "metadata": {"name": "points.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "points", "kind": "Point"},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v2", "served": false, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
            ],
        },
    });
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    // Somebody's own.
    let own = json!({
        "metadata": {"name": "v2.example.com"},
        "spec": {"group": "example.com", "version": "v2", "groupPriorityMinimum": 7, "versionPriority": 7},
    });
    api.ok(&format!("POST {APISERVICES}"), own).await;
    api.ok(&format!("POST {crds}"), crd).await;
    let path = format!("GET {APISERVICES}/v1.example.com");
    let made = api.eventually(&path, |code, _| code == 200).await;
    let expected =
        json!({"group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100});
    assert_eq!(made["spec"], expected);
    assert_eq!(made["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "true"}));
    assert_eq!(made["status"]["conditions"][0]["reason"], "Local");
    // It comes back, and as it was; what has the label no more is left alone.
    api.ok(&path.replace("GET", "DELETE"), json!(null)).await;
    let uid = made["metadata"]["uid"].clone();
    api.eventually(&path, |code, new| code == 200 && new["metadata"]["uid"] != uid).await;
    api.ok(&path.replace("GET", "PATCH+merge"), json!({"spec": {"versionPriority": 5}})).await;
    api.eventually(&path, |_, new| new["spec"] == expected).await;
    let served = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": true}]);
    api.ok(&format!("PATCH+json {crds}/points.example.com"), served).await;
    let group = "GET /apis/example.com";
    let versions = api.eventually(group, |_, group| group["versions"].as_array().is_some_and(|v| v.len() == 2)).await;
    assert_eq!(versions["preferredVersion"]["version"], "v1", "by priority");
    api.ok(&format!("DELETE {crds}/points.example.com"), json!(null)).await;
    api.eventually(&path, |code, _| code == 404).await;
    let own = api.ok(&path.replace("v1.example", "v2.example"), json!(null)).await;
    assert_eq!(own["spec"]["groupPriorityMinimum"], 7);
}

#[tokio::test]
async fn schemas_are_merged() {
    let test = start().await;
    let api = test.admin();
    let (before, _, _) = api.raw("GET /openapi/v2", String::new()).await;
    assert_eq!(before, 200);
    let extension = aggregated(&test).await;
    let path = ROOT.trim_start_matches('/');
    let index = api.eventually("GET /openapi/v3", |_, index| index["paths"][path].is_object()).await;
    let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap();
    let schemas = api.ok(&format!("GET {url}"), json!(null)).await;
    assert_eq!(schemas["components"]["schemas"]["Report"]["description"], "What the weather was.");
    assert_eq!(extension.last(&format!("GET {url}")).headers["x-remote-user"], "admin");
    let own = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(!own.contains("mischief"), "{own}");

    let v2 = api.eventually("GET /openapi/v2", |_, v2| v2["paths"][REPORTS].is_object()).await;
    assert_eq!(v2["definitions"]["Report"]["type"], "object");
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object() && v2["definitions"]["Other"].is_null());
    assert!(v2["paths"]["/apis/apps/v1/x"].is_null(), "not its to say");
    let protobuf = with(&api, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
    let message = http_body_util::BodyExt::collect(protobuf.send("GET /openapi/v2", "").await.into_body()).await;
    let message = message.unwrap().to_bytes();
    assert!(message.windows(REPORTS.len()).any(|w| w == REPORTS.as_bytes()));

    api.ok(&format!("DELETE {APISERVICES}/v1.{GROUP}"), json!(null)).await;
    api.eventually("GET /openapi/v2", |_, v2| v2["paths"][REPORTS].is_null()).await;
    assert_eq!(api.call(&format!("GET {url}"), json!(null)).await.0, 404);
}

/// A server that knows OpenAPI v2 only has a document of v3 all the same, made from that.
#[tokio::test]
async fn an_old_servers_schemas_are_translated() {
    let test = start().await;
    let extension = crate::extension::Extension::serve(&test.pki, 0).await;
    extension.is(Mood::IsOld);
    crate::extension::point_to(&test, &extension).await;
    let api = test.admin();
    let path = ROOT.trim_start_matches('/');
    let index = api.eventually("GET /openapi/v3", |_, index| index["paths"][path].is_object()).await;
    let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with(&format!("/openapi/v3{ROOT}?hash=")), "{url}");
    let document = api.ok(&format!("GET {url}"), json!(null)).await;
    assert_eq!(document["openapi"], "3.0.0");
    assert_eq!(document["components"]["schemas"]["Report"]["description"], "What the weather was.");
    assert_eq!(document["components"]["schemas"]["Other"], json!(null));
    let said = &document["paths"][REPORTS]["get"]["responses"]["200"]["content"]["*/*"]["schema"];
    assert_eq!(said, &json!({"$ref": "#/components/schemas/Report"}));
    let (code, _) = api.call(&format!("GET /openapi/v3{ROOT}?hash=OLD"), json!(null)).await;
    assert_eq!(code, 301, "the hash is of another one");
    // Once it has its own, that is asked for.
    extension.is(Mood::Works);
    api.ok(&format!("PATCH+merge {APISERVICES}/v1.{GROUP}"), json!({"spec": {"versionPriority": 99}})).await;
    let own =
        |_: u16, index: &Value| index["paths"][path]["serverRelativeURL"].as_str().is_some_and(|u| u.ends_with("=ab"));
    api.eventually("GET /openapi/v3", own).await;
}

/// APIServices of the server's own group versions are as it has them once it has started, unless somebody took its label away.
#[tokio::test]
async fn own_api_services_are_brought_up_to_date_at_start() {
    let test = TestServer::start().await;
    let api = test.admin();
    let path = |name: &str| format!("{APISERVICES}/{name}");
    let label = "kube-aggregator.kubernetes.io/automanaged";
    let apps = api.eventually(&format!("GET {}", path("v1.apps")), |code, _| code == 200).await;
    assert_eq!(apps["metadata"]["labels"][label], "onstart");
    api.eventually(&format!("GET {}", path("v1.batch")), |code, _| code == 200).await;
    let change = json!({"spec": {"versionPriority": 3}});
    for name in ["v1.apps", "v1.batch"] {
        api.ok(&format!("PATCH+merge {}", path(name)), change.clone()).await;
    }
    api.ok(&format!("PATCH+merge {}", path("v1.batch")), json!({"metadata": {"labels": {label: null}}})).await;
    let gone = json!({"metadata": {"name": "v1.gone.example.com", "labels": {label: "onstart"}}, "spec": {
        "group": "gone.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100}});
    api.ok(&format!("POST {APISERVICES}"), gone).await;

    let second = keelson_apiserver::ApiServer::new(Default::default(), test.store.clone()).await.unwrap();
    let again = crate::support::Api::new(second, keelson_apiserver::UserInfo::new("admin", ["system:masters"]));
    again.eventually(&format!("GET {}", path("v1.apps")), |_, now| now["spec"] == apps["spec"]).await;
    again.eventually(&format!("GET {}", path("v1.gone.example.com")), |code, _| code == 404).await;
    let batch = again.ok(&format!("GET {}", path("v1.batch")), json!(null)).await;
    assert_eq!(batch["spec"]["versionPriority"], 3, "somebody's own");
}
