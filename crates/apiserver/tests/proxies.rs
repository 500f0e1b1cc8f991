//! What the server passes on to kubelets and pods, and to where it cannot be sent.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::{Api, Pki, TestServer, tls_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A kubelet of the test's own: answers every request with the same bytes and keeps the connection.
struct Kubelet {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    /// Everything that came, by connection.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Kubelet {
    async fn serve(pki: &Pki) -> Self {
        let acceptor = pki.acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubelet = Self { address: listener.local_addr().unwrap(), answer: Arc::default(), seen: Arc::default() };
        let (answer, seen) = (kubelet.answer.clone(), kubelet.seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, seen) = (acceptor.clone(), answer.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let number = {
                        let mut seen = seen.lock();
                        seen.push(String::new());
                        seen.len() - 1
                    };
                    let mut block = [0; 4096];
                    while let Ok(n @ 1..) = stream.read(&mut block).await {
                        let ended = {
                            let mut seen = seen.lock();
                            seen[number].push_str(&String::from_utf8_lossy(&block[..n]));
                            seen[number].ends_with("\r\n\r\n")
                        };
                        let text = answer.lock().clone();
                        if ended && stream.write_all(text.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        kubelet
    }

    fn answers(&self, head: &str, body: &str) {
        *self.answer.lock() = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

/// A node whose kubelet this is, with a pod.
async fn node(test: &TestServer, kubelet: &Kubelet) -> Api {
    let api = test.admin();
    let status = json!({
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.address.port()}},
    });
    api.ok("POST /api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    api.ok("PATCH+merge /api/v1/nodes/n/status", json!({"status": status})).await;
    api.eventually("GET /api/v1/namespaces/default/serviceaccounts/default", |code, _| code == 200 || code == 404)
        .await;
    api.call("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    api.ok(&format!("POST {PODS}"), pod).await;
    api
}

async fn text(response: http::Response<keelson_apiserver::Body>) -> (u16, String) {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn nodes_are_proxied_to_their_kubelets() {
    let test = TestServer::start().await;
    let kubelet = Kubelet::serve(&test.pki).await;
    let api = node(&test, &kubelet).await;
    kubelet.answers("200 OK", "all is well");
    let headers = [
        ("x-remote-user", "root"),
        ("impersonate-user", "admin"),
        ("impersonate-group", "system:masters"),
        ("x-mine", "1"),
    ];
    let response = api.send_with("GET /api/v1/nodes/n/proxy/healthz?a=b", "", &headers).await;
    assert_eq!(text(response).await, (200, "all is well".into()));
    let seen = kubelet.seen().pop().unwrap();
    assert!(seen.starts_with("GET /healthz?a=b HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("x-mine: 1") && !seen.contains("x-remote") && !seen.contains("impersonate"), "{seen}");
    let own = format!("GET /api/v1/nodes/https:n:{}/proxy/healthz", kubelet.address.port());
    assert_eq!(text(api.send(&own, "").await).await.0, 200, "its own port, by name");
    // A page's references are below it.
    let response = api.send("GET /api/v1/nodes/n/proxy?a=b", "").await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["location"]),
        (301, &"/api/v1/nodes/n/proxy/?a=b".parse().unwrap())
    );
    kubelet.answers("302 Found\r\nlocation: /login", "");
    let response = api.send("GET /api/v1/nodes/n/proxy/x/y", "").await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["location"]),
        (302, &"/api/v1/nodes/n/proxy/login".parse().unwrap())
    );
    let (code, status) = api.call("GET /api/v1/nodes/ftp:n:1/proxy/", json!(null)).await;
    assert_eq!((code, &status["message"]), (400, &json!("invalid node request \"ftp:n:1\"")));
}

/// A kubelet that was taken over sends the server elsewhere: it does not go.
#[tokio::test]
async fn cve_2020_8559_kubelets_cannot_redirect() {
    let test = TestServer::start().await;
    let kubelet = Kubelet::serve(&test.pki).await;
    let other = Kubelet::serve(&test.pki).await;
    let api = node(&test, &kubelet).await;
    kubelet.answers(&format!("302 Found\r\nlocation: https://{}/exec/default/victim/c", other.address), "");
    let (code, status) = api.call(&format!("GET {PODS}/p/log"), json!(null)).await;
    assert_eq!((code, &status["message"]), (500, &json!("Internal error occurred: redirects forbidden")));
    for subresource in ["exec?command=id&stdout=true", "attach?stdout=true", "portforward"] {
        let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let response = api.send_with(&format!("POST {PODS}/p/{subresource}"), "", &upgrade).await;
        assert!(!response.headers().contains_key("location"), "{subresource}");
        let (code, said) = text(response).await;
        assert_eq!(code, 500, "{subresource}");
        assert!(said.contains("invalid upgrade response: status code 302"), "{said}");
    }
    assert_eq!((kubelet.seen().len(), other.seen().len()), (4, 0));
}

/// Logs of a kubelet whose certificate nobody vouches for are read only by who says that this does not matter.
#[tokio::test]
async fn a_kubelets_certificate_is_checked_unless_asked_otherwise() {
    let test = TestServer::start().await;
    let kubelet = Kubelet::serve(&Pki::new()).await;
    let api = node(&test, &kubelet).await;
    kubelet.answers("200 OK", "a line");
    let (code, status) = api.call(&format!("GET {PODS}/p/log"), json!(null)).await;
    let said = status["message"].as_str().unwrap();
    assert!(code == 500 && said.contains("invalid peer certificate"), "{code} {said}");
    let unchecked = format!("GET {PODS}/p/log?insecureSkipTLSVerifyBackend=true");
    assert_eq!(text(api.send(&unchecked, "").await).await, (200, "a line".into()));
    assert_eq!(kubelet.seen().len(), 1);
}

/// An upgrade that the kubelet refuses leaves no way to it.
#[tokio::test]
async fn cve_2018_1002105_a_failed_upgrade_opens_nothing() {
    let test = TestServer::start().await;
    let kubelet = Kubelet::serve(&test.pki).await;
    node(&test, &kubelet).await;
    kubelet.answers("403 Forbidden", "no");
    let admin = test.pki.issue("admin", &["system:masters"]);
    let mut stream = tls_connect(&test.pki, test.listen(), Some(admin), b"http/1.1").await;
    let exec = format!(
        "POST {PODS}/p/exec?command=id HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\r\n"
    );
    let theft = "GET /runningpods/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(format!("{exec}{theft}").as_bytes()).await.unwrap();
    let mut said = Vec::new();
    // How the connection ends does not matter.
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut said)).await.unwrap();
    assert!(String::from_utf8_lossy(&said).starts_with("HTTP/1.1 403 "), "{said:?}");
    let seen = kubelet.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].starts_with("POST /exec/default/p/c?command=id") && !seen[0].contains("runningpods"), "{seen:?}");
}

