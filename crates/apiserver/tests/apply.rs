//! Server-side apply and managed fields, through the API.

mod support;

use serde_json::{Value, json};
use support::{Api, TestServer};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
        }},
    })
}

async fn apply(api: &Api, path: &str, query: &str, config: Value) -> (u16, Value) {
    api.call(&format!("PATCH+application/apply-patch+yaml {path}?{query}"), config).await
}

/// `manager operation subresource version` of each entry, sorted: their own order is by second.
fn entries(object: &Value) -> Vec<String> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("-").to_owned();
    let line = |e: &Value| ["manager", "operation", "subresource", "apiVersion"].map(|key| text(e, key)).join(" ");
    let mut lines: Vec<String> = list.iter().map(line).collect();
    lines.sort();
    lines
}

fn fields(object: &Value, manager: &str) -> Value {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    list.into_iter().find(|e| e["manager"] == manager).map(|e| e["fieldsV1"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn every_write_has_a_manager() {
    let server = TestServer::start().await;
    let api = server.admin();
    let agent = [("user-agent", "kubectl/v1.35.0 (linux/amd64)")];
    let response = api.send_with(&format!("POST {MAPS}"), config_map(json!({"x": "1"})).to_string(), &agent).await;
    assert_eq!(response.status(), 201);
    let made = api.ok(&format!("GET {MAPS}/a"), Value::Null).await;
    assert_eq!(entries(&made), ["kubectl Update - v1"]);
    assert_eq!(fields(&made, "kubectl"), json!({"f:data": {".": {}, "f:x": {}}}));

    let put = api.ok(&format!("PUT {MAPS}/a?fieldManager=me"), config_map(json!({"x": "2"}))).await;
    assert_eq!(entries(&put), ["kubectl Update - v1", "me Update - v1"]);
    let patch = |body: Value| async { api.ok(&format!("PATCH+merge {MAPS}/a?fieldManager=patcher"), body).await };
    let patched = patch(json!({"data": {"y": "1"}})).await;
    assert_eq!(fields(&patched, "patcher"), json!({"f:data": {"f:y": {}}}));
    let same = patch(json!({"data": {"y": "1"}})).await;
    assert_eq!(same, patched, "nothing changed, so nothing is written");
    let anonymous = api.ok(&format!("PATCH+json {MAPS}/a"), json!([{"op": "remove", "path": "/data/y"}])).await;
    assert_eq!(entries(&anonymous), ["kubectl Update - v1", "me Update - v1"], "a removal owns nothing");

    // Reset, and untracked from then on.
    for body in [json!({"metadata": {"managedFields": [{}]}}), json!({"data": {"z": "1"}})] {
        let bare = patch(body).await;
        assert_eq!(entries(&bare), Vec::<String>::new());
    }
    // An empty list says the same.
    api.ok(&format!("POST {MAPS}"), json!({"metadata": {"name": "b"}, "data": {"x": "1"}})).await;
    let bare = api.ok(&format!("PATCH+merge {MAPS}/b"), json!({"metadata": {"managedFields": []}})).await;
    assert_eq!(entries(&bare), Vec::<String>::new());

    let long = "m".repeat(129);
    let (code, body) = api.call(&format!("POST {MAPS}?fieldManager={long}"), config_map(json!({}))).await;
    assert_eq!((code, &body["details"]["causes"][0]["field"]), (422, &json!("fieldManager")));
}

#[tokio::test]
async fn subresources_have_entries_of_their_own() {
    let server = TestServer::start().await;
    let api = server.admin();
    let made = api.ok(&format!("POST {DEPLOYMENTS}?fieldManager=user"), deployment(1)).await;
    let mut status = made.clone();
    status["status"] = json!({"replicas": 1, "observedGeneration": 1});
    status["spec"]["replicas"] = 9.into();
    let status = api.ok(&format!("PUT {DEPLOYMENTS}/web/status?fieldManager=controller"), status).await;
    assert_eq!(entries(&status), ["controller Update status apps/v1", "user Update - apps/v1"]);
    assert_eq!(fields(&status, "controller"), json!({"f:status": {"f:observedGeneration": {}, "f:replicas": {}}}));
    assert_eq!(fields(&status, "user"), fields(&made, "user"), "the status endpoint changes no spec");
    // A status sent to the main endpoint is not owned either.
    let mut main = status.clone();
    main["status"]["replicas"] = 7.into();
    main["spec"]["paused"] = true.into();
    let main = api.ok(&format!("PUT {DEPLOYMENTS}/web?fieldManager=other"), main).await;
    assert_eq!(fields(&main, "other"), json!({"f:spec": {"f:paused": {}}}));

    // Scaling moves the replicas, and nothing else.
    let scale = json!({"metadata": {"name": "web"}, "spec": {"replicas": 3}});
    let scaled = api.ok(&format!("PUT {DEPLOYMENTS}/web/scale?fieldManager=scaler"), scale).await;
    assert!(scaled["metadata"].get("managedFields").is_none());
    let object = api.ok(&format!("GET {DEPLOYMENTS}/web"), Value::Null).await;
    assert_eq!(fields(&object, "scaler"), json!({"f:spec": {"f:replicas": {}}}));
    assert!(entries(&object).contains(&"scaler Update scale apps/v1".to_owned()));
    assert!(fields(&object, "user")["f:spec"].get("f:replicas").is_none());

    // An applier of the scale meets the same owners.
    let config =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 5}});
    let path = format!("{DEPLOYMENTS}/web/scale");
    let (code, body) = apply(&api, &path, "fieldManager=applier", config.clone()).await;
    assert_eq!(code, 409, "{body}");
    assert_eq!(
        body["message"],
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using autoscaling/v1: .spec.replicas"
    );
    let (code, body) = apply(&api, &path, "fieldManager=applier&force=true", config).await;
    assert_eq!((code, &body["spec"]["replicas"]), (200, &json!(5)));
    let object = api.ok(&format!("GET {DEPLOYMENTS}/web"), Value::Null).await;
    assert!(entries(&object).contains(&"applier Apply scale apps/v1".to_owned()), "{:?}", entries(&object));
    assert_eq!(object["spec"]["replicas"], 5);
}

