//! CVE-2019-11250: what lets somebody in must not be found in logs, however much is logged.

use std::io::Write;
use std::sync::Arc;

use keelson_apiserver::{Pem, RequestHeader, TokenReviewVersion, WebhookAuthentication};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::https::{HttpsServer, json as answer};
use super::tokens::Keys;
use super::wire::{send, whoami};
use crate::support::{Pki, TestServer, tls_connect};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_logged_cve_2019_11250() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // Of the whole process: a subscriber of one thread does not hear what another thread logged first.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let hook = HttpsServer::start(|request| async move {
        let review: Value = serde_json::from_slice(request.body()).unwrap();
        // It says back what it was told, as some do.
        let status =
            json!({"authenticated": review["spec"]["token"] == "known-to-the-webhook", "user": {"username": "w"}});
        let (kind, version) = ("TokenReview", "authentication.k8s.io/v1");
        answer(&json!({"kind": kind, "apiVersion": version, "spec": review["spec"], "status": status}))
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let (keys, proxies) = (Keys::new(), Pki::new());
    let file = dir.path().join("tokens.csv");
    std::fs::write(&file, "token-of-the-file,jane,u\n").unwrap();
    let webhook = WebhookAuthentication {
        version: TokenReviewVersion::V1,
        ..WebhookAuthentication::new(hook.kubeconfig(dir.path(), "token-of-the-kubeconfig"))
    };
    let headers = RequestHeader::usual(Pem::Inline(proxies.ca_pem.clone().into_bytes()), Vec::new());
    let test = TestServer::start_with(|config| {
        config.service_account = Some(keys.config());
        config.authentication.token_file = Some(file);
        config.authentication.bootstrap_tokens = true;
        config.authentication.webhook = Some(webhook);
        config.authentication.request_header = Some(headers);
    })
    .await;
    let (address, api) = (test.listen(), test.admin());
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef"},
    });
    api.ok("POST /api/v1/namespaces/kube-system/secrets", secret).await;
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
    let issued = api.ok("POST /api/v1/namespaces/default/serviceaccounts/robot/token", json!({"spec": {}})).await;
    let issued = issued["status"]["token"].as_str().unwrap().to_owned();
    let bad = format!("{}x", issued);
    let (_, signature) = issued.rsplit_once('.').unwrap();

    let tokens =
        [&issued, &bad, "token-of-the-file", "abcdef.0123456789abcdef", "known-to-the-webhook", "known-to-nobody"];
    for token in tokens {
        let authorization = format!("Bearer {token}");
        for alpn in [&b"http/1.1"[..], b"h2"] {
            let stream = tls_connect(&test.pki, address, None, alpn).await;
            let io = hyper_util::rt::TokioIo::new(stream);
            let request = http::Request::builder()
                .uri("https://localhost/api/v1/namespaces/default/pods")
                .header("host", "localhost")
                .header("authorization", &authorization)
                .body(http_body_util::Empty::<bytes::Bytes>::new())
                .unwrap();
            if alpn == b"h2" {
                let executor = hyper_util::rt::TokioExecutor::new();
                let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
                let task = tokio::spawn(connection);
                let code = sender.send_request(request).await.unwrap().status();
                assert!([401, 403].contains(&code.as_u16()), "{token}: {code}");
                drop(sender);
                let _ = task.await;
            } else {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                let task = tokio::spawn(connection);
                let code = sender.send_request(request).await.unwrap().status();
                assert!([401, 403].contains(&code.as_u16()), "{token}: {code}");
                drop(sender);
                let _ = task.await;
            }
        }
        api.ok("POST /apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": token}})).await;
    }
    let basic = [("authorization", "Basic YWRtaW46cGFzc3dvcmQ=")];
    send(&test.pki, address, None, "GET /api", &basic, json!(null)).await;
    let told = [("x-remote-user", "jane"), ("x-remote-extra-session", "session-secret")];
    whoami(&test, address, Some(proxies.issue("proxy", &[])), &told).await.unwrap();

    let log = String::from_utf8_lossy(&log.0.lock()).into_owned();
    for heard in ["TRACE", "a token was refused"] {
        assert!(log.contains(heard), "the test does not hear {heard:?}: {} bytes", log.len());
    }
    for secret in [
        signature,
        "token-of-the-file",
        "0123456789abcdef",
        "known-to-the-webhook",
        "known-to-nobody",
        "token-of-the-kubeconfig",
        "YWRtaW46cGFzc3dvcmQ",
        "session-secret",
    ] {
        if let Some(at) = log.find(secret) {
            let line = log[..at].rfind('\n').map_or(0, |start| start + 1);
            panic!("{secret} is logged: {}", &log[line..(at + 200).min(log.len())]);
        }
    }
}
