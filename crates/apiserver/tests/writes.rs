//! Options of writes: field validation in every encoding and patch, dry runs, preconditions, limits of metadata.

mod support;

use keelson_apiserver::{ApiServer, Config, UserInfo};
use serde_json::{Value, json};
use support::store::{Gate, Hooked};
use support::{Api, TestServer};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const CM: &str = "/api/v1/namespaces/default/configmaps";

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// JSON of a Deployment with two unknown fields and two keys that stand twice.
fn careless(name: &str) -> String {
    let mut object = deployment(name);
    object["spec"]["oops"] = json!(1);
    object["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = json!("x");
    let text = object.to_string();
    let text = text.replacen("\"image\":\"i\"", "\"image\":\"h\",\"image\":\"i\"", 1);
    text.replacen("\"selector\":", "\"replicas\":1,\"replicas\":2,\"selector\":", 1)
}

const FOUND: [&str; 4] = [
    r#"duplicate field "spec.replicas""#,
    r#"duplicate field "spec.template.spec.containers[0].image""#,
    r#"unknown field "spec.oops""#,
    r#"unknown field "spec.template.spec.containers[0].imagePolicy""#,
];

/// Sends a write in all modes: strict ones fail with `found` in their message, default ones warn of each, others are silent.
async fn check_modes(api: &Api, request: impl Fn(&str) -> (String, String), code: u16, found: &[&str]) {
    for mode in ["Strict", "Ignore", "Warn", ""] {
        let query = if mode.is_empty() { String::new() } else { format!("?fieldValidation={mode}") };
        let (request, body) = request(&query);
        let (got, text, mut warnings) = api.raw(&request, body).await;
        let context = format!("{request}: {got} {text} {warnings:?}");
        if mode == "Strict" {
            assert_eq!(got, code, "{context}");
            let message = serde_json::from_str::<Value>(&text).unwrap()["message"].as_str().unwrap().to_owned();
            for one in found {
                assert!(message.contains(one), "{one}: {context}");
            }
            continue;
        }
        assert!(got < 300, "{context}");
        let wanted = |one: &&str| format!("299 - \"{}\"", one.replace('\\', "\\\\").replace('"', "\\\""));
        let mut wanted: Vec<String> = if mode == "Ignore" { Vec::new() } else { found.iter().map(wanted).collect() };
        warnings.sort();
        wanted.sort();
        assert_eq!(warnings, wanted, "{context}");
    }
}

#[tokio::test]
async fn fields_are_validated_in_json_and_yaml() {
    let test = TestServer::start().await;
    let api = test.admin();
    check_modes(
        &api,
        |query| (format!("POST {DEPLOYMENTS}{query}"), careless(&format!("d{}", query.len()))),
        400,
        &FOUND,
    )
    .await;
    let stored = api.ok(&format!("GET {DEPLOYMENTS}/d0"), json!(null)).await;
    assert_eq!((&stored["spec"]["replicas"], &stored["spec"].get("oops")), (&json!(2), &None), "the last one counts");
    check_modes(&api, |query| (format!("PUT {DEPLOYMENTS}/d0{query}"), careless("d0")), 400, &FOUND).await;
    let yaml = |name: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  name: {name}\nwrong: 1\ndata:\n  a: b\n  a: c\n"
        )
    };
    let found = [
        r#"line 5: key "name" already set in map"#,
        r#"line 9: key "a" already set in map"#,
        r#"unknown field "wrong""#,
    ];
    for mode in ["Strict", "Warn", "Ignore"] {
        let request = format!("POST+application/yaml {CM}?fieldValidation={mode}");
        let (code, text, warnings) = api.raw(&request, yaml(&mode.to_lowercase())).await;
        let all = if mode == "Strict" { text.replace("\\\"", "\"") } else { warnings.join("\n").replace("\\\"", "\"") };
        assert_eq!(code, if mode == "Strict" { 400 } else { 201 }, "{text}");
        for one in found {
            assert_eq!(all.contains(one), mode != "Ignore", "{mode}: {one} in {all}");
        }
    }
    let (code, status) = api.call(&format!("POST {CM}?fieldValidation=Sometimes"), json!({})).await;
    let message = "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Sometimes\": supported \
                   values: \"\", \"Ignore\", \"Strict\", \"Warn\"";
    assert_eq!((code, status["message"].as_str().unwrap()), (422, message));
}