#[tokio::test]
async fn applies() {
    let server = TestServer::start().await;
    let api = server.admin();
    let path = format!("{DEPLOYMENTS}/web");
    let (code, made) = apply(&api, &path, "fieldManager=one", deployment(1)).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(entries(&made), ["one Apply - apps/v1"]);
    assert_eq!(made["spec"]["strategy"]["type"], "RollingUpdate", "defaults are filled in and belong to nobody");
    assert!(fields(&made, "one")["f:spec"].get("f:strategy").is_none());
    assert_eq!(
        fields(&made, "one")["f:spec"]["f:template"]["f:spec"]["f:containers"],
        json!({"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}}})
    );
    let (code, again) = apply(&api, &path, "fieldManager=one", deployment(1)).await;
    assert_eq!((code, &again), (200, &made), "applied again, it is as it was");
    let (code, dry) = apply(&api, &path, "fieldManager=one&dryRun=All", deployment(4)).await;
    assert_eq!((code, &dry["spec"]["replicas"]), (200, &json!(4)));

    // Another manager: conflict, force, sharing, giving up.
    let (code, conflict) = apply(&api, &path, "fieldManager=two", deployment(2)).await;
    assert_eq!((code, &conflict["reason"]), (409, &json!("Conflict")));
    assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    assert_eq!(
        conflict["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.replicas"}])
    );
    let (code, forced) = apply(&api, &path, "fieldManager=two&force=true", deployment(2)).await;
    assert_eq!((code, &forced["spec"]["replicas"]), (200, &json!(2)));
    assert!(fields(&forced, "one")["f:spec"].get("f:replicas").is_none());
    let mut less = deployment(2);
    less["spec"].as_object_mut().unwrap().remove("replicas");
    let (_, less) = apply(&api, &path, "fieldManager=two", less).await;
    assert_eq!(less["spec"]["replicas"], 1, "given up by its only owner, it has its default again");

    // A stale resourceVersion, a foreign UID.
    let mut stale = deployment(3);
    stale["metadata"]["resourceVersion"] = "1".into();
    let (code, body) = apply(&api, &path, "fieldManager=two", stale).await;
    assert_eq!(code, 409, "{body}");
    let mut gone = deployment(1);
    gone["metadata"] = json!({"name": "gone", "uid": "u"});
    let (code, body) = apply(&api, &format!("{DEPLOYMENTS}/gone"), "fieldManager=two", gone).await;
    assert_eq!(code, 409);
    assert!(body["message"].as_str().unwrap().ends_with("and no existing object was found"), "{body}");
    // No subresource is created by applying.
    let (code, _) = apply(&api, &format!("{DEPLOYMENTS}/gone/status"), "fieldManager=two", deployment(1)).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn refused_applies() {
    let server = TestServer::start().await;
    let api = server.admin();
    let path = format!("{MAPS}/a");
    let (code, body) = apply(&api, &path, "", config_map(json!({}))).await;
    assert_eq!(code, 422);
    assert_eq!(
        body["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let (code, body) = api.call(&format!("PATCH+merge {path}?force=true"), json!({})).await;
    assert_eq!(code, 422);
    assert!(body["message"].as_str().unwrap().ends_with("force: Forbidden: may not be specified for non-apply patch"));
    for (config, expected, message) in [
        (
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}),
            400,
            "invalid object type: /v1, Kind=Secret",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": [{}]}}),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "dota": 1}),
            500,
            "failed to create typed patch object (default/a; /v1, Kind=ConfigMap): .dota: field not declared in schema",
        ),
        (json!("text"), 400, ""),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}),
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
    ] {
        let (code, body) = apply(&api, &path, "fieldManager=m", config).await;
        assert_eq!(code, expected, "{body}");
        assert!(message.is_empty() || body["message"] == message, "{body}");
    }
    let twice = "apiVersion: v1\nkind: ConfigMap\ndata: {a: '1', a: '2'}\n";
    let strict = format!("PATCH+application/apply-patch+yaml {path}?fieldManager=m&fieldValidation=");
    let (code, text, _) = api.raw(&format!("{strict}Strict"), twice.into()).await;
    assert!(code == 400 && text.contains("error strict decoding YAML"), "{code} {text}");
    let (code, _, warnings) = api.raw(&format!("{strict}Warn"), twice.into()).await;
    assert_eq!((code, warnings.len()), (201, 1));
}

