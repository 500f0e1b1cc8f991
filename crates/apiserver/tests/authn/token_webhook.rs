//! Tokens that another server is asked about: one that knows them, and ones that are broken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use keelson_apiserver::{TokenReviewVersion, WebhookAuthentication};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::https::{Answer, HttpsServer, json as answer, status};
use super::wire::{bearer, send, whoami};
use crate::support::TestServer;

const OWN: &str = "https://kubernetes.default.svc.cluster.local";

async fn server(hook: &HttpsServer, timeout: Duration) -> (TestServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let webhook = WebhookAuthentication {
        version: TokenReviewVersion::V1,
        timeout,
        ..WebhookAuthentication::new(hook.kubeconfig(dir.path(), "api-servers-own"))
    };
    (TestServer::start_with(|config| config.authentication.webhook = Some(webhook)).await, dir)
}

/// Knows `jane-token`.
async fn reviewer(request: Request<Bytes>) -> Answer {
    assert_eq!(request.headers()["authorization"], "Bearer api-servers-own");
    assert_eq!(request.uri().path(), "/authenticate");
    let review: Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(review["apiVersion"], "authentication.k8s.io/v1");
    let verdict = match review["spec"]["token"].as_str().unwrap() {
        "jane-token" => json!({
            "authenticated": true, "user": {"username": "jane", "uid": "u", "groups": ["dev"], "extra": {"k": ["v"]}},
        }),
        "null-token" => json!({
            "authenticated": true, "error": null, "audiences": null,
            "user": {"username": "nell", "uid": null, "groups": null, "extra": null},
        }),
        "elsewhere-token" => json!({"authenticated": true, "user": {"username": "jane"}, "audiences": ["elsewhere"]}),
        "broken-token" => json!({"authenticated": false, "error": "the directory is closed"}),
        _ => json!({"authenticated": false}),
    };
    answer(&json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": verdict}))
}

#[tokio::test]
async fn a_webhook_knows_tokens_and_its_answers_are_kept() {
    let hook = HttpsServer::start(reviewer).await;
    let (test, _dir) = server(&hook, Duration::from_secs(30)).await;
    let address = test.listen();
    let user = bearer(&test, address, "jane-token").await.unwrap();
    let expected =
        json!({"username": "jane", "uid": "u", "groups": ["dev", "system:authenticated"], "extra": {"k": ["v"]}});
    assert_eq!(user, expected);
    bearer(&test, address, "jane-token").await.unwrap();
    assert_eq!(hook.count(), 1, "the answer is kept");
    let nell = bearer(&test, address, "null-token").await.unwrap();
    assert_eq!(nell, json!({"username": "nell", "groups": ["system:authenticated"]}));
    for _ in 0..2 {
        assert_eq!(bearer(&test, address, "unknown-token").await, Err(401));
    }
    assert_eq!(hook.count(), 3, "that a token is unknown, too");
    // Who is known otherwise is not asked about.
    whoami(&test, address, Some(test.pki.issue("bob", &[])), &[]).await.unwrap();
    assert_eq!(hook.count(), 3);
    let review = async |token: &str, audiences: Value| {
        let body = json!({"spec": {"token": token, "audiences": audiences}});
        test.admin().ok("POST /apis/authentication.k8s.io/v1/tokenreviews", body).await["status"].clone()
    };
    assert_eq!(review("jane-token", json!([OWN])).await["audiences"], json!([OWN]));
    assert_eq!(review("jane-token", json!(["x"])).await["error"], "invalid bearer token");
    assert_eq!(review("elsewhere-token", json!([OWN])).await["error"], "invalid bearer token");
    assert_eq!(review("elsewhere-token", json!(["elsewhere", OWN])).await["audiences"], json!(["elsewhere"]));
    assert_eq!(review("broken-token", json!([])).await["error"], "[invalid bearer token, the directory is closed]");
}

#[tokio::test]
async fn a_webhook_that_answers_garbage_lets_nobody_in() {
    let trap = HttpsServer::start(|_| async { answer(&json!({"authenticated": true})) }).await;
    let elsewhere = trap.url("/");
    let hook = HttpsServer::start(move |request: Request<Bytes>| {
        let review: Value = serde_json::from_slice(request.body()).unwrap();
        let location = elsewhere.clone();
        async move {
            let yes = json!({"authenticated": true, "user": {"username": "admin", "groups": ["system:masters"]}});
            let reply = |kind: &str, version: &str| json!({"kind": kind, "apiVersion": version, "status": yes});
            let v1 = "authentication.k8s.io/v1";
            match review["spec"]["token"].as_str().unwrap() {
                "text" => Response::new(Full::from("<html>welcome</html>")),
                "empty" => Response::new(Full::default()),
                "half" => Response::new(Full::from("{\"kind\":\"TokenReview\",\"apiVersion\":")),
                "list" => answer(&json!([1])),
                "kind" => answer(&reply("SubjectAccessReview", v1)),
                "version" => answer(&reply("TokenReview", "authentication.k8s.io/v9")),
                "types" => {
                    answer(&json!({"kind": "TokenReview", "apiVersion": v1, "status": {"authenticated": "yes"}}))
                }
                "huge" => Response::new(Full::from(vec![b' '; 40 << 20])),
                "refusal" => status(403),
                "redirect" => {
                    Response::builder().status(302).header("location", location).body(Full::default()).unwrap()
                }
                "redirect-with-body" => {
                    Response::builder().status(307).header("location", location).body(Full::default()).unwrap()
                }
                other => panic!("{other}"),
            }
        }
    })
    .await;
    let (test, _dir) = server(&hook, Duration::from_secs(10)).await;
    let address = test.listen();
    for token in [
        "text",
        "empty",
        "half",
        "list",
        "kind",
        "version",
        "types",
        "huge",
        "refusal",
        "redirect",
        "redirect-with-body",
    ] {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        let (code, answer) = send(&test.pki, address, None, "GET /api/v1/nodes", &headers, json!(null)).await;
        assert_eq!((code, &answer["reason"]), (401, &json!("Unauthorized")), "{token}: {answer}");
    }
    assert_eq!(trap.count(), 0, "redirects are not followed");
}

#[tokio::test]
async fn a_webhook_that_hangs_slows_nobody_else_and_not_for_ever() {
    let asked = Arc::new(Notify::new());
    let told = asked.clone();
    let hook = HttpsServer::start(move |_| {
        let told = told.clone();
        async move {
            told.notify_one();
            std::future::pending::<Answer>().await
        }
    })
    .await;
    let limit = Duration::from_secs(3);
    let (test, _dir) = server(&hook, limit).await;
    let address = test.listen();
    let started = Instant::now();
    let slow = bearer(&test, address, "who-is-this");
    let same = bearer(&test, address, "who-is-this");
    let others = async {
        asked.notified().await;
        let bob = whoami(&test, address, Some(test.pki.issue("bob", &[])), &[]).await;
        let (code, _) = send(&test.pki, address, None, "GET /livez", &[], json!(null)).await;
        (bob.is_ok(), code, started.elapsed())
    };
    let (slow, same, (bob, code, took)) = tokio::join!(slow, same, others);
    assert_eq!((slow, same), (Err(401), Err(401)));
    assert_eq!((bob, code), (true, 200));
    assert!(took < limit, "others waited: {took:?}");
    assert_eq!(hook.count(), 1, "the same token is asked about once");
    assert!(started.elapsed() < limit * 3, "{:?}", started.elapsed());
}
