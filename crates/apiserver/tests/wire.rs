//! Over TLS: certificates, tokens, anonymous, upgrades towards a kubelet.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::BodyExt as _;
use keelson_apiserver::UserInfo;
use serde_json::{Value, json};
use support::{Pki, TestServer, tls_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Sends one HTTP/1.1 request; the connection is closed by the server afterwards.
async fn get(
    pki: &Pki,
    address: SocketAddr,
    identity: Option<(String, String)>,
    path: &str,
    header: &str,
) -> (u16, Value) {
    let mut stream = tls_connect(pki, address, identity, b"http/1.1").await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(body).unwrap_or(Value::String(body.into())))
}

#[tokio::test]
async fn who_may_do_what() {
    let test = TestServer::start().await;
    let address = test.listen();
    let admin = || Some(test.pki.issue("admin", &["system:masters"]));
    let bob = || Some(test.pki.issue("bob", &["dev"]));
    let (code, who) = get(&test.pki, address, admin(), "/api/v1/namespaces/default", "").await;
    assert_eq!((code, &who["metadata"]["name"]), (200, &json!("default")));
    for (path, code, message) in [
        ("/healthz", 200, ""),
        ("/readyz", 200, ""),
        ("/livez", 200, ""),
        ("/version", 200, ""),
        ("/foo", 403, "forbidden: User \"system:anonymous\" cannot get path \"/foo\""),
        ("/api", 403, "forbidden: User \"system:anonymous\" cannot get path \"/api\""),
        (
            "/api/v1/namespaces/default/pods",
            403,
            "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        ),
        (
            "/apis/apps/v1/deployments",
            403,
            "deployments.apps is forbidden: User \"system:anonymous\" cannot list resource \"deployments\" in API group \"apps\" at the cluster scope",
        ),
    ] {
        let (got, body) = get(&test.pki, address, None, path, "").await;
        assert_eq!(got, code, "{path} {body}");
        if !message.is_empty() {
            assert_eq!(body["message"], message);
        }
    }
    let (code, status) = get(&test.pki, address, None, "/version", "Authorization: Bearer nonsense\r\n").await;
    assert_eq!((code, &status["message"]), (401, &json!("Unauthorized")));
    assert_eq!(get(&test.pki, address, bob(), "/api/v1/pods", "").await.0, 403);
    assert_eq!(get(&test.pki, address, bob(), "/apis", "").await.0, 200, "everybody authenticated may discover");
    let as_bob = "Impersonate-User: bob\r\n";
    assert_eq!(get(&test.pki, address, admin(), "/api/v1/pods", as_bob).await.0, 403);
    let (code, status) = get(&test.pki, address, bob(), "/api/v1/pods", "Impersonate-User: admin\r\n").await;
    let why = "users \"admin\" is forbidden: User \"bob\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope";
    assert_eq!((code, &status["message"]), (403, &json!(why)));
}

#[tokio::test]
async fn roles_are_honoured_at_once() {
    let test = TestServer::start().await;
    let api = test.admin();
    let bob = test.api(UserInfo::new("bob", ["dev"]));
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let binding = json!({
        "metadata": {"name": "dev"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "dev"}],
    });
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(bob.call(&format!("GET {maps}"), json!(null)).await.0, 403);
    api.ok(&format!("POST {bindings}"), binding).await;
    bob.ok(&format!("GET {maps}"), json!(null)).await;
    bob.ok(&format!("POST {maps}"), json!({"metadata": {"name": "x"}})).await;
    assert_eq!(bob.call("GET /api/v1/namespaces/kube-system/configmaps", json!(null)).await.0, 403);
    // Nobody grants what he does not have.
    let role = json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    assert_eq!(bob.call(&format!("POST {path}"), role).await.0, 403);
    let review =
        json!({"spec": {"resourceAttributes": {"verb": "create", "resource": "configmaps", "namespace": "default"}}});
    let review = bob.ok("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await;
    assert_eq!(review["status"]["allowed"], true);
    assert_eq!(
        review["status"]["reason"],
        "RBAC: allowed by RoleBinding \"dev/default\" of ClusterRole \"edit\" to Group \"dev\""
    );
    api.ok(&format!("DELETE {bindings}/dev"), json!(null)).await;
    assert_eq!(bob.call(&format!("GET {maps}"), json!(null)).await.0, 403);
}

#[tokio::test]
async fn tokens_are_as_good_as_what_they_are_bound_to() {
    let test = TestServer::start().await;
    let address = test.listen();
    let api = test.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    api.ok(&format!("POST {accounts}"), json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    api.ok("POST /api/v1/namespaces/default/pods", pod).await;
    let issue =
        |bound: Value| api.ok("POST /api/v1/namespaces/default/serviceaccounts/default/token", json!({"spec": bound}));
    let free = issue(json!({})).await["status"]["token"].as_str().unwrap().to_owned();
    let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}});
    let bound = issue(bound).await["status"]["token"].as_str().unwrap().to_owned();
    let other = issue(json!({"audiences": ["elsewhere"]})).await["status"]["token"].as_str().unwrap().to_owned();
    let call = async |token: &str| {
        get(&test.pki, address, None, "/api/v1/pods", &format!("Authorization: Bearer {token}\r\n")).await
    };
    let (code, status) = call(&free).await;
    assert_eq!(code, 403);
    assert!(status["message"].as_str().unwrap().contains("User \"system:serviceaccount:default:default\" cannot list"));
    assert_eq!(call(&bound).await.0, 403);
    assert_eq!(call(&other).await.0, 401, "another audience");
    let review = json!({"spec": {"token": other, "audiences": ["elsewhere"]}});
    let review = api.ok("POST /apis/authentication.k8s.io/v1/tokenreviews", review).await;
    assert_eq!(review["status"]["authenticated"], true);
    let mut tampered = free.clone();
    tampered.replace_range(free.len() - 6..free.len() - 4, "AA");
    assert_eq!(call(&tampered).await.0, 401);
    api.ok("DELETE /api/v1/namespaces/default/pods/p", json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(call(&bound).await.0, 401, "its pod is gone");
    assert_eq!(call(&free).await.0, 403);
    api.ok(&format!("DELETE {accounts}/default"), json!(null)).await;
    api.ok(&format!("POST {accounts}"), json!({"metadata": {"name": "default"}})).await;
    assert_eq!(call(&free).await.0, 401, "another account of the same name");
    let keys = api.ok("GET /openid/v1/jwks", json!(null)).await;
    assert_eq!((&keys["keys"][0]["kty"], &keys["keys"][0]["alg"]), (&json!("EC"), &json!("ES256")));
    let openid = api.ok("GET /.well-known/openid-configuration", json!(null)).await;
    assert_eq!(openid["issuer"], "https://kubernetes.default.svc.cluster.local");
    let short = json!({"spec": {"expirationSeconds": 60}});
    assert_eq!(api.call(&format!("POST {accounts}/default/token"), short).await.0, 422);
}

