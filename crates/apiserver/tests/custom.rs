//! Custom resources, in process.

mod support;

use std::time::Duration;

use http_body_util::BodyExt;
use keelson_apiserver::{ApiServer, Config, UserInfo};
use serde_json::{Value, json};
use support::events::Events;
use support::{Api, TestServer};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAME: &str = "crontabs.stable.example.com";
const V1: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
const BETA: &str = "/apis/stable.example.com/v1beta1/namespaces/default/crontabs";

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["cronSpec"], "properties": {
            "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)$"},
            "image": {"type": "string", "default": "busybox"},
            "replicas": {"type": "integer", "minimum": 0, "maximum": 10},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}},
        }},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}},
    }})
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": NAME},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema()},
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                    "additionalPrinterColumns": [
                        {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec", "description": "When"},
                        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
                    "selectableFields": [{"jsonPath": ".spec.image"}]},
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
                        "x-kubernetes-preserve-unknown-fields": true, "properties": {"old": {"type": "string", "default": "yes"}}}}}}},
            ],
        },
    })
}

fn object(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

/// Creates a definition and waits until it is served.
async fn define(api: &Api, definition: Value) -> Value {
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    let (code, answer) = api.call(&format!("POST {CRDS}"), definition).await;
    assert_eq!(code, 201, "{answer}");
    wait(api, &name, |object| condition(object, "Established").is_some_and(|c| c["status"] == "True")).await
}

fn condition<'a>(object: &'a Value, ty: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == ty)
}

