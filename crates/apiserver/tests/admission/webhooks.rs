//! What webhooks are asked, and what becomes of their answers.

use serde_json::{Value, json};

use crate::hook::{BASE, Hook, MAPS, allowed, configure, denied, map, patched};
use crate::support::{TestServer, UserInfo};

#[tokio::test]
async fn a_review() {
    let server = TestServer::start().await;
    let hook = Hook::start(&server, |_, _| json!({"allowed": true, "warnings": ["careful"]})).await;
    configure(&server, "validating", "all", json!([hook.webhook("v", &["configmaps"], json!({}))])).await;
    let api = server.api(UserInfo::new("alice", ["system:masters"]));
    let path = format!("POST {MAPS}?fieldManager=me&dryRun=All");
    let (code, _, warnings) = api.raw(&path, map("a").to_string()).await;
    assert_eq!((code, warnings), (201, vec!["299 - \"careful\"".to_owned()]));
    let (path, mut review) = hook.take_calls().remove(0);
    assert_eq!(path, "/v?timeout=10s");
    assert!(review["request"]["uid"].is_string());
    review["request"]["uid"] = "u".into();
    let object = std::mem::take(&mut review["request"]["object"]);
    assert_eq!((&object["kind"], &object["metadata"]["name"]), (&json!("ConfigMap"), &json!("a")));
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let resource = json!({"group": "", "version": "v1", "resource": "configmaps"});
    assert_eq!(
        review,
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
            "uid": "u", "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": "a", "namespace": "default", "operation": "CREATE", "dryRun": true, "object": null, "oldObject": null,
            "userInfo": {"username": "alice", "groups": ["system:masters", "system:authenticated"]},
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"], "fieldManager": "me"},
        }})
    );
    // The other operations.
    api.ok(&format!("POST {MAPS}"), map("a")).await;
    api.ok(&format!("PATCH+merge {MAPS}/a"), json!({"data": {"a": "2"}})).await;
    api.ok(&format!("DELETE {MAPS}/a"), json!({"propagationPolicy": "Background"})).await;
    let reviews = hook.take();
    let seen: Vec<_> = reviews
        .iter()
        .map(|review| {
            let request = &review["request"];
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            (
                text(&request["operation"]),
                text(&request["object"]["data"]["a"]),
                text(&request["oldObject"]["data"]["a"]),
                text(&request["options"]["kind"]),
            )
        })
        .collect();
    let row = |a: &str, b: &str, c: &str, d: &str| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned());
    assert_eq!(
        seen,
        [
            row("CREATE", "1", "-", "CreateOptions"),
            row("UPDATE", "2", "1", "UpdateOptions"),
            row("DELETE", "-", "2", "DeleteOptions"),
        ]
    );
    assert_eq!(reviews[2]["request"]["options"]["propagationPolicy"], "Background");
}

#[tokio::test]
async fn refusals() {
    let server = TestServer::start().await;
    let hook = Hook::start(&server, |_, request| match request["name"].as_str() {
        Some("plain") => denied("not this one"),
        Some("bare") => json!({"allowed": false}),
        Some("own") => json!({"allowed": false, "status": {"code": 418, "reason": "Teapot", "message": "short",
            "details": {"causes": [{"reason": "R", "message": "m", "field": "f"}]}}}),
        _ => allowed(),
    })
    .await;
    configure(&server, "validating", "all", json!([hook.webhook("v", &["configmaps"], json!({}))])).await;
    let api = server.admin();
    let create = |name: &str| {
        let (api, object) = (api.clone(), map(name));
        async move { api.call(&format!("POST {MAPS}"), object).await }
    };
    let (code, status) = create("plain").await;
    assert_eq!(code, 400);
    assert_eq!(status["message"], "admission webhook \"v.example.com\" denied the request: not this one");
    let (code, status) = create("bare").await;
    assert_eq!(
        (code, &status["message"]),
        (400, &json!("admission webhook \"v.example.com\" denied the request without explanation"))
    );
    let (code, status) = create("own").await;
    assert_eq!((code, &status["reason"], &status["code"]), (418, &json!("Teapot"), &json!(418)));
    assert_eq!(status["details"]["causes"], json!([{"reason": "R", "message": "m", "field": "f"}]));
    assert_eq!(api.call(&format!("GET {MAPS}/own"), Value::Null).await.0, 404);
    assert_eq!(create("fine").await.0, 201);
}

