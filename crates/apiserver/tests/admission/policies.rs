//! Policies: what they let pass, what they say, what they change.

use std::time::{Duration, Instant};

use keelson_apiserver::switches;
use serde_json::{Value, json};

use crate::hook::{BASE, Hook, MAPS, configure, map, patched};
use crate::support::{Api, TestServer, UserInfo};

const BETA: &str = "/apis/admissionregistration.k8s.io/v1beta1";

fn constraints(resource: &str) -> Value {
    json!({"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": [resource]}]})
}

/// Writes a validating policy about a resource, bound with these actions.
async fn check(api: &Api, name: &str, resource: &str, spec: Value, binding: Value) {
    let mut policy = json!({"metadata": {"name": name}, "spec": {"matchConstraints": constraints(resource)}});
    merge(&mut policy["spec"], &spec);
    api.ok(&format!("POST {BASE}/validatingadmissionpolicies"), policy).await;
    let mut bound = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
    merge(&mut bound["spec"], &binding);
    api.ok(&format!("POST {BASE}/validatingadmissionpolicybindings"), bound).await;
}

/// A server that has mutating policies, which are off by default.
async fn with_mutations() -> TestServer {
    TestServer::start_with(|config| {
        config.feature_gates = switches("MutatingAdmissionPolicy=true").unwrap();
        config.runtime_config = switches("admissionregistration.k8s.io/v1beta1=true").unwrap();
    })
    .await
}

/// Writes a mutating policy about a resource, bound.
async fn change(api: &Api, name: &str, resource: &str, spec: Value, binding: Value) {
    let mut policy = json!({"metadata": {"name": name}, "spec": {"matchConstraints": constraints(resource),
        "reinvocationPolicy": "Never"}});
    merge(&mut policy["spec"], &spec);
    api.ok(&format!("POST {BETA}/mutatingadmissionpolicies"), policy).await;
    let mut bound = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    merge(&mut bound["spec"], &binding);
    api.ok(&format!("POST {BETA}/mutatingadmissionpolicybindings"), bound).await;
}

fn merge(into: &mut Value, from: &Value) {
    from.as_object().into_iter().flatten().for_each(|(key, value)| into[key] = value.clone());
}

#[tokio::test]
async fn validations() {
    let server = TestServer::start().await;
    let api = server.admin();
    let spec = json!({
        "variables": [{"name": "size", "expression": "size(object.data)"}, {"name": "big", "expression": "variables.size > 2"}],
        "validations": [
            {"expression": "!variables.big", "messageExpression": "'too many: ' + string(variables.size)"},
            {"expression": "!('b' in object.data)", "message": "no b here", "reason": "Forbidden"},
            {"expression": "object.data.a != 'x'"},
            {"expression": "namespaceObject.metadata.name == 'default'"},
            {"expression": "object.data.c == 'needed' || object.data.a != 'c'"},
        ],
        "matchConditions": [{"name": "not-delete", "expression": "request.operation != 'DELETE'"}],
    });
    check(&api, "p.example.com", "configmaps", spec, json!({})).await;
    let refused = |data: Value| {
        let api = api.clone();
        async move {
            let (code, status) =
                api.call(&format!("POST {MAPS}"), json!({"metadata": {"name": "m"}, "data": data})).await;
            let message = status["message"].as_str().unwrap_or_default().to_owned();
            (code, status["reason"].as_str().unwrap_or_default().to_owned(), message)
        }
    };
    let says = |why: &str| {
        format!(
            "configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'p.example.com' with binding 'p.example.com' denied \
             request: {why}"
        )
    };
    let three = json!({"a": "1", "c": "2", "d": "3"});
    assert_eq!(refused(three).await, (422, "Invalid".into(), says("too many: 3")));
    assert_eq!(refused(json!({"b": "1"})).await, (403, "Forbidden".into(), says("no b here")));
    assert_eq!(
        refused(json!({"a": "x"})).await,
        (422, "Invalid".into(), says("failed expression: object.data.a != 'x'"))
    );
    let unknown = "expression 'object.data.c == 'needed' || object.data.a != 'c'' resulted in error: no such key: c";
    assert_eq!(refused(json!({"a": "c"})).await, (422, "Invalid".into(), says(unknown)));
    assert_eq!(refused(json!({"a": "1"})).await.0, 201);
    api.ok(&format!("DELETE {MAPS}/m"), json!({})).await;
    // One that fails open, and a change to it that acts at once.
    let path = format!("{BASE}/validatingadmissionpolicies/p.example.com");
    api.ok(&format!("PATCH+merge {path}"), json!({"spec": {"failurePolicy": "Ignore"}})).await;
    assert_eq!(refused(json!({"a": "c"})).await.0, 201);
    api.ok(&format!("DELETE {MAPS}/m"), json!({})).await;
    api.ok(&format!("DELETE {BASE}/validatingadmissionpolicybindings/p.example.com"), json!({})).await;
    assert_eq!(refused(json!({"b": "1"})).await.0, 201);
}

