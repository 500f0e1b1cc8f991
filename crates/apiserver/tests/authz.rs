//! Ways around authorization that must lead nowhere.

mod support;
#[path = "authz/webhook.rs"]
mod webhook;

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

/// The node `n1` and its kubelet, as clients.
async fn kubelet(test: &TestServer) -> (Value, Api) {
    let node = test.admin().ok("POST /api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    (node, test.api(UserInfo::new("system:node:n1", ["system:nodes"])))
}

/// A mirror pod of `node`, with changes.
fn mirror(name: &str, node: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let owner =
        json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"], "controller": true});
    let mut pod = json!({
        "metadata": {
            "name": name, "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [owner],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    });
    change(&mut pod);
    pod
}

#[tokio::test]
async fn kubelets_choose_nothing_that_they_may_read() {
    let test = TestServer::start().await;
    let (node, kubelet) = kubelet(&test).await;
    let pods = "POST /api/v1/namespaces/default/pods";
    let check = async |change: &dyn Fn(&mut Value), why: &str| {
        let (code, status) = kubelet.call(pods, mirror("a", &node, change)).await;
        let expected = format!("pods \"a\" is forbidden: {why}");
        assert_eq!((code, status["message"].as_str().unwrap_or_default()), (403, expected.as_str()));
    };
    let volumes = |volume: Value| move |pod: &mut Value| pod["spec"]["volumes"] = json!([volume]);
    let secret = volumes(json!({"name": "v", "secret": {"secretName": "s"}}));
    check(&secret, "node \"n1\" can not create pods that reference secrets").await;
    let claim = volumes(json!({"name": "v", "persistentVolumeClaim": {"claimName": "s"}}));
    check(&claim, "node \"n1\" can not create pods that reference persistentvolumeclaims").await;
    check(
        &|pod| pod["spec"]["nodeName"] = "n2".into(),
        "node \"n1\" can only create pods with spec.nodeName set to itself",
    )
    .await;
    let owner = |field: &'static str, value: Value| {
        move |pod: &mut Value| pod["metadata"]["ownerReferences"][0][field] = value.clone()
    };
    let not_its_own = "node \"n1\" can only create pods with an owner reference set to itself";
    check(&|pod| pod["metadata"]["ownerReferences"] = json!(null), not_its_own).await;
    check(&owner("name", "n2".into()), not_its_own).await;
    check(&owner("kind", "Pod".into()), not_its_own).await;
    let uncontrolled = "node \"n1\" can only create pods with a controller owner reference set to itself";
    check(&owner("controller", false.into()), uncontrolled).await;
    check(
        &owner("blockOwnerDeletion", true.into()),
        "node \"n1\" must not set blockOwnerDeletion on an owner reference",
    )
    .await;
    let uid = node["metadata"]["uid"].as_str().unwrap();
    check(&owner("uid", "other".into()), &format!("node n1 UID mismatch: expected other got {uid}")).await;
    let empty = volumes(json!({"name": "v", "emptyDir": {}}));
    kubelet.ok(pods, mirror("b", &node, empty)).await;
}

/// CVE-2025-4563: a node creates a mirror pod that claims devices, and so may read those claims.
#[tokio::test]
async fn cve_2025_4563_mirror_pods_claim_no_devices() {
    let test = TestServer::start().await;
    let (node, kubelet) = kubelet(&test).await;
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    test.admin().ok(&format!("POST {claims}"), json!({"metadata": {"name": "gpu"}, "spec": {}})).await;
    let pods = "POST /api/v1/namespaces/default/pods";
    let why = "pods \"a\" is forbidden: node \"n1\" can not create pods that reference resourceclaims";
    for claim in [json!({"resourceClaimName": "gpu"}), json!({"resourceClaimTemplateName": "gpu"})] {
        let pod = mirror("a", &node, |pod| {
            pod["spec"]["resourceClaims"] = json!([{"name": "c"}]);
            pod["spec"]["resourceClaims"][0].as_object_mut().unwrap().extend(claim.as_object().unwrap().clone());
        });
        let (code, status) = kubelet.call(pods, pod).await;
        assert_eq!((code, &status["message"]), (403, &json!(why)));
    }
    // A status that is sent along is not kept, or is refused; the claim stays closed in any case.
    let pod = mirror("b", &node, |pod| {
        pod["status"] = json!({"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "gpu"}]});
    });
    kubelet.call(pods, pod).await;
    let status = json!({"status": {"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "gpu"}]}});
    kubelet.call(pods, mirror("c", &node, |_| {})).await;
    let (code, _) = kubelet.call("PATCH+merge /api/v1/namespaces/default/pods/c/status", status).await;
    assert_ne!(code, 200, "nor can it be put there later");
    let (code, status) = kubelet.call(&format!("GET {claims}/gpu"), json!(null)).await;
    assert_eq!(code, 403, "{status}");
}

/// CVE-2025-5187: a node gives itself an owner that is gone, is collected, and comes back with other labels and taints.
#[tokio::test]
async fn cve_2025_5187_nodes_choose_no_owners() {
    let test = TestServer::start().await;
    let (_, kubelet) = kubelet(&test).await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"});
    let owned = json!({"metadata": {"ownerReferences": [owner]}});
    for request in ["PATCH+merge /api/v1/nodes/n1", "PATCH+merge /api/v1/nodes/n1/status"] {
        let (code, status) = kubelet.call(request, owned.clone()).await;
        let why = "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify ownerReferences";
        assert_eq!((code, &status["message"]), (403, &json!(why)), "{request}");
    }
    assert_eq!(kubelet.call("DELETE /api/v1/nodes/n1", json!(null)).await.0, 403);
    let node = test.admin().ok("GET /api/v1/nodes/n1", json!(null)).await;
    assert_eq!(node["metadata"].get("ownerReferences"), None);
}

#[tokio::test]
async fn kubelets_get_tokens_for_what_they_run() {
    let test = TestServer::start().await;
    let api = test.admin();
    let (_, kubelet) = kubelet(&test).await;
    for account in ["runs", "other"] {
        let account = json!({"metadata": {"name": account}});
        api.ok("POST /api/v1/namespaces/default/serviceaccounts", account).await;
    }
    let token = json!({"serviceAccountToken": {"path": "t", "audience": "vault"}});
    let pod = |name: &str, node: &str, account: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "nodeName": node, "serviceAccountName": account, "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "projected": {"sources": [token]}}]}})
    };
    let pods = "POST /api/v1/namespaces/default/pods";
    let own = api.ok(pods, pod("own", "n1", "runs")).await;
    let foreign = api.ok(pods, pod("foreign", "n2", "runs")).await;
    let ask = async |account: &str, pod: &Value, audiences: Value| {
        let bound =
            json!({"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]});
        let request = json!({"spec": {"audiences": audiences, "boundObjectRef": bound}});
        let path = format!("POST /api/v1/namespaces/default/serviceaccounts/{account}/token");
        let (code, status) = kubelet.call(&path, request).await;
        (code, status["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ask("runs", &own, json!(["vault"])).await.0, 201);
    let (code, why) = ask("other", &own, json!(["vault"])).await;
    assert!(code == 403 && why.contains("no relationship found between node 'n1' and this object"), "{why}");
    let (code, why) = ask("runs", &foreign, json!(["vault"])).await;
    assert!(code == 403 && why.ends_with("node requested token bound to a pod scheduled on a different node"), "{why}");
    let (code, why) = ask("runs", &own, json!(["bank"])).await;
    let expected = "audience \"bank\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for \
                    this audience";
    assert!(code == 403 && why.ends_with(expected), "{why}");
    let (code, why) = ask("runs", &own, json!(["vault", "bank"])).await;
    assert!(code == 403 && why.ends_with("node may only request 0 or 1 audiences"), "{why}");
    let unbound = json!({"metadata": {"name": "", "uid": ""}});
    let (code, why) = ask("runs", &unbound, json!(["vault"])).await;
    assert!(code >= 400, "{why}");
    // An administrator may open an audience.
    let rule = json!([{"verbs": ["request-serviceaccounts-token-audience"], "apiGroups": [""], "resources": ["bank"],
        "resourceNames": ["runs"]}]);
    api.ok(&format!("POST {RBAC}/clusterroles"), json!({"metadata": {"name": "bank"}, "rules": rule})).await;
    let binding = json!({
        "metadata": {"name": "bank"}, "subjects": [{"kind": "Group", "name": "system:nodes"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bank"},
    });
    api.ok(&format!("POST {RBAC}/clusterrolebindings"), binding).await;
    let (code, why) = ask("runs", &own, json!(["bank"])).await;
    assert_eq!(code, 201, "{why}");
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
    for key in ["kubernetes.io/role", "x.k8s.io/a", "a.node-restriction.kubernetes.io/b"] {
        let (code, status) = kubelet.call("PATCH+merge /api/v1/nodes/n1", label(key, json!("x"))).await;
        let why = format!("nodes \"n1\" is forbidden: is not allowed to modify labels: {key}");
        assert_eq!((code, &status["message"]), (403, &json!(why)));
    }
    for key in ["kubernetes.io/os", "topology.kubernetes.io/zone", "a.kubelet.kubernetes.io/b", "example.com/a"] {
        kubelet.ok("PATCH+merge /api/v1/nodes/n1", label(key, json!("x"))).await;
    }
    kubelet.ok("PATCH+merge /api/v1/nodes/n1", label("free", json!(null))).await;
    let kubelet = test.api(UserInfo::new("system:node:n2", ["system:nodes"]));
    let node = json!({"metadata": {"name": "n2", "labels": {"node-role.kubernetes.io/control-plane": ""}}});
    let (code, status) = kubelet.call("POST /api/v1/nodes", node).await;
    let why = "nodes \"n2\" is forbidden: node \"n2\" is not allowed to set the following labels: \
               node-role.kubernetes.io/control-plane";
    assert_eq!((code, &status["message"]), (403, &json!(why)));
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