#[tokio::test]
async fn kubelets_see_what_their_pods_need() {
    let test = TestServer::start().await;
    let api = test.admin();
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    for name in ["mine", "other"] {
        api.ok("POST /api/v1/namespaces/default/secrets", json!({"metadata": {"name": name}})).await;
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "secret": {"secretName": "mine"}}],
    }});
    let pod = api.ok("POST /api/v1/namespaces/default/pods", pod).await;
    let kubelet = |node: &str| test.api(UserInfo::new(format!("system:node:{node}"), ["system:nodes"]));
    let secrets = "/api/v1/namespaces/default/secrets";
    kubelet("n1").ok(&format!("GET {secrets}/mine"), json!(null)).await;
    kubelet("n1").ok(&format!("GET {secrets}?fieldSelector=metadata.name%3Dmine"), json!(null)).await;
    let (code, status) = kubelet("n2").call(&format!("GET {secrets}/mine"), json!(null)).await;
    let why = "secrets \"mine\" is forbidden: User \"system:node:n2\" cannot get resource \"secrets\" in API group \"\" in \
               the namespace \"default\": no relationship found between node 'n2' and this object";
    assert_eq!((code, &status["message"]), (403, &json!(why)));
    for (node, path) in [("n1", format!("{secrets}/other")), ("n1", secrets.into()), ("n1", "/api/v1/secrets".into())] {
        assert_eq!(kubelet(node).call(&format!("GET {path}"), json!(null)).await.0, 403, "{path}");
    }
    // Pods and nodes: its own.
    let pods = "/api/v1/namespaces/default/pods";
    let watch = "GET /api/v1/pods?watch=1&timeoutSeconds=1&fieldSelector=spec.nodeName%3D";
    let own = "can only list/watch pods with spec.nodeName field selector";
    let unrelated = "no relationship found between node 'n2' and this object";
    for (node, request, code, why) in [
        ("n1", format!("GET {pods}/p"), 200, ""),
        ("n2", format!("GET {pods}/p"), 403, unrelated),
        ("n1", "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1".into(), 200, ""),
        ("n1", "GET /api/v1/pods?fieldSelector=status.phase!%3DFailed,spec.nodeName%3D%3Dn1".into(), 200, ""),
        ("n1", "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn2".into(), 403, own),
        ("n1", "GET /api/v1/pods?fieldSelector=spec.nodeName!%3Dn1".into(), 403, own),
        ("n1", "GET /api/v1/pods".into(), 403, own),
        ("n1", format!("GET {pods}?fieldSelector=metadata.name%3Dp"), 200, ""),
        ("n2", format!("GET {pods}?fieldSelector=metadata.name%3Dp"), 403, unrelated),
        ("n1", format!("{watch}n1"), 200, ""),
        ("n2", format!("{watch}n1"), 403, own),
        ("n1", "GET /api/v1/nodes".into(), 403, "node 'n1' cannot read all nodes, only its own Node object"),
        ("n1", "GET /api/v1/nodes/n2".into(), 403, "node 'n1' cannot read 'n2', only its own Node object"),
        ("n1", "GET /api/v1/nodes/n1".into(), 404, ""),
        ("n1", "GET /api/v1/nodes?fieldSelector=metadata.name%3Dn1".into(), 200, ""),
    ] {
        let (got, text, _) = kubelet(node).raw(&request, "null".into()).await;
        assert_eq!(got, code, "{node} {request}: {text}");
        assert!(text.contains(why), "{node} {request}: {text}");
    }
    // References follow the pod's spec, and end with it.
    let token = "POST /api/v1/namespaces/default/serviceaccounts/default/token";
    let bound = json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p",
        "uid": pod["metadata"]["uid"]}}});
    api.ok(&format!("PATCH+merge {pods}/p/status"), json!({"status": {"phase": "Running"}})).await;
    kubelet("n1").ok(&format!("GET {secrets}/mine"), json!(null)).await;
    kubelet("n1").ok(token, bound.clone()).await;
    assert_eq!(kubelet("n2").call(token, bound).await.0, 403);
    assert_eq!(kubelet("n1").call(token, json!({"spec": {}})).await.0, 403, "not bound to a pod");
    api.ok(&format!("DELETE {pods}/p?gracePeriodSeconds=0"), json!(null)).await;
    assert_eq!(kubelet("n1").call(&format!("GET {secrets}/mine"), json!(null)).await.0, 403);
}