/// What webhooks change is defaulted, pruned and checked again, and owned by nobody; managed fields survive.
#[tokio::test]
async fn patches() {
    let server = TestServer::start().await;
    let hook = Hook::start(&server, |_, request| match request["name"].as_str().unwrap_or_default() {
        "bad" => patched(json!([{"op": "add", "path": "/spec/replicas", "value": -1}])),
        "wrong" => patched(json!([{"op": "add", "path": "/spec/replicas", "value": "many"}])),
        "lost" => patched(json!([{"op": "remove", "path": "/spec/nothing/here"}])),
        "stolen" => patched(json!([{"op": "add", "path": "/metadata/managedFields",
            "value": [{"manager": "x", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:": 1}}]}])),
        _ => patched(json!([
            {"op": "add", "path": "/spec/replicas", "value": 3},
            {"op": "add", "path": "/metadata/labels", "value": {"by": "hook"}},
            {"op": "add", "path": "/spec/unknown", "value": 1},
            {"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "side", "image": "i"}},
        ])),
    })
    .await;
    configure(&server, "mutating", "all", json!([hook.webhook("m", &["deployments"], json!({}))])).await;
    let api = server.admin();
    let base = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    };
    let made = api.ok(&format!("POST {base}?fieldManager=me"), deployment("a")).await;
    assert_eq!((&made["spec"]["replicas"], &made["metadata"]["labels"]["by"]), (&json!(3), &json!("hook")));
    assert_eq!(made["spec"].get("unknown"), None);
    let side = &made["spec"]["template"]["spec"]["containers"][1];
    assert_eq!(side["imagePullPolicy"], "Always", "defaults are filled in again");
    let [entry] = made["metadata"]["managedFields"].as_array().unwrap().as_slice() else { panic!("{made}") };
    assert_eq!(entry["manager"], "me");
    assert_eq!(entry["fieldsV1"]["f:metadata"], Value::Null, "the label is the webhook's, which owns nothing");
    assert!(entry["fieldsV1"]["f:spec"]["f:template"].is_object());

    let (code, status) = api.call(&format!("POST {base}"), deployment("bad")).await;
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{status}");
    let (code, status) = api.call(&format!("POST {base}"), deployment("wrong")).await;
    assert_eq!((code, &status["reason"]), (500, &json!("InternalError")), "{status}");
    let (code, status) = api.call(&format!("POST {base}"), deployment("lost")).await;
    assert_eq!((code, &status["reason"]), (500, &json!("InternalError")), "{status}");
    let stolen = api.ok(&format!("POST {base}?fieldManager=me"), deployment("stolen")).await;
    assert_eq!(stolen["metadata"]["managedFields"][0]["manager"], "me");
    // Server-side apply creates by way of them, too.
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "applied"},
        "spec": deployment("x")["spec"]});
    let (code, applied) =
        api.call(&format!("PATCH+application/apply-patch+yaml {base}/applied?fieldManager=ap"), config).await;
    assert_eq!((code, &applied["spec"]["replicas"]), (201, &json!(3)), "{applied}");
    assert_eq!(applied["metadata"]["managedFields"][0]["operation"], "Apply");
}

/// Webhooks run in the order of their configurations' names, see each other's changes, and are asked again if they want.
#[tokio::test]
async fn order_and_reinvocation() {
    let server = TestServer::start().await;
    let hook = Hook::start(&server, |path, request| {
        let name = path.trim_start_matches('/').split('?').next().unwrap_or_default();
        if request["object"]["data"][name].is_string() {
            return allowed();
        }
        let seen = request["object"]["data"].as_object().map_or(0, serde_json::Map::len);
        patched(json!([{"op": "add", "path": format!("/data/{name}"), "value": format!("saw {seen}")}]))
    })
    .await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    configure(&server, "mutating", "b", json!([hook.webhook("second", &["configmaps"], json!({}))])).await;
    configure(&server, "mutating", "a", json!([hook.webhook("first", &["configmaps"], again.clone())])).await;
    configure(&server, "mutating", "c", json!([hook.webhook("third", &["configmaps"], again)])).await;
    let made = server.admin().ok(&format!("POST {MAPS}"), map("x")).await;
    assert_eq!(made["data"], json!({"a": "1", "first": "saw 1", "second": "saw 2", "third": "saw 3"}));
    let paths: Vec<_> = hook.take_calls().into_iter().map(|(path, _)| path).collect();
    let paths: Vec<_> = paths.iter().map(|path| path.split('?').next().unwrap()).collect();
    // The second does not want it, the third saw everything.
    assert_eq!(paths, ["/first", "/second", "/third", "/first"]);
}

#[tokio::test]
async fn who_is_asked() {
    let server = TestServer::start().await;
    let hook = Hook::start(&server, |_, _| allowed()).await;
    let with = |name: &str, more: Value| hook.webhook(name, &["configmaps"], more);
    let rule = |more: Value| {
        let mut rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["*"]});
        more.as_object().unwrap().iter().for_each(|(key, value)| rule[key] = value.clone());
        json!({"rules": [rule]})
    };
    let condition = |expression: &str| json!({"matchConditions": [{"name": "c", "expression": expression}], "failurePolicy": "Ignore"});
    let webhooks = json!([
        with("namespace", json!({"namespaceSelector": {"matchLabels": {"hooked": "yes"}}})),
        with("object", json!({"objectSelector": {"matchLabels": {"tier": "a"}}})),
        with("condition", condition("object.data.a == '2' && request.userInfo.username == 'admin'")),
        with(
            "allowed",
            condition("authorizer.group('').resource('configmaps').namespace('default').check('get').allowed()")
        ),
        with("broken", condition("object.data.none == '2'")),
        with("namespaced", rule(json!({"scope": "Namespaced"}))),
        with("cluster", rule(json!({"scope": "Cluster"}))),
        with("group", rule(json!({"apiGroups": ["apps"]}))),
        with("sub", rule(json!({"resources": ["*/*"], "operations": ["UPDATE"]}))),
    ]);
    configure(&server, "validating", "all", webhooks).await;
    let api = server.admin();
    let asked = || {
        let mut names: Vec<_> = hook.take_calls().into_iter().map(|(path, _)| path).collect();
        names.iter_mut().for_each(|name| *name = name.trim_start_matches('/').split('?').next().unwrap().to_owned());
        names.sort();
        names
    };
    api.ok(&format!("POST {MAPS}"), map("a")).await;
    assert_eq!(asked(), ["allowed", "namespaced"]);
    api.ok(&format!("PUT {MAPS}/a"), json!({"metadata": {"name": "a", "labels": {"tier": "a"}}, "data": {"a": "2"}}))
        .await;
    assert_eq!(asked(), ["allowed", "condition", "object", "sub"]);
    // The old object counts as well.
    api.ok(&format!("PATCH+merge {MAPS}/a"), json!({"metadata": {"labels": null}, "data": {"a": "3"}})).await;
    assert_eq!(asked(), ["allowed", "object", "sub"]);
    api.ok("POST /api/v1/namespaces", json!({"metadata": {"name": "n", "labels": {"hooked": "yes"}}})).await;
    assert_eq!(asked(), ["cluster"]);
    api.ok("POST /api/v1/namespaces/n/configmaps", map("a")).await;
    assert_eq!(asked(), ["allowed", "namespace", "namespaced"]);
    // Configurations are never their business.
    let all = hook.webhook("x", &["*/*"], json!({}));
    configure(&server, "validating", "every", json!([all])).await;
    hook.take();
    api.ok(&format!("DELETE {BASE}/validatingwebhookconfigurations/every"), json!({})).await;
    assert_eq!(asked(), [""; 0]);
}

/// A rule for one version of a resource is about requests for the others, too; a webhook sees the version that it asks for.
#[tokio::test]
async fn equivalent_versions() {
    let server = TestServer::start().await;
    let hook = Hook::start(&server, |_, request| match request["object"]["apiVersion"].as_str() {
        Some("events.k8s.io/v1") => patched(json!([{"op": "add", "path": "/note", "value": "patched"}])),
        _ => allowed(),
    })
    .await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "resources": ["events"]}]);
    let webhook = |name: &str, policy: &str| hook.webhook(name, &[], json!({"rules": rules, "matchPolicy": policy}));
    configure(&server, "mutating", "m", json!([webhook("e", "Equivalent"), webhook("x", "Exact")])).await;
    let event = json!({"metadata": {"name": "e", "namespace": "default"}, "message": "m", "reason": "r", "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "firstTimestamp": "2026-01-01T00:00:00Z"});
    let made = server.admin().ok("POST /api/v1/namespaces/default/events", event).await;
    assert_eq!((&made["apiVersion"], &made["message"]), (&json!("v1"), &json!("patched")));
    let reviews = hook.take();
    assert_eq!(reviews.len(), 1);
    let request = &reviews[0]["request"];
    assert_eq!(request["kind"]["group"], "events.k8s.io");
    assert_eq!(request["requestKind"], json!({"group": "", "version": "v1", "kind": "Event"}));
    assert_eq!(request["object"]["regarding"]["name"], "p");
}

/// Writes that are no plain ones: subresources, evictions, tokens, connections, collections.
#[tokio::test]
async fn every_path() {
    let server = TestServer::start().await;
    let hook = Hook::start(&server, |path, _| if path.starts_with("/no") { denied("no") } else { allowed() }).await;
    configure(&server, "validating", "all", json!([hook.webhook("v", &["*/*"], json!({}))])).await;
    let api = server.admin();
    let seen = || -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let reviews = hook.take();
        let requests = reviews.iter().map(|review| &review["request"]);
        let shown = requests.map(|r| {
            let (operation, resource, kind) =
                (text(&r["operation"]), text(&r["resource"]["resource"]), text(&r["kind"]["kind"]));
            format!("{operation} {resource}/{} {kind} {}", text(&r["subResource"]), text(&r["name"]))
        });
        let mut shown: Vec<String> = shown.collect();
        shown.sort();
        shown
    };
    let pods = "/api/v1/namespaces/default/pods";
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    api.ok(&format!("POST {pods}"), pod("a")).await;
    seen();
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}});
    api.ok(&format!("POST {pods}/a/binding"), binding).await;
    assert_eq!(seen(), ["CREATE pods/binding Binding a"]);
    api.ok(&format!("PATCH+merge {pods}/a/status"), json!({"status": {"phase": "Running"}})).await;
    assert_eq!(seen(), ["UPDATE pods/status Pod a"]);
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i"}]}});
    api.ok(&format!("PATCH+strategic {pods}/a/ephemeralcontainers"), debug).await;
    assert_eq!(seen(), ["UPDATE pods/ephemeralcontainers Pod a"]);
    let token = json!({"spec": {"audiences": ["x"]}});
    api.ok("POST /api/v1/namespaces/default/serviceaccounts/default/token", token).await;
    assert_eq!(seen(), ["CREATE serviceaccounts/token TokenRequest default"]);
    // No kubelet is there, but admission comes first.
    api.call(&format!("POST {pods}/a/exec?command=sh&container=c&stdin=true"), Value::Null).await;
    let reviews = hook.take();
    let request = &reviews[0]["request"];
    assert_eq!((&request["operation"], &request["options"]), (&json!("CONNECT"), &Value::Null));
    assert_eq!(
        request["object"],
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "container": "c", "command": ["sh"], "stdin": true})
    );
    api.call("GET /api/v1/nodes/n/proxy/stats", Value::Null).await;
    assert_eq!(seen(), ["CONNECT nodes/proxy NodeProxyOptions n"]);
    let eviction = json!({"metadata": {"name": "a"}});
    api.ok(&format!("POST {pods}/a/eviction"), eviction).await;
    assert_eq!(seen(), ["CREATE pods/eviction Eviction a"]);
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let set = json!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}}});
    api.ok(&format!("POST {sets}"), set).await;
    seen();
    api.ok(&format!("PATCH+merge {sets}/s/scale"), json!({"spec": {"replicas": 4}})).await;
    let reviews = hook.take();
    let request = &reviews[0]["request"];
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(
        (&request["object"]["spec"]["replicas"], &request["oldObject"]["spec"]["replicas"]),
        (&json!(4), &json!(1))
    );
    api.ok(
        "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        json!({"spec": {"nonResourceAttributes":
        {"path": "/x", "verb": "get"}}}),
    )
    .await;
    assert_eq!(seen(), ["CREATE selfsubjectaccessreviews/ SelfSubjectAccessReview "]);
    for name in ["x", "y"] {
        api.ok(&format!("POST {MAPS}"), map(name)).await;
    }
    seen();
    api.ok(&format!("DELETE {MAPS}"), json!({})).await;
    assert_eq!(seen(), ["DELETE configmaps/ ConfigMap x", "DELETE configmaps/ ConfigMap y"]);

    // And a no is one everywhere.
    configure(&server, "validating", "no", json!([hook.webhook("no", &["*/*"], json!({}))])).await;
    for (request, body) in [
        (format!("POST {pods}/a/exec?command=sh&container=c"), Value::Null),
        ("GET /api/v1/nodes/n/proxy/stats".into(), Value::Null),
        (format!("PATCH+merge {sets}/s/scale"), json!({"spec": {"replicas": 5}})),
        ("POST /api/v1/namespaces/default/serviceaccounts/default/token".into(), json!({"spec": {"audiences": ["x"]}})),
        (format!("DELETE {sets}/s"), json!({})),
        (format!("PATCH+merge {sets}/s/status"), json!({"status": {"observedGeneration": 1}})),
    ] {
        let (code, status) = api.call(&request, body).await;
        assert_eq!(code, 400, "{request}: {status}");
        assert_eq!(status["message"], "admission webhook \"no.example.com\" denied the request: no", "{request}");
    }
}