#[tokio::test]
async fn warnings_and_the_authorizer() {
    let server = TestServer::start().await;
    let api = server.admin();
    let spec = json!({"validations": [
        {"expression": "authorizer.requestResource.check('bless').allowed()", "message": "not blessed"},
        {"expression": "authorizer.serviceAccount('default', 'x').group('').resource('pods').check('get').allowed()",
            "message": "x may not"},
    ]});
    check(&api, "p", "configmaps", spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    let (code, _, warnings) = api.raw(&format!("POST {MAPS}"), map("a").to_string()).await;
    let warning = "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': x may not\"";
    assert_eq!((code, warnings), (201, vec![warning.to_owned()]));
    // Somebody who is not everything.
    api.ok(
        "POST /apis/rbac.authorization.k8s.io/v1/clusterroles",
        json!({"metadata": {"name": "w"}, "rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]}]}),
    )
    .await;
    let bind = json!({"metadata": {"name": "w"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
        "name": "w"}, "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]});
    api.ok("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", bind).await;
    let bob = server.api(UserInfo::new("bob", ["people"]));
    let (code, _, warnings) = bob.raw(&format!("POST {MAPS}"), map("b").to_string()).await;
    assert_eq!((code, warnings.len()), (201, 1), "{warnings:?}");
    let patch = json!({"rules": [{"verbs": ["create"], "apiGroups": [""], "resources": ["configmaps"]}]});
    api.ok("PATCH+merge /apis/rbac.authorization.k8s.io/v1/clusterroles/w", patch).await;
    let (_, _, warnings) = bob.raw(&format!("POST {MAPS}"), map("c").to_string()).await;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("not blessed"), "{warnings:?}");
}

#[tokio::test]
async fn parameters() {
    let server = TestServer::start().await;
    let api = server.admin();
    let crd = json!({"metadata": {"name": "limits.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "limits", "kind": "Limit"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"max": {"type": "integer"}}}}}]}});
    api.ok("POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd).await;
    let limits = "/apis/example.com/v1/namespaces/default/limits";
    api.eventually(&format!("GET {limits}"), |code, _| code == 200).await;
    let spec = json!({
        "paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"},
        "validations": [{"expression": "params == null || size(object.data) <= params.max",
            "messageExpression": "'at most ' + string(params.max)"}],
    });
    let reference = |more: Value| {
        let mut reference = json!({"parameterNotFoundAction": "Deny"});
        merge(&mut reference, &more);
        json!({"paramRef": reference})
    };
    check(&api, "p", "configmaps", spec, reference(json!({"name": "l"}))).await;
    let create = |data: Value| {
        let api = api.clone();
        async move {
            let object = json!({"metadata": {"generateName": "m-"}, "data": data});
            let (code, status) = api.call(&format!("POST {MAPS}"), object).await;
            (code, status["message"].as_str().unwrap_or_default().to_owned())
        }
    };
    let (code, message) = create(json!({"a": "1"})).await;
    assert_eq!(code, 422);
    let nothing = "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: failed to configure binding: no params found \
                   for policy binding with `Deny` parameterNotFoundAction";
    assert!(message.starts_with("configmaps \"m-") && message.ends_with(nothing), "{message}");
    api.ok(&format!("POST {limits}"), json!({"metadata": {"name": "l", "labels": {"x": "y"}}, "max": 1})).await;
    assert_eq!(create(json!({"a": "1"})).await.0, 201);
    assert!(create(json!({"a": "1", "b": "2"})).await.1.ends_with("at most 1"));
    api.ok(&format!("PATCH+merge {limits}/l"), json!({"max": 2})).await;
    assert_eq!(create(json!({"a": "1", "b": "2"})).await.0, 201);
    // All that a selector finds must agree.
    let bindings = format!("{BASE}/validatingadmissionpolicybindings");
    let selector = json!([{"op": "replace", "path": "/spec/paramRef", "value":
        {"selector": {"matchLabels": {"x": "y"}}, "parameterNotFoundAction": "Allow"}}]);
    api.ok(&format!("PATCH+json {bindings}/p"), selector).await;
    api.ok(&format!("POST {limits}"), json!({"metadata": {"name": "m", "labels": {"x": "y"}}, "max": 0})).await;
    assert!(create(json!({"a": "1"})).await.1.ends_with("at most 0"));
    api.ok(&format!("DELETE {limits}"), json!({})).await;
    assert_eq!(create(json!({"a": "1", "b": "2", "c": "3"})).await.0, 201);
    // Kinds of the cluster, and kinds that there are none of.
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "Node"},
        "validations": [{"expression": "params.metadata.name != 'n'", "message": "n"}]});
    api.ok("POST /api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    check(&api, "q", "secrets", spec, reference(json!({"name": "n"}))).await;
    let secret = || json!({"metadata": {"name": "s"}});
    let (code, status) = api.call("POST /api/v1/namespaces/default/secrets", secret()).await;
    assert!(code == 422 && status["message"].as_str().unwrap().ends_with("denied request: n"), "{status}");
    let kind = json!({"spec": {"paramKind": {"apiVersion": "none.example.com/v1", "kind": "None"}}});
    api.ok(&format!("PATCH+merge {BASE}/validatingadmissionpolicies/q"), kind).await;
    let (_, status) = api.call("POST /api/v1/namespaces/default/secrets", secret()).await;
    let missing = "failed to find resource referenced by paramKind: 'none.example.com/v1, Kind=None'";
    assert!(status["message"].as_str().unwrap().ends_with(missing), "{status}");
}

#[tokio::test]
async fn bindings_choose() {
    let server = TestServer::start().await;
    let api = server.admin();
    let no = json!({"validations": [{"expression": "false", "message": "no"}]});
    let only = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"strict": "yes"}},
        "excludeResourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"],
            "resourceNames": ["free"]}]}});
    check(&api, "p", "configmaps", no, only).await;
    api.ok("POST /api/v1/namespaces", json!({"metadata": {"name": "strict", "labels": {"strict": "yes"}}})).await;
    api.ok(&format!("POST {MAPS}"), map("a")).await;
    assert_eq!(api.call("POST /api/v1/namespaces/strict/configmaps", map("a")).await.0, 422);
    api.ok("POST /api/v1/namespaces/strict/configmaps", map("free")).await;
}