/// Waits until the definition is as it should be.
async fn wait(api: &Api, name: &str, done: impl Fn(&Value) -> bool) -> Value {
    let poll = async {
        loop {
            let (_, object) = api.call(&format!("GET {CRDS}/{name}"), json!(null)).await;
            if done(&object) {
                return object;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), poll).await.expect("the definition gets there")
}

/// Waits until a request answers with a code.
async fn wait_code(api: &Api, request: &str, code: u16) -> Value {
    let poll = async {
        loop {
            let (found, answer) = api.call(request, json!(null)).await;
            if found == code {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), poll).await.expect("the code comes")
}

#[tokio::test]
async fn objects_from_definition_to_deletion() {
    let server = TestServer::start().await;
    let api = server.admin();
    let (code, _) = api.call(&format!("GET {V1}"), json!(null)).await;
    assert_eq!(code, 404);
    let served = define(&api, definition()).await;
    assert_eq!(served["status"]["acceptedNames"]["listKind"], "CronTabList");
    assert_eq!(served["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(condition(&served, "NamesAccepted").unwrap()["reason"], "NoConflicts");

    // Defaults, pruning, validation, strictness.
    let made = api.ok(&format!("POST {V1}"), object("a", json!({"cronSpec": "*", "replicas": 1, "stray": 1}))).await;
    assert_eq!(made["spec"], json!({"cronSpec": "*", "image": "busybox", "replicas": 1}));
    assert_eq!((&made["metadata"]["generation"], &made["apiVersion"]), (&json!(1), &json!("stable.example.com/v1")));
    let (code, answer) =
        api.call(&format!("POST {V1}"), object("bad", json!({"cronSpec": "x", "replicas": 11, "image": 1}))).await;
    assert_eq!(code, 422);
    assert_eq!(
        answer["message"],
        "CronTab.stable.example.com \"bad\" is invalid: [spec.cronSpec: Invalid value: \"x\": spec.cronSpec in body should \
         match '^(\\d+|\\*)$', spec.image: Invalid value: \"integer\": spec.image in body must be of type string: \
         \"integer\", spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10]"
    );
    let strict = format!("POST {V1}?fieldValidation=Strict");
    let (code, answer) = api.call(&strict, object("s", json!({"cronSpec": "*", "stray": 1}))).await;
    assert_eq!(code, 400);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("unknown field \"spec.stray\""), "{message}");

    // What kubectl prints, and what it selects by.
    let mut table = api.clone();
    table.accept = Some("application/json;as=Table;v=v1;g=meta.k8s.io");
    let rows = table.ok(&format!("GET {V1}"), json!(null)).await;
    let names: Vec<_> = rows["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["Name", "Spec", "Replicas", "Age"]);
    assert_eq!(rows["rows"][0]["cells"].as_array().unwrap()[..3], [json!("a"), json!("*"), json!(1)]);
    api.ok(&format!("POST {V1}"), object("b", json!({"cronSpec": "*", "image": "x"}))).await;
    let listed = api.ok(&format!("GET {V1}?fieldSelector=spec.image%3Dx"), json!(null)).await;
    assert_eq!((&listed["kind"], listed["items"].as_array().unwrap().len()), (&json!("CronTabList"), 1));
    let (code, _) = api.call(&format!("GET {V1}?fieldSelector=spec.replicas%3D1"), json!(null)).await;
    assert_eq!(code, 400);

    // Status and scale.
    let status = json!({"metadata": {"name": "a", "resourceVersion": made["metadata"]["resourceVersion"], "labels": {"x": "y"}},
        "spec": {"cronSpec": "5"}, "status": {"replicas": 1, "selector": "app=a"}});
    let put = api.ok(&format!("PUT {V1}/a/status"), status).await;
    assert_eq!((&put["spec"]["cronSpec"], &put["status"]["replicas"]), (&json!("*"), &json!(1)));
    assert!(put["metadata"].get("labels").is_none() && put["metadata"]["generation"] == 1);
    let scale = api.ok(&format!("GET {V1}/a/scale"), json!(null)).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(1), &json!("app=a")));
    let scaled = api.ok(&format!("PATCH+merge {V1}/a/scale"), json!({"spec": {"replicas": 3}})).await;
    assert_eq!(scaled["spec"]["replicas"], 3);
    let after = api.ok(&format!("GET {V1}/a"), json!(null)).await;
    assert_eq!((&after["spec"]["replicas"], &after["metadata"]["generation"]), (&json!(3), &json!(2)));
    // A scale without a version means the one that is there; one with another is stale.
    let body = |version: Value| {
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": "a", "namespace": "default", "resourceVersion": version}, "spec": {"replicas": 4}})
    };
    let scaled = api.ok(&format!("PUT {V1}/a/scale"), body(json!(null))).await;
    assert_eq!(scaled["spec"]["replicas"], 4);
    let mut people = api.clone();
    people.accept = Some("application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = people.ok(&format!("GET {V1}/a/scale"), json!(null)).await;
    let columns: Vec<_> = table["columnDefinitions"].as_array().unwrap().iter().map(|column| &column["name"]).collect();
    assert_eq!(columns, ["Name", "Desired", "Available", "Age"], "the scale's own");
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("a"), json!(4), json!(1)]);
    let (code, _) = api.call(&format!("PUT {V1}/a/scale"), body(made["metadata"]["resourceVersion"].clone())).await;
    assert_eq!(code, 409);
    let (code, answer) = api.call(&format!("GET {V1}/b/scale"), json!(null)).await;
    assert_eq!(code, 500);
    assert_eq!(answer["message"], "Internal error occurred: the spec replicas field \".spec.replicas\" does not exist");

    // Server-side apply merges the list by its key.
    let apply = |manager: &str, ports: Value| {
        let body = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "b"}, "spec": {"ports": ports}});
        (format!("PATCH+application/apply-patch+yaml {V1}/b?fieldManager={manager}"), body)
    };
    for (manager, port) in [("one", 1), ("two", 2)] {
        let (request, body) = apply(manager, json!([{"port": port}]));
        let (code, answer) = api.call(&request, body).await;
        assert_eq!(code, 200, "{answer}");
    }
    let applied = api.ok(&format!("GET {V1}/b"), json!(null)).await;
    assert_eq!(applied["spec"]["ports"], json!([{"port": 1}, {"port": 2}]));

    // Documents.
    let resources = api.ok("GET /apis/stable.example.com/v1", json!(null)).await;
    let found: Vec<_> = resources["resources"].as_array().unwrap().iter().map(|r| r["name"].clone()).collect();
    assert_eq!(found, ["crontabs", "crontabs/scale", "crontabs/status"]);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["ct"]));
    let group = api.ok("GET /apis/stable.example.com", json!(null)).await;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let openapi = api.ok("GET /openapi/v3/apis/stable.example.com/v1", json!(null)).await;
    let shown = &openapi["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(shown["properties"]["spec"]["properties"]["image"]["default"], "busybox");
    assert_eq!(shown["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
    let item = "/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}";
    for path in [item.to_owned(), format!("{item}/status"), format!("{item}/scale")] {
        let patches = openapi["paths"][&path]["patch"]["requestBody"]["content"].as_object().unwrap();
        let expected = ["apply-patch+cbor", "apply-patch+yaml", "json-patch+json", "merge-patch+json"];
        let mut found: Vec<_> = patches.keys().map(|media| media.trim_start_matches("application/")).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{path}");
    }
    let v2 = api.ok("GET /openapi/v2", json!(null)).await;
    let shown = &v2["definitions"]["com.example.stable.v1.CronTab"]["properties"];
    assert!(shown["spec"]["properties"]["image"].get("default").is_none());
    assert_eq!(shown["metadata"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");

    // The end: objects first, those with finalizers in their time.
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    api.ok(&format!("PATCH+merge {V1}/a"), hold).await;
    let mut events = Events::of(
        &api,
        &format!("{V1}?watch=1&resourceVersion={}", listed["metadata"]["resourceVersion"].as_str().unwrap()),
    )
    .await;
    let (code, answer) = api.call(&format!("DELETE {CRDS}/{NAME}"), json!(null)).await;
    assert_eq!(
        (code, &answer["metadata"]["finalizers"]),
        (200, &json!(["customresourcecleanup.apiextensions.k8s.io"]))
    );
    wait(&api, NAME, |object| {
        condition(object, "Terminating").is_some_and(|c| c["reason"] == "InstanceDeletionInProgress")
    })
    .await;
    let (code, answer) = api.call(&format!("POST {V1}"), object("late", json!({"cronSpec": "*"}))).await;
    assert_eq!(code, 405);
    assert_eq!(answer["message"], "create not allowed while custom resource definition is terminating");
    wait_code(&api, &format!("GET {V1}/b"), 404).await;
    api.ok(&format!("PATCH+merge {V1}/a"), json!({"metadata": {"finalizers": null}})).await;
    wait_code(&api, &format!("GET {CRDS}/{NAME}"), 404).await;
    wait_code(&api, &format!("GET {V1}"), 404).await;
    let mut deleted = Vec::new();
    while let Some(event) = events.next().await {
        if event["type"] == "DELETED" {
            deleted.push(event["object"]["metadata"]["name"].as_str().unwrap().to_owned());
        }
    }
    deleted.sort();
    assert_eq!(deleted, ["a", "b"], "the watch ends with the resource");
    let (code, _) = api.call("GET /apis/stable.example.com", json!(null)).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn versions_without_conversion() {
    let server = TestServer::start().await;
    let api = server.admin();
    define(&api, definition()).await;
    let old = api.ok(&format!("POST {BETA}"), object("a", json!({"cronSpec": "*", "free": 1}))).await;
    assert_eq!((&old["apiVersion"], &old["spec"]["old"]), (&json!("stable.example.com/v1beta1"), &json!("yes")));
    // Stored as v1, which prunes what it does not know.
    let new = api.ok(&format!("GET {V1}/a"), json!(null)).await;
    assert_eq!(new["spec"], json!({"cronSpec": "*", "image": "busybox"}));
    let (_, _, warnings) = api.raw(&format!("GET {BETA}/a"), String::new()).await;
    assert_eq!(warnings, ["299 - \"stable.example.com/v1beta1 CronTab is deprecated\""]);
    let list = api.ok(&format!("GET {BETA}"), json!(null)).await;
    assert_eq!(
        (&list["apiVersion"], &list["items"][0]["spec"]["old"]),
        (&json!("stable.example.com/v1beta1"), &json!("yes"))
    );
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut events = Events::of(&api, &format!("{BETA}?watch=1&resourceVersion={revision}")).await;
    api.ok(&format!("PATCH+merge {V1}/a"), json!({"spec": {"replicas": 2}})).await;
    let event = events.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["apiVersion"], &event["object"]["spec"]["replicas"]),
        (&json!("MODIFIED"), &json!("stable.example.com/v1beta1"), &json!(2))
    );
    assert_eq!(event["object"]["spec"]["old"], "yes");

    // Another storage version; a write that changes nothing migrates the object.
    let before = api.ok(&format!("GET {V1}/a"), json!(null)).await;
    let mut versions = definition()["spec"]["versions"].clone();
    versions[0]["storage"] = json!(false);
    versions[1]["storage"] = json!(true);
    versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["late"] =
        json!({"type": "boolean", "default": true});
    api.ok(&format!("PATCH+merge {CRDS}/{NAME}"), json!({"spec": {"versions": versions}})).await;
    wait(&api, NAME, |object| object["status"]["storedVersions"] == json!(["v1", "v1beta1"])).await;
    assert!(events.next().await.is_none(), "a changed definition ends its watches");
    let stored = || async {
        let range = server.store.range("/registry/stable.example.com/crontabs/", "", None, 0).await.unwrap();
        serde_json::from_slice::<Value>(&range.kvs[0].value).unwrap()["apiVersion"].clone()
    };
    assert_eq!(stored().await, "stable.example.com/v1");
    let read = async {
        loop {
            let read = api.ok(&format!("GET {V1}/a"), json!(null)).await;
            if read["spec"]["late"] == true {
                return read;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(30), read).await.expect("the new default is read");
    assert_eq!(read["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"], "nothing was written");
    let migrated = api.ok(&format!("PATCH+merge {V1}/a"), json!({})).await;
    assert_ne!(migrated["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    assert_eq!(stored().await, "stable.example.com/v1beta1");
    let again = api.ok(&format!("PATCH+merge {V1}/a"), json!({})).await;
    assert_eq!(again["metadata"]["resourceVersion"], migrated["metadata"]["resourceVersion"]);

    // What was there is there after a restart.
    let restarted = ApiServer::new(Config::default(), server.store.clone()).await.unwrap();
    let api = Api::new(restarted, UserInfo::new("admin", ["system:masters"]));
    assert_eq!(api.ok(&format!("GET {V1}/a"), json!(null)).await["spec"]["replicas"], 2);
}

#[tokio::test]
async fn a_list_kind_of_its_own() {
    let server = TestServer::start().await;
    let api = server.admin();
    let mut definition = definition();
    definition["spec"]["names"]["listKind"] = json!("CronTabs");
    define(&api, definition).await;
    let mut yaml = api.clone();
    yaml.accept = Some("application/yaml");
    for count in 0..2 {
        let list = api.ok(&format!("GET {V1}"), json!(null)).await;
        assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("CronTabs"), count));
        let (_, text, _) = yaml.raw(&format!("GET {BETA}"), String::new()).await;
        assert!(text.contains("\nkind: CronTabs\n"), "{text}");
        api.ok(&format!("POST {V1}"), object(&format!("a{count}"), json!({"cronSpec": "*"}))).await;
    }
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let mut metadata = api.clone();
    metadata.accept = Some(partial);
    assert_eq!(metadata.ok(&format!("GET {V1}"), json!(null)).await["kind"], "PartialObjectMetadataList");
    let deleted = api.ok(&format!("DELETE {V1}"), json!(null)).await;
    assert_eq!((&deleted["kind"], deleted["items"].as_array().unwrap().len()), (&json!("CronTabs"), 2));
}

#[tokio::test]
async fn names_are_given_once() {
    let server = TestServer::start().await;
    let api = server.admin();
    define(&api, definition()).await;
    let mut second = definition();
    second["metadata"]["name"] = json!("others.stable.example.com");
    second["spec"]["names"] = json!({"plural": "others", "singular": "other", "kind": "Other", "shortNames": ["ct"]});
    api.ok(&format!("POST {CRDS}"), second).await;
    let conflict = wait(&api, "others.stable.example.com", |object| condition(object, "NamesAccepted").is_some()).await;
    assert_eq!(condition(&conflict, "NamesAccepted").unwrap()["message"], "\"ct\" is already in use");
    assert_eq!(condition(&conflict, "Established").unwrap()["status"], "False");
    let (code, _) = api.call("GET /apis/stable.example.com/v1/others", json!(null)).await;
    assert_eq!(code, 404);
    // A definition that was never served goes at once; a freed name is taken.
    api.call(&format!("DELETE {CRDS}/{NAME}"), json!(null)).await;
    wait_code(&api, &format!("GET {CRDS}/{NAME}"), 404).await;
    wait(&api, "others.stable.example.com", |object| {
        condition(object, "Established").is_some_and(|c| c["status"] == "True")
    })
    .await;
    api.ok("GET /apis/stable.example.com/v1/others", json!(null)).await;
}

#[tokio::test]
async fn built_in_resources_are_not_taken_over() {
    let server = TestServer::start().await;
    let api = server.admin();
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    api.ok(&format!("POST {policies}"), object("keep", json!({"podSelector": {}}))).await;
    let name = "networkpolicies.networking.k8s.io";
    let definition = json!({
        "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}},
        "spec": {"group": "networking.k8s.io", "scope": "Namespaced",
            "names": {"plural": "networkpolicies", "kind": "NetworkPolicy"},
            "versions": [{"name": "v9", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    api.ok(&format!("POST {CRDS}"), definition).await;
    let refused = wait(&api, name, |object| condition(object, "Established").is_some()).await;
    let names = condition(&refused, "NamesAccepted").unwrap();
    assert_eq!(names["status"], "False");
    assert!(names["message"].as_str().unwrap().ends_with("is already in use"), "{names}");
    assert_eq!(condition(&refused, "Established").unwrap()["status"], "False");
    let (code, _) = api.call("GET /apis/networking.k8s.io/v9/networkpolicies", json!(null)).await;
    assert_eq!(code, 404);
    // Nor does a status that says otherwise.
    let mut forged = refused.clone();
    forged["status"]["acceptedNames"] = forged["spec"]["names"].clone();
    forged["status"]["conditions"] = json!([{"type": "Established", "status": "True", "reason": "x", "message": "",
        "lastTransitionTime": "2026-01-02T03:04:05Z"}]);
    api.ok(&format!("PUT {CRDS}/{name}/status"), forged).await;
    let settled =
        |object: &Value| condition(object, "Established").is_some_and(|condition| condition["status"] == "False");
    wait(&api, name, settled).await;
    api.ok(&format!("POST {policies}"), object("more", json!({"podSelector": {}}))).await;
    api.call(&format!("DELETE {CRDS}/{name}"), json!(null)).await;
    wait_code(&api, &format!("GET {CRDS}/{name}"), 404).await;
    let left = api.ok(&format!("GET {policies}"), json!(null)).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 2);
}

/// A resource called `namespaces` in another group is no Namespace.
#[tokio::test]
async fn namespaces_of_another_group() {
    let server = TestServer::start().await;
    let api = server.admin();
    let definition = |group: &str, scope: &str| {
        json!({"metadata": {"name": format!("namespaces.{group}")},
            "spec": {"group": group, "scope": scope, "names": {"plural": "namespaces", "kind": "Space"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
    };
    define(&api, definition("in.example.com", "Namespaced")).await;
    define(&api, definition("over.example.com", "Cluster")).await;
    api.ok("POST /api/v1/namespaces", json!({"metadata": {"name": "other"}})).await;
    let role = json!({"metadata": {"name": "all"}, "rules": [{"verbs": ["*"], "resources": ["namespaces"],
        "apiGroups": ["in.example.com", "over.example.com"]}]});
    api.ok("POST /apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", role).await;
    let binding = json!({"metadata": {"name": "all"}, "subjects": [{"kind": "User", "name": "ann"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "all"}});
    api.ok("POST /apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await;
    let ann = server.api(UserInfo::new("ann", ["system:authenticated"]));

    let inside = |namespace: &str| format!("/apis/in.example.com/v1/namespaces/{namespace}/namespaces");
    let (here, there) = (inside("default"), inside("other"));
    for namespace in ["default", "other"] {
        let made = api.ok(&format!("POST {}", inside(namespace)), object("x", json!({}))).await;
        assert_eq!(made["metadata"]["namespace"], namespace);
    }
    ann.eventually(&format!("GET {here}/x"), |code, _| code == 200).await;
    let listed = ann.ok(&format!("GET {here}"), json!(null)).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["items"][0]["metadata"]["namespace"], "default");
    for request in [
        format!("GET {there}"),
        format!("GET {there}/x"),
        format!("DELETE {there}/x"),
        "GET /apis/in.example.com/v1/namespaces".to_owned(),
        "GET /apis/in.example.com/v1/namespaces/other".to_owned(),
        "GET /apis/over.example.com/v1/namespaces".to_owned(),
    ] {
        assert_eq!(ann.call(&request, json!(null)).await.0, 403, "{request}");
    }
    let mut events = Events::of(&ann, &format!("{here}?watch=1&timeoutSeconds=2")).await;
    api.ok(&format!("POST {there}"), object("unseen", json!({}))).await;
    api.ok(&format!("POST {here}"), object("seen", json!({}))).await;
    while let Some(event) = events.next().await {
        assert_eq!(event["object"]["metadata"]["namespace"], "default", "{event}");
    }
    ann.ok(&format!("DELETE {here}/x"), json!(null)).await;
    ann.ok(&format!("DELETE {here}"), json!(null)).await;
    let left = api.ok("GET /apis/in.example.com/v1/namespaces", json!(null)).await;
    let left: Vec<_> = left["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].clone()).collect();
    assert_eq!(left, ["unseen", "x"]);
    // The path of an object by its name alone is that of an object called as its namespace.
    api.ok(&format!("POST {here}"), object("default", json!({}))).await;
    assert_eq!(
        ann.ok("GET /apis/in.example.com/v1/namespaces/default", json!(null)).await["metadata"]["name"],
        "default"
    );

    // Cluster-scoped objects have no path that a namespace's rights open.
    api.ok("POST /apis/over.example.com/v1/namespaces", object("default", json!({}))).await;
    assert_eq!(
        api.ok("GET /apis/over.example.com/v1/namespaces", json!(null)).await["items"].as_array().unwrap().len(),
        1
    );
    for request in ["GET", "DELETE", "PATCH+merge"] {
        let (code, _) = ann.call(&format!("{request} /apis/over.example.com/v1/namespaces/default"), json!({})).await;
        assert_eq!(code, 404, "{request}");
    }
    let (code, _) = ann.call("GET /apis/over.example.com/v1/namespaces/default/namespaces/default", json!(null)).await;
    assert_eq!(code, 404);
}

/// The answer to a write is what a read would show: what the storage version makes of it.
#[tokio::test]
async fn writes_in_another_version_show_what_is_stored() {
    let test = TestServer::start().await;
    let api = test.admin();
    define(&api, definition()).await;
    for name in ["a", "b"] {
        let sent = json!({"metadata": {"name": name}, "spec": {"cronSpec": "*", "color": "red"}});
        let made = api.ok(&format!("POST {BETA}"), sent).await;
        assert_eq!(made["spec"], json!({"cronSpec": "*", "image": "busybox", "old": "yes"}));
        assert_eq!(made, api.ok(&format!("GET {BETA}/{name}"), json!(null)).await);
        let patched =
            api.ok(&format!("PATCH+merge {BETA}/{name}"), json!({"spec": {"color": "blue", "replicas": 2}})).await;
        assert_eq!(patched["spec"], json!({"cronSpec": "*", "image": "busybox", "old": "yes", "replicas": 2}));
        assert_eq!(patched, api.ok(&format!("GET {BETA}/{name}"), json!(null)).await);
    }
    let hash = async |version: &str| {
        let list = api.ok(&format!("GET /apis/stable.example.com/{version}"), json!(null)).await;
        list["resources"][0]["storageVersionHash"].clone()
    };
    assert_eq!(hash("v1").await, hash("v1beta1").await);
}

#[tokio::test]
async fn old_changes_of_another_version_are_forgotten_too() {
    let test = TestServer::start().await;
    test.settled().await;
    let api = test.admin();
    define(&api, definition()).await;
    let first = api.ok(&format!("POST {V1}"), object("a", json!({"cronSpec": "*"}))).await;
    let list = api.ok(&format!("GET {BETA}"), json!(null)).await;
    let start = list["metadata"]["resourceVersion"].as_str().unwrap();
    for n in 0..100 {
        api.ok(&format!("PATCH+merge {V1}/a"), json!({"metadata": {"labels": {"n": n.to_string()}}})).await;
    }
    api.ok(&format!("GET {BETA}"), json!(null)).await;
    let event = async || {
        let watch = format!("GET {BETA}?watch=1&resourceVersion={start}&timeoutSeconds=5");
        let mut body = api.send(&watch, "").await.into_body();
        let line = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let line = line.split(|byte| *byte == b'\n').next().unwrap().to_vec();
        serde_json::from_slice::<Value>(&line).unwrap()
    };
    let shown = event().await;
    assert_eq!((&shown["type"], &shown["object"]["metadata"]["uid"]), (&json!("MODIFIED"), &first["metadata"]["uid"]));
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(601)).await;
    tokio::time::resume();
    let gone = event().await;
    assert_eq!((&gone["type"], &gone["object"]["code"]), (&json!("ERROR"), &json!(410)), "{gone}");
}