/// Plugins, webhooks and the two parts of admission, under upstream's names.
#[tokio::test]
async fn admission_is_measured() {
    let server = TestServer::start().await;
    let hook = Hook::start(&server, |path, request| match (path.starts_with("/v"), request["name"].as_str()) {
        (true, Some("refused")) => json!({"allowed": false, "status": {"code": 418, "message": "no"}}),
        (false, Some("lost")) => patched(json!([{"op": "remove", "path": "/spec/nothing/here"}])),
        _ => allowed(),
    })
    .await;
    let conditions = json!({"matchConditions": [{"name": "c", "expression": "request.name != 'spared'"}]});
    configure(&server, "validating", "v", json!([hook.webhook("v", &["configmaps"], conditions)])).await;
    let nobody = json!({"url": "https://127.0.0.1:1/"});
    let open = json!({"clientConfig": nobody, "failurePolicy": "Ignore"});
    configure(
        &server,
        "mutating",
        "m",
        json!([hook.webhook("m", &["configmaps"], json!({})), hook.webhook("open", &["configmaps"], open)]),
    )
    .await;
    let api = server.admin();
    for (name, expected) in [("fine", 201), ("refused", 418), ("lost", 500), ("spared", 201)] {
        assert_eq!(api.call(&format!("POST {MAPS}"), map(name)).await.0, expected, "{name}");
    }
    let closed = json!({"clientConfig": nobody});
    configure(&server, "validating", "closed", json!([hook.webhook("closed", &["secrets"], closed)])).await;
    let secrets = "POST /api/v1/namespaces/default/secrets";
    assert_eq!(api.call(secrets, json!({"metadata": {"name": "s"}})).await.0, 500);
    let text = api.raw("GET /metrics", String::new()).await.1;
    for line in [
        r#"apiserver_admission_webhook_request_total{code="200",name="m.example.com",operation="CREATE",rejected="false",type="admit"} 3"#,
        r#"apiserver_admission_webhook_request_total{code="418",name="v.example.com",operation="CREATE",rejected="true",type="validating"} 1"#,
        r#"apiserver_admission_webhook_rejection_count{error_type="no_error",name="v.example.com",operation="CREATE",rejection_code="418",type="validating"} 1"#,
        r#"apiserver_admission_webhook_rejection_count{error_type="apiserver_internal_error",name="m.example.com",operation="CREATE",rejection_code="0",type="admit"} 1"#,
        r#"apiserver_admission_webhook_rejection_count{error_type="calling_webhook_error",name="closed.example.com",operation="CREATE",rejection_code="503",type="validating"} 1"#,
        r#"apiserver_admission_webhook_fail_open_count{name="open.example.com",type="admit"} 3"#,
        r#"apiserver_admission_webhook_admission_duration_seconds_count{name="v.example.com",operation="CREATE",rejected="false",type="validating"} 1"#,
        r#"apiserver_admission_match_condition_exclusions_total{kind="webhook",name="v.example.com",operation="CREATE",type="validate"} 1"#,
        r#"apiserver_admission_controller_admission_duration_seconds_count{name="MutatingAdmissionWebhook",operation="CREATE",rejected="true",type="admit"} 1"#,
        r#"apiserver_admission_controller_admission_duration_seconds_count{name="ValidatingAdmissionWebhook",operation="CREATE",rejected="true",type="validate"} 2"#,
        r#"apiserver_admission_step_admission_duration_seconds_count{operation="CREATE",rejected="true",type="admit"} 1"#,
        r#"apiserver_admission_step_admission_duration_seconds_count{operation="CREATE",rejected="true",type="validate"} 2"#,
    ] {
        let family = line.split('{').next().unwrap_or_default();
        let similar: Vec<_> =
            text.lines().filter(|there| there.starts_with(family) && !there.contains("_bucket")).collect();
        assert!(similar.contains(&line), "{line}\n{}", similar.join("\n"));
    }
    let quota = r#"apiserver_admission_controller_admission_duration_seconds_bucket{name="ResourceQuota",operation="CREATE",rejected="false",type="validate",le="0.005"}"#;
    assert!(text.contains(quota));
}