#[tokio::test]
async fn mutations() {
    let server = with_mutations().await;
    let api = server.admin();
    let sidecar =
        "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [
        Object.spec.template.spec.containers{name: 'side', image: params.data.image}]}}}}";
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "replicas", "expression": "int(params.data.replicas)"}],
        "matchConditions": [{"name": "new", "expression": "!object.spec.template.spec.containers.exists(c, c.name == 'side')"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": sidecar}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'replace', path: '/spec/replicas', value: variables.replicas},
                  JSONPatch{op: 'add', path: '/metadata/annotations', value: {}},
                  JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('example.com/by'),
                    value: string(object.spec.template.spec.containers.size())}]"}},
        ],
    });
    let reference = json!({"paramRef": {"name": "params", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    change(&api, "sidecars", "deployments", spec, reference).await;
    let params = json!({"metadata": {"name": "params"}, "data": {"image": "sidecar:1", "replicas": "4"}});
    api.ok(&format!("POST {MAPS}"), params).await;
    let base = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = api.ok(&format!("POST {base}"), deployment.clone()).await;
    let containers = made["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let images: Vec<_> =
        containers.iter().map(|c| (c["name"].as_str().unwrap(), c["image"].as_str().unwrap())).collect();
    assert_eq!(images, [("c", "i"), ("side", "sidecar:1")]);
    assert_eq!(containers[1]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(made["spec"]["replicas"], 4);
    assert_eq!(made["metadata"]["annotations"]["example.com/by"], "2", "each change sees those before it");
    let updated = api.ok(&format!("PATCH+merge {base}/d"), json!({"spec": {"replicas": 1}})).await;
    assert_eq!(updated["spec"]["replicas"], 1, "the condition no longer holds");
    // Its parameters gone, nothing passes.
    api.ok(&format!("DELETE {MAPS}/params"), json!({})).await;
    let (code, status) = api.call(&format!("PATCH+merge {base}/d"), json!({"spec": {"replicas": 2}})).await;
    let why = "policy 'sidecars' with binding 'sidecars' denied request: failed to configure binding: no params found for \
               policy binding with `Deny` parameterNotFoundAction";
    assert_eq!((code, &status["message"]), (403, &json!(why)));
}

#[tokio::test]
async fn mutations_that_cannot_be() {
    let server = with_mutations().await;
    let api = server.admin();
    let cases = [
        (
            "ApplyConfiguration",
            "Object{spec: Object.wrong{replicas: 1}}",
            "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name path from root Object type",
        ),
        (
            "ApplyConfiguration",
            "Object{spec: Object.spec{nothing: 1}}",
            "error applying patch: failed to convert patch object to typed object: .spec.nothing: field not declared in schema",
        ),
        (
            "ApplyConfiguration",
            "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'c'}}}}",
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector",
        ),
        ("JSONPatch", "[JSONPatch{op: 'remove', path: '/spec/nothing'}]", "JSONPath: "),
        (
            "JSONPatch",
            "[JSONPatch{op: 'add', path: '/spec/replicas', value: object.none}]",
            "expression '[JSONPatch{op: 'add', path: '/spec/replicas', value: object.none}]' resulted in error: no such key: none",
        ),
    ];
    let base = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    for (patch_type, expression, why) in cases {
        let field = if patch_type == "JSONPatch" { "jsonPatch" } else { "applyConfiguration" };
        let spec = json!({"mutations": [{"patchType": patch_type, field: {"expression": expression}}]});
        change(&api, "p", "deployments", spec, json!({})).await;
        let (code, status) = api.call(&format!("POST {base}"), deployment.clone()).await;
        let message = status["message"].as_str().unwrap_or_default();
        let wanted = format!("policy 'p' with binding 'p' denied request: {why}");
        assert!(code == 403 && message.starts_with(&wanted), "{message}\n{wanted}");
        assert_eq!(status["reason"], "Invalid");
        let ignore = json!({"spec": {"failurePolicy": "Ignore"}});
        api.ok(&format!("PATCH+merge {BETA}/mutatingadmissionpolicies/p"), ignore).await;
        api.ok(&format!("POST {base}?dryRun=All"), deployment.clone()).await;
        api.ok(&format!("DELETE {BETA}/mutatingadmissionpolicies/p"), json!({})).await;
        api.ok(&format!("DELETE {BETA}/mutatingadmissionpolicybindings/p"), json!({})).await;
    }
    // A test that does not hold: nothing is done.
    let test = "[JSONPatch{op: 'test', path: '/spec/replicas', value: 7}, JSONPatch{op: 'replace', path: '/spec/replicas', value: 9}]";
    let spec = json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": test}}]});
    change(&api, "p", "deployments", spec, json!({})).await;
    assert_eq!(api.ok(&format!("POST {base}"), deployment).await["spec"]["replicas"], 1);
    // What does not compile is not written.
    let spec = json!({"matchConstraints": constraints("pods"), "reinvocationPolicy": "Never", "mutations": [
        {"patchType": "JSONPatch", "jsonPatch": {"expression": "Object{}"}}, {"patchType": "ApplyConfiguration"}]});
    let policy = json!({"metadata": {"name": "bad"}, "spec": spec});
    let (code, status) = api.call(&format!("POST {BETA}/mutatingadmissionpolicies"), policy).await;
    assert_eq!(code, 422, "{status}");
}

/// A policy sees what a webhook changed after it, if it wants to.
#[tokio::test]
async fn reinvocation_with_webhooks() {
    let server = with_mutations().await;
    let api = server.admin();
    let spec = json!({"reinvocationPolicy": "IfNeeded", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
        "[JSONPatch{op: 'add', path: '/data/keys', value: string(object.data.size())}]"}}]});
    change(&api, "p", "configmaps", spec, json!({})).await;
    let hook = Hook::start(&server, |_, _| patched(json!([{"op": "add", "path": "/data/hook", "value": "yes"}]))).await;
    configure(&server, "mutating", "w", json!([hook.webhook("w", &["configmaps"], json!({}))])).await;
    let made = api.ok(&format!("POST {MAPS}"), map("x")).await;
    assert_eq!(made["data"], json!({"a": "1", "hook": "yes", "keys": "3"}));
    assert_eq!(hook.take().len(), 1);
}

/// A policy whose expressions never end costs its own requests what upstream allows, and others nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expensive_expressions() {
    let server = TestServer::start().await;
    let api = server.admin();
    let spec = json!({"validations": [
        {"expression": "object.data.all(a, object.data.all(b, object.data.all(c, a + b + c != '')))"}]});
    check(&api, "p", "configmaps", spec, json!({})).await;
    let data: serde_json::Map<String, Value> = (0..300).map(|i| (format!("key-{i}"), "x".into())).collect();
    let object = json!({"metadata": {"name": "big"}, "data": data});
    let begun = Instant::now();
    let held: Vec<_> = (0..4)
        .map(|_| {
            let (api, object) = (api.clone(), object.clone());
            tokio::spawn(async move { api.call(&format!("POST {MAPS}"), object).await })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    let mut others = 0;
    while !held.iter().all(tokio::task::JoinHandle::is_finished) || others < 10 {
        let one = Instant::now();
        let secret = json!({"metadata": {"generateName": "s-"}, "stringData": {"a": "b"}});
        api.ok("POST /api/v1/namespaces/default/secrets", secret).await;
        slowest = slowest.max(one.elapsed());
        others += 1;
    }
    for one in held {
        let (code, status) = one.await.unwrap();
        assert_eq!(code, 422);
        let message = status["message"].as_str().unwrap();
        assert!(message.ends_with("resulted in error: operation cancelled: actual cost limit exceeded"), "{message}");
    }
    assert!(slowest < Duration::from_secs(2), "{others} others, the slowest took {slowest:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// CVE-2023-2727, CVE-2023-2728, CVE-2024-3177: what is not allowed in a pod is not allowed in an ephemeral container, nor
/// through `envFrom`.
#[tokio::test]
async fn cve_2023_2727_and_2024_3177_ephemeral_containers_and_env_from_are_judged() {
    let server = TestServer::start().await;
    let api = server.admin();
    let images = json!({
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
            "resources": ["pods", "pods/ephemeralcontainers"]}]},
        "variables": [{"name": "all", "expression":
            "object.spec.containers + object.spec.?initContainers.orValue([]) + object.spec.?ephemeralContainers.orValue([])"}],
        "validations": [{"expression": "variables.all.all(c, c.image.startsWith('good/'))", "message": "bad image"}],
    });
    check(&api, "images", "pods", images, json!({})).await;
    let account = json!({"metadata": {"name": "strict", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        "secrets": [{"name": "own"}]});
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", account).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |image: &str, secret: &str| {
        json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "strict", "containers": [
            {"name": "c", "image": image, "envFrom": [{"secretRef": {"name": secret}}]}]}})
    };
    for (image, secret, why) in [("bad/x", "own", "bad image"), ("good/x", "other", "does not reference that secret")] {
        let (code, status) = api.call(&format!("POST {pods}"), pod(image, secret)).await;
        assert!(code >= 400 && status["message"].as_str().unwrap().ends_with(why), "{status}");
    }
    api.ok(&format!("POST {pods}"), pod("good/x", "own")).await;
    let debugger = |image: &str, secret: &str| json!({"spec": {"ephemeralContainers": [{"name": "e", "image": image, "envFrom": [{"secretRef": {"name": secret}}]}]}});
    let path = format!("PATCH+strategic {pods}/p/ephemeralcontainers");
    for (image, secret, why) in [("bad/x", "own", "bad image"), ("good/x", "other", "does not reference that secret")] {
        let (code, status) = api.call(&path, debugger(image, secret)).await;
        assert!(code >= 400 && status["message"].as_str().unwrap().ends_with(why), "{status}");
    }
    api.ok(&path, debugger("good/x", "own")).await;
}