#[tokio::test]
async fn fields_are_validated_in_every_patch() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok(&format!("POST {DEPLOYMENTS}"), deployment("d")).await;
    let found = [r#"duplicate field "spec.paused""#, r#"unknown field "spec.oops""#];
    let strict = [r#"unknown field "spec.oops""#, r#"duplicate field "spec.paused""#];
    for patch_type in ["merge", "strategic"] {
        let body = r#"{"spec":{"paused":true,"paused":false,"oops":1}}"#;
        let request = |query: &str| (format!("PATCH+{patch_type} {DEPLOYMENTS}/d{query}"), body.to_owned());
        check_modes(&api, request, 422, &found).await;
        check_modes(&api, request, 422, &strict).await;
    }
    let body = r#"[{"op":"add","path":"/spec/oops","value":1},{"op":"add","path":"/spec/paused","value":true}]"#;
    let request = |query: &str| (format!("PATCH+json {DEPLOYMENTS}/d{query}"), body.to_owned());
    check_modes(&api, request, 422, &[r#"unknown field "spec.oops""#]).await;
    // The stored object has none of it.
    let stored = api.ok(&format!("GET {DEPLOYMENTS}/d"), json!(null)).await;
    assert_eq!(stored["spec"].get("oops"), None);
}

#[tokio::test]
async fn dry_runs_store_nothing() {
    let test = TestServer::start().await;
    test.settled().await;
    let api = test.admin();
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    api.ok(&format!("POST {pods}"), pod.clone()).await;
    api.ok(&format!("POST {DEPLOYMENTS}"), deployment("d")).await;
    api.ok(&format!("POST {CM}"), json!({"metadata": {"name": "m"}})).await;
    api.ok("POST /api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    api.ok("POST /api/v1/namespaces", json!({"metadata": {"name": "more"}})).await;
    let before = test.store.revision().await.unwrap();
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "type": "NodePort"}});
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let eviction = json!({"metadata": {"name": "p"}});
    let scale = json!({"metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 3}});
    for (request, body, code) in [
        (format!("POST {CM}"), json!({"metadata": {"name": "x"}}), 201),
        (format!("POST {CM}"), json!({"metadata": {"generateName": "x-"}}), 201),
        (format!("POST {CM}"), json!({"metadata": {"name": "m"}}), 409),
        ("POST /api/v1/namespaces/default/services".into(), service, 201),
        (format!("PUT {CM}/m"), json!({"metadata": {"name": "m"}, "data": {"a": "b"}}), 200),
        (format!("PATCH+merge {CM}/m"), json!({"data": {"a": "b"}}), 200),
        (format!("PATCH+json {CM}/m"), json!([{"op": "add", "path": "/data", "value": {"a": "b"}}]), 200),
        (format!("PATCH+strategic {CM}/m"), json!({"data": {"a": "b"}}), 200),
        (format!("PATCH+application/apply-patch+yaml {CM}/new"), json!({"apiVersion": "v1", "kind": "ConfigMap"}), 201),
        (format!("PATCH+merge {pods}/p/status"), json!({"status": {"phase": "Running"}}), 200),
        (format!("PUT {DEPLOYMENTS}/d/scale"), scale, 200),
        (format!("POST {pods}/p/binding"), binding, 201),
        (format!("POST {pods}/p/eviction"), eviction, 201),
        (format!("DELETE {pods}/p"), json!(null), 200),
        (format!("DELETE {CM}/m"), json!(null), 200),
        (format!("DELETE {CM}"), json!(null), 200),
        ("DELETE /api/v1/namespaces/more".into(), json!(null), 200),
        ("POST /api/v1/namespaces/default/serviceaccounts/default/token".into(), json!({"spec": {}}), 201),
    ] {
        let mark = if request.contains("apply-patch") { "?fieldManager=m&dryRun=All" } else { "?dryRun=All" };
        let (got, answer) = api.call(&format!("{request}{mark}"), body).await;
        assert_eq!(got, code, "{request}: {answer}");
        assert_eq!(test.store.revision().await.unwrap(), before, "{request} wrote something");
    }
    let options = json!({"dryRun": ["All"]});
    assert_eq!(api.call(&format!("DELETE {CM}/m"), options).await.0, 200);
    assert_eq!(test.store.revision().await.unwrap(), before);
    for (request, kind) in [
        ("POST", "CreateOptions"),
        ("PUT", "UpdateOptions"),
        ("PATCH+merge", "PatchOptions"),
        ("DELETE", "DeleteOptions"),
    ] {
        let path = if request == "POST" { CM.to_owned() } else { format!("{CM}/m") };
        let (code, status) = api.call(&format!("{request} {path}?dryRun=None"), json!(null)).await;
        let message = format!(
            "{kind}.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"None\"]: supported values: \"All\""
        );
        assert_eq!((code, status["message"].as_str().unwrap()), (422, message.as_str()), "{request}");
    }
}

#[tokio::test]
async fn preconditions_and_options_of_deletes() {
    let test = TestServer::start().await;
    let api = test.admin();
    let created = api.ok(&format!("POST {CM}"), json!({"metadata": {"name": "m"}})).await;
    let (uid, revision) = (&created["metadata"]["uid"], &created["metadata"]["resourceVersion"]);
    let conflict = "Operation cannot be fulfilled on ConfigMap \"m\": the ";
    let options = "DeleteOptions.meta.k8s.io \"\" is invalid: ";
    for (options, code, message) in [
        (
            json!({"preconditions": {"uid": "x"}}),
            409,
            format!(
                "{conflict}UID in the precondition (x) does not match the UID in record ({}). The object might have been deleted and then recreated",
                uid.as_str().unwrap()
            ),
        ),
        (
            json!({"preconditions": {"uid": uid, "resourceVersion": "1"}}),
            409,
            format!(
                "{conflict}ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({}). The object might have been modified",
                revision.as_str().unwrap()
            ),
        ),
        (
            json!({"propagationPolicy": "Sideways"}),
            422,
            format!(
                "{options}propagationPolicy: Unsupported value: \"Sideways\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            ),
        ),
        (
            json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
            422,
            format!(
                "{options}propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set"
            ),
        ),
    ] {
        let (got, status) = api.call(&format!("DELETE {CM}/m"), options).await;
        assert_eq!((got, status["message"].as_str().unwrap()), (code, message.as_str()));
    }
    let (code, status) = api.call(&format!("DELETE {CM}/m?gracePeriodSeconds=soon"), json!(null)).await;
    assert_eq!((code, &status["message"]), (400, &json!("strconv.ParseInt: parsing \"soon\": invalid syntax")));
    let orphan = api.ok(&format!("DELETE {CM}/m?propagationPolicy=Orphan&dryRun=All"), json!(null)).await;
    assert_eq!(orphan["metadata"]["finalizers"], json!(["orphan"]));
    let exact = json!({"preconditions": {"uid": uid, "resourceVersion": revision}});
    api.ok(&format!("DELETE {CM}/m"), exact).await;
}

#[tokio::test]
async fn sizes_are_limited() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok(&format!("POST {CM}"), json!({"metadata": {"name": "m"}})).await;
    let long = |n: usize| "x".repeat(n);
    let annotations: serde_json::Map<String, Value> =
        (0..5).map(|i| (format!("example.com/{i}"), json!(long(60 << 10)))).collect();
    for (metadata, message) in [
        (json!({"name": long(254)}), "must be no more than 253 bytes"),
        (
            json!({"name": "a", "annotations": annotations}),
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
        (json!({"name": "a", "labels": {"x": long(64)}}), "must be no more than 63 bytes"),
        (json!({"name": "a", "labels": {long(64): "x"}}), "must be no more than 63 bytes"),
        (json!({"name": "a", "labels": {format!("{}/x", long(254)): "x"}}), "must be no more than 253 bytes"),
    ] {
        let (code, status) = api.call(&format!("POST {CM}"), json!({"metadata": metadata})).await;
        assert_eq!(code, 422, "{status}");
        assert!(status["message"].as_str().unwrap().contains(message), "{message}");
    }
    let operations: Vec<Value> =
        (0..100_000).map(|_| json!({"op": "add", "path": "/data", "value": {"a": "b"}})).collect();
    let operations = serde_json::to_string(&operations[..40_000]).unwrap();
    assert!(operations.len() < 3 << 20);
    let (code, text, _) = api.raw(&format!("PATCH+json {CM}/m"), operations).await;
    assert!(
        code == 413 && text.contains("The allowed maximum operations in a JSON patch is 10000, got 40000"),
        "{text}"
    );
    // Each copy doubles.
    let mut operations = vec![json!({"op": "add", "path": "/data", "value": {"a": long(1000)}})];
    for i in 0..30 {
        operations.push(json!({"op": "copy", "from": "/data", "path": format!("/data/{i}")}));
    }
    assert_eq!(api.call(&format!("PATCH+json {CM}/m"), json!(operations)).await.0, 422);
    let (code, text, _) =
        api.raw(&format!("POST {CM}"), format!("{}{}", "[".repeat(200_000), "]".repeat(200_000))).await;
    assert_eq!(code, 400, "{text}");
}

#[tokio::test]
async fn a_write_is_done_when_its_client_goes_away() {
    let store = Hooked::open(Gate::at("/default/kept"));
    let server = ApiServer::new(Config::default(), store.clone()).await.unwrap();
    let api = Api::new(server, UserInfo::new("admin", ["system:masters"]));
    store.hold();
    let create = tokio::spawn({
        let api = api.clone();
        let service = json!({"metadata": {"name": "kept"}, "spec": {"ports": [{"port": 80}]}});
        async move { api.call("POST /api/v1/namespaces/default/services", service).await }
    });
    // Its address is reserved, the Service is on its way.
    store.reached().await;
    create.abort();
    assert!(create.await.unwrap_err().is_cancelled());
    store.release();
    let service = api.eventually("GET /api/v1/namespaces/default/services/kept", |code, _| code == 200).await;
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    let reserved = api.ok(&format!("GET /apis/networking.k8s.io/v1/ipaddresses/{address}"), json!(null)).await;
    assert_eq!(reserved["spec"]["parentRef"]["name"], "kept");
}
