//! Webhooks that are down, hang, lie, or lead astray.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::hook::{BASE, Hook, MAPS, allowed, configure, map, patched, reply, respond};
use crate::support::{Pki, TestServer};

async fn refused(server: &TestServer, name: &str) -> String {
    let (code, status) = server.admin().call(&format!("POST {MAPS}"), map(name)).await;
    assert_eq!((code, &status["reason"]), (500, &json!("InternalError")), "{status}");
    status["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn answers_that_are_none() {
    let server = TestServer::start().await;
    let hook = Hook::raw(&server.pki, |path, review| {
        let path = path.trim_start_matches('/').split('?').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            match path.as_str() {
                "uid" => reply(200, &respond(&review, json!({"uid": "other", "allowed": true}))),
                "patch" => reply(200, &respond(&review, patched(json!("x")))),
                "empty" => reply(200, &json!({})),
                "none" => reply(200, &json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"})),
                "garbage" => http::Response::new(Full::new("<html>".into())),
                "huge" => http::Response::new(Full::new(vec![b' '; 9 << 20].into())),
                "error" => reply(500, &json!("oops")),
                "missing" => reply(404, &json!("")),
                _ => reply(200, &respond(&review, allowed())),
            }
        })
    })
    .await;
    let expected = [
        ("uid", "received invalid webhook response: expected response.uid=\""),
        ("patch", "received undecodable patch in webhook response: "),
        ("empty", "failed to call webhook: Object 'Kind' is missing in '{}'"),
        ("none", "received invalid webhook response: webhook response was absent"),
        ("garbage", "failed to call webhook: "),
        ("huge", "failed to call webhook: "),
        (
            "error",
            "failed to call webhook: an error on the server (\"\\\"oops\\\"\") has prevented the request from succeeding",
        ),
        ("missing", "failed to call webhook: the server could not find the requested resource"),
    ];
    let api = server.admin();
    for (name, message) in expected {
        configure(&server, "mutating", name, json!([hook.webhook(name, &["configmaps"], json!({}))])).await;
        let found = refused(&server, name).await;
        let wanted = format!("Internal error occurred: failed calling webhook \"{name}.example.com\": {message}");
        assert!(found.starts_with(&wanted), "{found}\n{wanted}");
        // Who ignores failures is not held up by them.
        let ignore = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
        api.ok(&format!("PATCH+json {BASE}/mutatingwebhookconfigurations/{name}"), ignore).await;
        api.ok(&format!("POST {MAPS}"), map(name)).await;
        api.ok(&format!("DELETE {BASE}/mutatingwebhookconfigurations/{name}"), json!({})).await;
    }
}

#[tokio::test]
async fn nobody_there() {
    let server = TestServer::start().await;
    let hook = Hook::start(&server, |_, _| allowed()).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut webhook = hook.webhook("v", &["configmaps"], json!({}));
    webhook["clientConfig"]["url"] = format!("https://127.0.0.1:{port}/v").into();
    configure(&server, "validating", "v", json!([webhook])).await;
    let message = refused(&server, "a").await;
    let wanted = format!(
        "Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: Post \
         \"https://127.0.0.1:{port}/v?timeout=10s\": dial tcp 127.0.0.1:{port}: connect: connection refused"
    );
    assert_eq!(message, wanted);
    // A Service that is not there, and one whose server has somebody else's certificate.
    let service = json!([{"op": "replace", "path": "/webhooks/0/clientConfig", "value": {"service": {"name": "w", "namespace": "default"}}}]);
    server.admin().ok(&format!("PATCH+json {BASE}/validatingwebhookconfigurations/v"), service).await;
    let message = refused(&server, "a").await;
    assert!(
        message.ends_with("Post \"https://w.default.svc:443/?timeout=10s\": services \"w\" not found"),
        "{message}"
    );
    let other =
        Hook::raw(&Pki::new(), |_, review| Box::pin(async move { reply(200, &respond(&review, allowed())) })).await;
    let mut webhook = hook.webhook("v", &["configmaps"], json!({}));
    webhook["clientConfig"]["url"] = format!("https://127.0.0.1:{}/v", other.address.port()).into();
    let replace = json!([{"op": "replace", "path": "/webhooks/0/clientConfig", "value": webhook["clientConfig"]}]);
    server.admin().ok(&format!("PATCH+json {BASE}/validatingwebhookconfigurations/v"), replace).await;
    let message = refused(&server, "a").await;
    assert!(message.contains("tls: failed to verify certificate"), "{message}");
    assert!(other.take().is_empty());
}

#[tokio::test]
async fn dry_runs_need_leave() {
    let server = TestServer::start().await;
    let hook = Hook::start(&server, |_, _| allowed()).await;
    configure(&server, "validating", "v", json!([hook.webhook("v", &["configmaps"], json!({}))])).await;
    server.admin().ok(&format!("POST {MAPS}?dryRun=All"), map("a")).await;
    assert_eq!(hook.take().len(), 1);
}