#[tokio::test]
async fn components_are_known_by_their_programs() {
    let server = TestServer::start().await;
    let user = keelson_apiserver::UserInfo::new("admin", ["system:masters"]);
    let client = server.server.kube_client_of(user, "kube-scheduler");
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> = kube::Api::namespaced(client, "default");
    let map = serde_json::from_value(config_map(json!({"x": "1"}))).unwrap();
    maps.create(&kube::api::PostParams::default(), &map).await.unwrap();
    // kube's own way to apply.
    let config = config_map(json!({"y": "2"}));
    let params = kube::api::PatchParams::apply("operator");
    maps.patch("a", &params, &kube::api::Patch::Apply(&config)).await.unwrap();
    let api = server.admin();
    let live = api.ok(&format!("GET {MAPS}/a"), Value::Null).await;
    assert_eq!(entries(&live), ["kube-scheduler Update - v1", "operator Apply - v1"]);
    // The server's own writes.
    let role = api.ok("GET /apis/rbac.authorization.k8s.io/v1/clusterroles/view", Value::Null).await;
    assert!(entries(&role).iter().any(|entry| entry.starts_with("kube-apiserver Update")), "{:?}", entries(&role));
    // Nobody is noted for a binding.
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = api.ok("POST /api/v1/namespaces/default/pods?fieldManager=me", pod).await;
    assert!(fields(&pod, "me")["f:spec"].get("f:tolerations").is_none(), "admission's fields are nobody's");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    api.ok("POST /api/v1/namespaces/default/pods/p/binding?fieldManager=scheduler", binding).await;
    let bound = api.ok("GET /api/v1/namespaces/default/pods/p", Value::Null).await;
    assert_eq!((bound["spec"]["nodeName"].as_str(), entries(&bound).len()), (Some("n"), 1));
}