/// The status of a policy tells what its expressions would not find.
#[tokio::test]
async fn types_are_checked() {
    let server = TestServer::start().await;
    let api = server.admin();
    let spec = json!({
        "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["deployments", "replicasets"]}]},
        "variables": [{"name": "spec", "expression": "object.spec"}],
        "validations": [
            {"expression": "object.spec.replicas > 1"},
            {"expression": "variables.spec.strategy.type == 'Recreate'", "messageExpression": "string(object.spec.none)"},
        ],
    });
    check(&api, "p", "deployments", spec, json!({})).await;
    let path = format!("{BASE}/validatingadmissionpolicies/p");
    let done = |generation: i64| move |_: u16, policy: &Value| policy["status"]["observedGeneration"] == generation;
    let policy = api.eventually(&format!("GET {path}"), done(1)).await;
    let warnings = policy["status"]["typeChecking"]["expressionWarnings"].as_array().unwrap();
    let places: Vec<_> = warnings.iter().map(|warning| warning["fieldRef"].as_str().unwrap()).collect();
    assert_eq!(places, ["spec.validations[1].expression", "spec.validations[1].messageExpression"]);
    let first = warnings[0]["warning"].as_str().unwrap();
    assert!(first.starts_with("apps/v1, Kind=ReplicaSet: ERROR: <input>:1:15: undefined field 'strategy'"), "{first}");
    let fixed = json!({"spec": {"validations": [{"expression": "object.spec.replicas > 1"}]}});
    api.ok(&format!("PATCH+merge {path}"), fixed).await;
    let policy = api.eventually(&format!("GET {path}"), done(2)).await;
    assert_eq!(policy["status"]["typeChecking"], json!({}), "{policy}");
}