/// A TLS server that stands where a kubelet would: it answers one request and echoes upgraded bytes in upper case.
async fn backend(pki: &Pki) -> (u16, tokio::task::JoinHandle<String>) {
    let acceptor = pki.acceptor();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        if head.to_lowercase().contains("upgrade: spdy/3.1") {
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes.to_ascii_uppercase()).await.unwrap();
        } else {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Type: text/plain\r\n\r\nlines\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        head
    });
    (port, task)
}

#[tokio::test]
async fn what_is_under_way_is_finished_while_the_server_stops() {
    let test = TestServer::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn({
        let (server, stop) = (test.server.clone(), stop.clone());
        async move { server.serve(listener, stop).await }
    });
    let watch = test.admin().send("GET /api/v1/configmaps?watch=true", "").await;
    stop.cancel();
    serving.await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(10), watch.into_body().collect()).await.expect("watches end").unwrap();
    // Controllers in this process let go of their leases now.
    let map = json!({"metadata": {"name": "late"}});
    let late = async { test.admin().ok("POST /api/v1/namespaces/default/configmaps", map).await };
    tokio::time::timeout(Duration::from_secs(10), late).await.expect("writes are still answered");
}

#[tokio::test]
async fn streams_reach_the_kubelet() {
    let test = TestServer::start().await;
    let address = test.listen();
    let api = test.admin();
    let node = json!({"metadata": {"name": "n"}});
    api.ok("POST /api/v1/nodes", node).await;
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    api.ok("POST /api/v1/namespaces/default/pods", pod).await;
    let point_at = async |port: u16| {
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }});
        api.ok("PATCH+merge /api/v1/nodes/n/status", status).await;
    };
    let admin = || Some(test.pki.issue("admin", &["system:masters"]));

    let (port, seen) = backend(&test.pki).await;
    point_at(port).await;
    let log = "/api/v1/namespaces/default/pods/p/log?tailLines=3&timestamps=true";
    let (code, body) = get(&test.pki, address, admin(), log, "").await;
    assert!(code == 200 && body.as_str().unwrap().contains("lines\n"), "{body}");
    let head = seen.await.unwrap();
    assert!(head.starts_with("GET /containerLogs/default/p/c?timestamps=true&tailLines=3 HTTP/1.1"), "{head}");

    let (port, seen) = backend(&test.pki).await;
    point_at(port).await;
    let mut stream = tls_connect(&test.pki, address, admin(), b"http/1.1").await;
    let exec = "/api/v1/namespaces/default/pods/p/exec?command=echo&command=a%20b&stdin=true&stdout=true&tty=false";
    let request = format!(
        "POST {exec} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nAuthorization: x y\r\n\
         Impersonate-User: admin\r\nImpersonate-Group: system:masters\r\n\
         X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HELLO");
    let head = seen.await.unwrap();
    assert!(head.starts_with("POST /exec/default/p/c?input=1&output=1&command=echo&command=a%20b HTTP/1.1"), "{head}");
    let lower = head.to_lowercase();
    assert!(lower.contains("x-stream-protocol-version: v4.channel.k8s.io"), "{head}");
    assert!(!lower.contains("authorization"), "the client's credentials stay here: {head}");
    assert!(!lower.contains("impersonate"), "and so does whom it acts for: {head}");

    let wrong = "/api/v1/namespaces/default/pods/p/log?container=zz";
    let (code, status) = get(&test.pki, address, admin(), wrong, "").await;
    assert_eq!((code, &status["message"]), (400, &json!("container zz is not valid for pod p")));
}