/// Neither pods nor endpoints lead to what only the server can reach.
#[tokio::test]
async fn cve_2020_8562_addresses_that_are_not_proxied_to() {
    let test = TestServer::start().await;
    let kubelet = Kubelet::serve(&test.pki).await;
    let api = node(&test, &kubelet).await;
    kubelet.answers("200 OK", "secret");
    let port = kubelet.address.port();
    let is = |ip: &str| json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running"}});
    for ip in ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1"] {
        api.ok(&format!("PATCH+merge {PODS}/p/status"), is(ip)).await;
        for scheme in ["http", "https"] {
            let (code, status) = api.call(&format!("GET {PODS}/{scheme}:p:{port}/proxy/"), json!(null)).await;
            assert_eq!((code, &status["message"]), (400, &json!("address not allowed")), "{ip}");
        }
    }
    // Another port of a node is proxied to without our credentials, and not on loopback.
    let (code, status) = api.call("GET /api/v1/nodes/n:1/proxy/", json!(null)).await;
    assert_eq!((code, &status["message"]), (400, &json!("address not allowed")));

    // Endpoints that somebody wrote are believed only where a pod of the namespace has that address.
    let spec = json!({"ports": [{"name": "web", "port": 80}]});
    api.ok("POST /api/v1/namespaces/default/services", json!({"metadata": {"name": "s"}, "spec": spec})).await;
    let slice = |target: Value| {
        json!({
            "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
            "ports": [{"name": "web", "port": port}], "endpoints": [{"addresses": ["192.0.2.7"], "targetRef": target}],
        })
    };
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let target = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    api.ok(&format!("POST {slices}"), slice(json!(null))).await;
    let none = |id: &str| json!(format!("no endpoints available for service {id:?}"));
    let service = |id: &str| format!("GET /api/v1/namespaces/default/services/{id}/proxy/");
    let (code, status) = api.call(&service("s:web"), json!(null)).await;
    assert_eq!((code, &status["message"]), (503, &none("s:web")));
    api.ok(&format!("PATCH+merge {slices}/s"), json!({"endpoints": slice(target)["endpoints"]})).await;
    let (code, status) = api.call(&service("http:s:80"), json!(null)).await;
    assert_eq!((code, &status["message"]), (503, &none("http:s:80")), "the pod has another address");
    let (code, status) = api.call(&service("s:82"), json!(null)).await;
    assert_eq!((code, &status["message"]), (503, &json!("no service port 82 found for service \"s\"")));
    assert!(kubelet.seen().is_empty());
}
