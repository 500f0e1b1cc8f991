//! Ways around authorization that must lead nowhere.

mod support;

use keelson_apiserver::UserInfo;
use serde_json::{Value, json};
use support::{Api, TestServer};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Bob, who may do what `rules` say.
async fn bob(test: &TestServer, rules: Value) -> Api {
    let api = test.admin();
    api.ok(&format!("POST {RBAC}/clusterroles"), json!({"metadata": {"name": "bob"}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": "bob"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bob"},
    });
    api.ok(&format!("POST {RBAC}/clusterrolebindings"), binding).await;
    test.api(UserInfo::new("bob", Vec::<String>::new()))
}

#[tokio::test]
async fn a_watch_of_one_name_shows_no_other() {
    let test = TestServer::start().await;
    let rules = json!([{"verbs": ["watch"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"]}]);
    let bob = bob(&test, rules).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["mine", "other"] {
        test.admin().ok(&format!("POST {secrets}"), json!({"metadata": {"name": name}})).await;
    }
    let watch = async |path: &str, selector: &str| {
        let request = format!("GET {path}?watch=1&timeoutSeconds=1&fieldSelector={selector}");
        let (code, text, _) = bob.raw(&request, "null".into()).await;
        (code, text.contains(r#""name":"mine""#), text.contains(r#""name":"other""#))
    };
    let (mine, deprecated) = (format!("{secrets}/mine"), "/api/v1/watch/namespaces/default/secrets/mine");
    let (by_path, named, both, deprecated, other, none) = tokio::join!(
        watch(&mine, "metadata.name%3Dmine"),
        watch(secrets, "metadata.name%3Dmine"),
        watch(secrets, "metadata.name%3Dmine,metadata.name%3Dother"),
        watch(deprecated, "metadata.name%3Dmine"),
        watch(deprecated, "metadata.name%3Dother"),
        watch(secrets, "type%3DOpaque"),
    );
    assert_eq!(by_path.0, 403, "an object's own path is got, not watched");
    assert_eq!((named, deprecated), ((200, true, false), (200, true, false)));
    assert_eq!((both, other), ((200, false, false), (400, false, false)));
    assert_eq!(none.0, 403);
}

#[tokio::test]
async fn who_may_watch_may_not_execute() {
    let test = TestServer::start().await;
    let rules = json!([{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["*"]}]);
    let bob = bob(&test, rules).await;
    for (request, expected) in [
        ("POST /api/v1/namespaces/default/pods/p/exec?command=sh", 403),
        ("GET /api/v1/namespaces/default/pods/p/exec?command=sh", 403),
        ("POST /api/v1/watch/namespaces/default/pods/p/exec?command=sh", 405),
        ("POST /api/v1/watch/nodes/n/proxy/pods", 404),
    ] {
        assert_eq!(bob.call(request, json!(null)).await.0, expected, "{request}");
    }
}

#[tokio::test]
async fn aggregation_takes_all_that_may_be_aggregated() {
    let test = TestServer::start().await;
    let rules = json!([
        {"verbs": ["create", "update", "patch"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"]},
    ]);
    let bob = bob(&test, rules).await;
    let everything =
        json!({"clusterRoleSelectors": [{"matchLabels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}]});
    let gathers = json!({"metadata": {"name": "gathers"}, "aggregationRule": everything});
    let roles = format!("{RBAC}/clusterroles");
    assert_eq!(bob.call(&format!("POST {roles}"), gathers.clone()).await.0, 403);
    let own = format!("PATCH+merge {roles}/bob");
    assert_eq!(bob.call(&own, json!({"aggregationRule": everything})).await.0, 403);
    bob.ok(&own, json!({"metadata": {"labels": {"a": "b"}}})).await;
    test.admin().ok(&format!("POST {roles}"), gathers).await;
}

#[tokio::test]
async fn kubelets_choose_nothing_that_they_may_read() {
    let test = TestServer::start().await;
    let kubelet = test.api(UserInfo::new("system:node:n1", ["system:nodes"]));
    let mirror = |name: &str, volumes: Value| {
        let annotations = json!({"kubernetes.io/config.mirror": "x"});
        json!({"metadata": {"name": name, "annotations": annotations}, "spec": {
            "nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "volumes": volumes}})
    };
    let pods = "POST /api/v1/namespaces/default/pods";
    let (code, status) = kubelet.call(pods, mirror("a", json!([{"name": "v", "secret": {"secretName": "s"}}]))).await;
    let why = "pods \"a\" is forbidden: node \"n1\" can not create pods that reference secrets";
    assert_eq!((code, &status["message"]), (403, &json!(why)));
    kubelet.ok(pods, mirror("b", json!([{"name": "v", "emptyDir": {}}]))).await;
}

#[tokio::test]
async fn kubelets_leave_protected_labels_alone() {
    let test = TestServer::start().await;
    let labels = json!({"node-restriction.kubernetes.io/zone": "a", "free": "x"});
    test.admin().ok("POST /api/v1/nodes", json!({"metadata": {"name": "n1", "labels": labels}})).await;
    let kubelet = test.api(UserInfo::new("system:node:n1", ["system:nodes"]));
    let label = |key: &str, value: Value| json!({"metadata": {"labels": {key: value}}});
    for value in [json!(null), json!("b")] {
        let patch = label("node-restriction.kubernetes.io/zone", value);
        assert_eq!(kubelet.call("PATCH+merge /api/v1/nodes/n1", patch).await.0, 403);
    }
    kubelet.ok("PATCH+merge /api/v1/nodes/n1", label("free", json!(null))).await;
}

#[tokio::test]
async fn kubelets_keep_to_what_is_theirs() {
    let test = TestServer::start().await;
    let api = test.admin();
    let slice = |node: &str| {
        json!({"metadata": {"name": node}, "spec": {
            "driver": "d.example.com", "nodeName": node, "devices": [],
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}})
    };
    let (slices, csi) = ("/apis/resource.k8s.io/v1/resourceslices", "/apis/storage.k8s.io/v1/csinodes");
    for node in ["n1", "n2"] {
        api.ok(&format!("POST {slices}"), slice(node)).await;
        api.ok(&format!("POST {csi}"), json!({"metadata": {"name": node}, "spec": {"drivers": []}})).await;
    }
    let kubelet = test.api(UserInfo::new("system:node:n1", ["system:nodes"]));
    for (request, code) in [
        (format!("GET {slices}/n1"), 200),
        (format!("GET {slices}/n2"), 403),
        (format!("DELETE {slices}"), 403),
        (format!("DELETE {slices}?fieldSelector=spec.nodeName%3Dn2"), 403),
        (format!("GET {slices}?fieldSelector=spec.nodeName%3Dn1"), 200),
        (format!("GET {csi}/n1"), 200),
        (format!("GET {csi}/n2"), 403),
        (format!("DELETE {csi}/n2"), 403),
        ("GET /api/v1/namespaces/default/persistentvolumeclaims/x".into(), 403),
        ("GET /api/v1/persistentvolumes/x".into(), 403),
        ("GET /apis/storage.k8s.io/v1/volumeattachments/x".into(), 403),
        ("GET /apis/resource.k8s.io/v1/namespaces/default/resourceclaims/x".into(), 403),
        ("GET /api/v1/services".into(), 200),
        ("GET /apis/apps/v1/deployments".into(), 403),
    ] {
        let (got, answer) = kubelet.call(&request, json!(null)).await;
        assert_eq!(got, code, "{request}: {answer}");
    }
    let mut other = slice("n2");
    other["metadata"]["name"] = "n3".into();
    let (code, status) = kubelet.call(&format!("POST {slices}"), other).await;
    assert_eq!(code, 403);
    let why = "can only create ResourceSlices with the same NodeName as the requesting node";
    assert!(status["message"].as_str().unwrap().ends_with(why), "{status}");
    kubelet.ok(&format!("DELETE {slices}?fieldSelector=spec.nodeName%3Dn1"), json!(null)).await;
    api.ok(&format!("GET {slices}/n2"), json!(null)).await;
    // What the Node authorizer does not allow, a role may.
    api.ok(
        &format!("POST {RBAC}/clusterrolebindings"),
        json!({
            "metadata": {"name": "more"}, "subjects": [{"kind": "User", "name": "system:node:n1"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        }),
    )
    .await;
    kubelet.ok("GET /apis/apps/v1/deployments", json!(null)).await;
    kubelet.ok("GET /api/v1/namespaces/default/configmaps", json!(null)).await;
}