/// Checks that fail are counted by policy, binding and what was done.
#[tokio::test]
async fn checks_are_counted() {
    let server = TestServer::start().await;
    let api = server.admin();
    let named = json!({"validations": [{"expression": "object.metadata.name != 'bad'"}]});
    check(&api, "names", "configmaps", named, json!({"validationActions": ["Audit", "Warn"]})).await;
    let broken = json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.none == ''"}]});
    check(&api, "open", "configmaps", broken, json!({})).await;
    let denied = json!({"validations": [{"expression": "object.metadata.name != 'worse'"}]});
    check(&api, "denies", "configmaps", denied, json!({})).await;
    for (name, expected) in [("good", 201), ("bad", 201), ("worse", 422)] {
        assert_eq!(api.call(&format!("POST {MAPS}"), map(name)).await.0, expected, "{name}");
    }
    let text = api.raw("GET /metrics", String::new()).await.1;
    let family = "apiserver_validating_admission_policy_check_total";
    let mut found: Vec<_> = text.lines().filter(|line| line.starts_with(family)).collect();
    found.sort_unstable();
    let line = |action: &str, error: &str, policy: &str, count: u32| {
        format!(
            "{family}{{enforcement_action=\"{action}\",error_type=\"{error}\",policy=\"{policy}\",policy_binding=\"{policy}\"}} {count}"
        )
    };
    let expected = [
        line("allow", "invalid_error", "open", 3),
        line("audit", "no_error", "names", 1),
        line("deny", "no_error", "denies", 1),
        line("warn", "no_error", "names", 1),
    ];
    assert_eq!(found, expected);
    assert!(text.contains("apiserver_validating_admission_policy_check_duration_seconds_count{"));
}