/// A webhook that hangs costs its callers its time limit, and others nothing.
#[tokio::test]
async fn hanging() {
    let server = TestServer::start().await;
    let hook = Hook::raw(&server.pki, |_, _| Box::pin(std::future::pending())).await;
    let limit = json!({"timeoutSeconds": 3});
    configure(&server, "validating", "v", json!([hook.webhook("v", &["configmaps"], limit)])).await;
    let begun = Instant::now();
    let held: Vec<_> = (0..32)
        .map(|i| {
            let api = server.admin();
            tokio::spawn(async move { api.call(&format!("POST {MAPS}"), map(&format!("h{i}"))).await })
        })
        .collect();
    // Meanwhile.
    let api = server.admin();
    for others in 0..10 {
        let secret = json!({"metadata": {"generateName": "s-"}, "stringData": {"a": "b"}});
        api.ok("POST /api/v1/namespaces/default/secrets", secret).await;
        assert!(!held.iter().any(tokio::task::JoinHandle::is_finished), "{others} others only");
    }
    for one in held {
        let (code, status) = one.await.unwrap();
        let message = status["message"].as_str().unwrap();
        assert_eq!(code, 500);
        assert!(message.ends_with("context deadline exceeded"), "{message}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
}

/// The configuration goes while its webhook is being asked: that request is answered by the webhook, later ones pass.
#[tokio::test]
async fn deleted_in_mid_request() {
    let server = TestServer::start().await;
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (its_asked, its_go) = (asked.clone(), go.clone());
    let hook = Hook::raw(&server.pki, move |_, review| {
        let (asked, go) = (its_asked.clone(), its_go.clone());
        Box::pin(async move {
            asked.notify_one();
            go.notified().await;
            reply(200, &respond(&review, json!({"allowed": false, "status": {"message": "late"}})))
        })
    })
    .await;
    configure(&server, "validating", "v", json!([hook.webhook("v", &["configmaps"], json!({}))])).await;
    let api = server.admin();
    let first = tokio::spawn(async move { api.call(&format!("POST {MAPS}"), map("a")).await });
    asked.notified().await;
    let api = server.admin();
    api.ok(&format!("DELETE {BASE}/validatingwebhookconfigurations/v"), json!({})).await;
    api.ok(&format!("POST {MAPS}"), map("b")).await;
    go.notify_one();
    let (code, status) = first.await.unwrap();
    assert_eq!(
        (code, &status["message"]),
        (400, &json!("admission webhook \"v.example.com\" denied the request: late"))
    );
}

/// CVE-2020-8555, CVE-2020-8559: a server that the API server calls must not send it elsewhere with what it has.
#[tokio::test]
async fn cve_2020_8555_and_8559_redirects_are_not_followed() {
    let server = TestServer::start().await;
    let inner = Hook::start(&server, |_, _| allowed()).await;
    for code in [301, 302, 303, 307, 308] {
        let to = format!("https://127.0.0.1:{}/inner", inner.address.port());
        let hook = Hook::raw(&server.pki, move |_, _| {
            let answer = http::Response::builder().status(code).header("location", &to).body(Full::default()).unwrap();
            Box::pin(async move { answer })
        })
        .await;
        configure(&server, "validating", "v", json!([hook.webhook("v", &["configmaps"], json!({}))])).await;
        let message = refused(&server, "a").await;
        let wanted = format!(
            "failed to call webhook: the server responded with the status code {code} but did not return more information"
        );
        assert!(message.ends_with(&wanted), "{message}");
        server.admin().ok(&format!("DELETE {BASE}/validatingwebhookconfigurations/v"), json!({})).await;
    }
    assert!(inner.take().is_empty());
}

/// CVE-2021-25735: an update of a Node shows webhooks the stored object whole, whatever the request says of it.
#[tokio::test]
async fn cve_2021_25735_the_old_node_is_the_stored_one() {
    let server = TestServer::start().await;
    let hook = Hook::start(&server, |_, request| {
        let label = |object: &Value| object["metadata"]["labels"]["lock"].clone();
        match request["operation"] == "UPDATE" && label(&request["object"]) != label(&request["oldObject"]) {
            true => json!({"allowed": false, "status": {"message": "locked"}}),
            false => allowed(),
        }
    })
    .await;
    let api = server.admin();
    let node = json!({"metadata": {"name": "n", "labels": {"lock": "yes"}}, "spec": {"podCIDR": "10.0.0.0/24"}});
    api.ok("POST /api/v1/nodes", node).await;
    configure(&server, "validating", "v", json!([hook.webhook("v", &["nodes", "nodes/status"], json!({}))])).await;
    let bare = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"}});
    for (request, body) in [
        ("PUT /api/v1/nodes/n", bare.clone()),
        ("PATCH+merge /api/v1/nodes/n", json!({"metadata": {"labels": {"lock": null}}})),
        ("PATCH+strategic /api/v1/nodes/n", json!({"metadata": {"labels": {"lock": "no"}}})),
    ] {
        let (code, status) = api.call(request, body).await;
        assert_eq!(code, 400, "{request}: {status}");
    }
    for review in hook.take() {
        let old = &review["request"]["oldObject"];
        assert_eq!(
            (&old["metadata"]["labels"]["lock"], &old["spec"]["podCIDR"]),
            (&json!("yes"), &json!("10.0.0.0/24"))
        );
    }
    assert_eq!(api.ok("GET /api/v1/nodes/n", Value::Null).await["metadata"]["labels"]["lock"], "yes");
}