#[tokio::test]
async fn cbor_configurations() {
    let server = TestServer::start().await;
    let api = server.admin();
    let body = keelson_api::codec::cbor::encode(&config_map(json!({"x": "1"})), None).unwrap();
    let request = format!("PATCH+application/apply-patch+cbor {MAPS}/a?fieldManager=m");
    assert_eq!(api.send(&request, body).await.status(), 201);
    let live = api.ok(&format!("GET {MAPS}/a"), Value::Null).await;
    assert_eq!((entries(&live), &live["data"]), (vec!["m Apply - v1".to_owned()], &json!({"x": "1"})));
    assert_eq!(api.send(&request, vec![0xff]).await.status(), 400);
}

#[tokio::test]
async fn owner_references_that_are_there_twice() {
    let server = TestServer::start().await;
    let api = server.admin();
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
    let mut map = config_map(json!({}));
    map["metadata"]["ownerReferences"] = json!([owner, owner]);
    let (code, text, warnings) = api.raw(&format!("POST {MAPS}"), map.to_string()).await;
    let made: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &made["metadata"]["ownerReferences"]), (201, &json!([owner])));
    assert!(warnings[0].contains("duplicate UID(s) observed: u"), "{warnings:?}");
    let patch = json!({"metadata": {"ownerReferences": [owner, owner]}});
    let (_, _, warnings) = api.raw(&format!("PATCH+merge {MAPS}/a"), patch.to_string()).await;
    assert!(warnings[0].contains("after mutating admission happens"), "{warnings:?}");
}

#[tokio::test]
async fn many_writers_of_one_object() {
    let server = TestServer::start().await;
    let api = server.admin();
    api.ok(&format!("POST {MAPS}"), config_map(json!({}))).await;
    let work = (0..12).map(|i| {
        let api = api.clone();
        async move {
            let config = config_map(json!({format!("k{i}"): "1"}));
            let path = format!("{MAPS}/{}", if i % 2 == 0 { "a" } else { "fresh" });
            let mut config = config;
            config["metadata"]["name"] = if i % 2 == 0 { "a" } else { "fresh" }.into();
            apply(&api, &path, &format!("fieldManager=m{i}"), config).await.0
        }
    });
    let codes = futures::future::join_all(work).await;
    assert!(codes.iter().all(|code| matches!(code, 200 | 201)), "{codes:?}");
    for name in ["a", "fresh"] {
        let object = api.ok(&format!("GET {MAPS}/{name}"), Value::Null).await;
        assert_eq!(object["data"].as_object().unwrap().len(), 6, "{object}");
        assert_eq!(entries(&object).iter().filter(|entry| entry.contains(" Apply ")).count(), 6);
    }
}

#[tokio::test]
async fn from_client_side_apply() {
    let server = TestServer::start().await;
    let api = server.admin();
    let applied = config_map(json!({"x": "1"}));
    let mut annotated = applied.clone();
    annotated["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": format!("{applied}\n")});
    let live = api.ok(&format!("POST {MAPS}?fieldManager=kubectl-client-side-apply"), annotated).await;
    // What kubectl does before its first server-side apply.
    let mut entry = live["metadata"]["managedFields"][0].clone();
    entry["manager"] = "kubectl".into();
    entry["operation"] = "Apply".into();
    let migration = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": [entry]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
    ]);
    let migrated = api.ok(&format!("PATCH+json {MAPS}/a"), migration).await;
    assert_eq!(entries(&migrated), ["kubectl Apply - v1"]);
    let (code, done) = apply(&api, &format!("{MAPS}/a"), "fieldManager=kubectl", config_map(json!({"y": "2"}))).await;
    assert_eq!((code, &done["data"]), (200, &json!({"y": "2"})));
}

#[tokio::test]
async fn versions_share_ownership() {
    let server = TestServer::start().await;
    let api = server.admin();
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c.io/c", "reportingInstance": "i", "action": "A",
        "reason": "R", "type": "Normal", "regarding": {"namespace": "default"}, "note": "n"});
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let made = api.ok(&format!("POST {path}?fieldManager=new"), event).await;
    assert_eq!(entries(&made), ["new Update - events.k8s.io/v1"]);
    assert!(fields(&made, "new").get("f:note").is_some());
    // Through the other version, where the field is called something else.
    let patch = json!({"message": "m"});
    let patched = api.ok("PATCH+merge /api/v1/namespaces/default/events/e?fieldManager=old", patch).await;
    assert_eq!(entries(&patched), ["new Update - events.k8s.io/v1", "old Update - v1"]);
    assert_eq!(fields(&patched, "old"), json!({"f:message": {}}));
    assert!(fields(&patched, "new").get("f:note").is_none());
}

#[tokio::test]
async fn an_applier_may_change_versions() {
    let server = TestServer::start().await;
    let api = server.admin();
    let base = "/apis/autoscaling/V/namespaces/default/horizontalpodautoscalers/h";
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let metric = |name: &str| json!({"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": 50}}});
    let v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h", "labels": {"l": "1"}},
        "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 5, "metrics": [metric("cpu")]}});
    let (code, made) = apply(&api, &base.replace('V', "v2"), "fieldManager=m", v2).await;
    assert_eq!(code, 201, "{made}");
    // An update in the other version takes from the applier what it changes.
    let patch = json!({"spec": {"targetCPUUtilizationPercentage": 70}});
    let path = base.replace('V', "v1");
    let patched = api.ok(&format!("PATCH+merge {path}?fieldManager=u"), patch).await;
    assert_eq!(entries(&patched), ["m Apply - autoscaling/v2", "u Update - autoscaling/v1"]);
    assert_eq!(fields(&patched, "u"), json!({"f:spec": {"f:targetCPUUtilizationPercentage": {}}}));
    assert!(fields(&patched, "m")["f:spec"].get("f:metrics").is_none(), "{patched}");
    // Now it speaks the other version, and less: what it gave up goes.
    let v1 = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 5}});
    let (code, less) = apply(&api, &path, "fieldManager=m", v1).await;
    assert_eq!(code, 200, "{less}");
    assert_eq!(entries(&less), ["m Apply - autoscaling/v1", "u Update - autoscaling/v1"]);
    assert_eq!(less["spec"]["minReplicas"], 1, "back to its default");
    assert!(less["metadata"].get("labels").is_none());
    assert_eq!(less["spec"]["targetCPUUtilizationPercentage"], 70);
    assert_eq!(less["spec"]["scaleTargetRef"], target);
}

#[tokio::test]
async fn creating_by_apply_needs_the_right_to_create() {
    let server = TestServer::start().await;
    let admin = server.admin();
    admin
        .ok(
            "POST /apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
            json!({"metadata": {"name": "patcher"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}]}),
        )
        .await;
    admin
        .ok(
            "POST /apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            json!({"metadata": {"name": "patcher"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patcher"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "p"}]}),
        )
        .await;
    let api = server.api(keelson_apiserver::UserInfo::new("p", Vec::<String>::new()));
    let (code, body) = apply(&api, &format!("{MAPS}/a"), "fieldManager=m", config_map(json!({"x": "1"}))).await;
    assert_eq!(code, 403, "{body}");
    admin.ok(&format!("POST {MAPS}"), config_map(json!({}))).await;
    let (code, _) = apply(&api, &format!("{MAPS}/a"), "fieldManager=m", config_map(json!({"x": "1"}))).await;
    assert_eq!(code, 200);
}
