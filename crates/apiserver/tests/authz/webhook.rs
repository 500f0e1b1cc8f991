//! Webhooks that authorize: servers of the tests' own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http_body_util::Full;
use keelson_apiserver::{ApiServer, Authorization, AuthorizationMode, Config, UserInfo, WebhookAuthorization};
use keelson_store::{LocalStore, Options};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::https::{Answer, Https};
use crate::support::{Api, Pki, TestServer};

/// A webhook, its kubeconfig file, and what it was asked.
struct Hook {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Value>>>,
    _server: Https,
}

impl Hook {
    /// Answers reviews with this status.
    async fn with(pki: &Pki, status: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        Self::raw(pki, move |review| {
            let mut answer = review.clone();
            answer["status"] = status(&review["spec"]);
            let answer = http::Response::new(Full::new(answer.to_string().into()));
            Box::pin(async move { answer })
        })
        .await
    }

    async fn raw(pki: &Pki, handler: impl Fn(Value) -> BoxFuture<'static, Answer> + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let remembered = asked.clone();
        let server = Https::start(pki, move |request| {
            let review: Value = serde_json::from_slice(request.body()).unwrap_or_default();
            remembered.lock().push(review.clone());
            handler(review)
        })
        .await;
        let port = server.address.port();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.crt"), &pki.ca_pem).unwrap();
        let kubeconfig = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: hook}}}}]\nclusters: [{{name: hook, cluster: \
             {{server: 'https://127.0.0.1:{port}/authorize', certificate-authority: ca.crt}}}}]\n"
        );
        std::fs::write(dir.path().join("kubeconfig"), kubeconfig).unwrap();
        Self { dir, asked, _server: server }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A webhook of an `AuthorizationConfiguration`.
    fn configured(&self, more: Value) -> Value {
        let mut webhook = json!({
            "timeout": "1s", "subjectAccessReviewVersion": "v1", "failurePolicy": "NoOpinion",
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": self.kubeconfig()},
        });
        webhook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"type": "Webhook", "name": "hook", "webhook": webhook})
    }

    fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.asked.lock())
    }
}

fn settings(hook: &Hook) -> Authorization {
    let mut webhook = WebhookAuthorization::usual(hook.kubeconfig());
    webhook.version = "v1".into();
    use AuthorizationMode::{Node, Rbac, Webhook};
    Authorization { modes: vec![Node, Rbac, Webhook], webhook: Some(webhook), config_file: None }
}

/// Writes a configuration file that has these authorizers.
fn configure(hook: &Hook, authorizers: &[Value]) -> PathBuf {
    let path = hook.dir.path().join("config.yaml");
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": authorizers});
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

fn rbac() -> Value {
    json!({"type": "RBAC", "name": "rbac"})
}

fn alice(test: &TestServer) -> Api {
    test.api(UserInfo::new("alice", ["devs"]))
}

#[tokio::test]
async fn a_webhook_has_its_say_and_is_remembered() {
    let pki = Pki::new();
    let hook = Hook::with(&pki, |spec| match spec["resourceAttributes"]["resource"].as_str() {
        Some("pods") => json!({"allowed": true, "reason": "it is alice"}),
        Some("secrets") => json!({"allowed": false, "denied": true, "reason": "secrets are not for you"}),
        _ => json!({"allowed": false, "reason": "who knows"}),
    })
    .await;
    let test = TestServer::start_with(|config| config.authorization = settings(&hook)).await;
    let api = alice(&test);
    let list =
        "GET /api/v1/namespaces/default/pods?fieldSelector=spec.nodeName%3Dn1&labelSelector=app%20in%20(a,b),!old";
    for _ in 0..3 {
        api.ok(list, json!(null)).await;
    }
    let asked = hook.take();
    assert_eq!(asked.len(), 1, "the answer is remembered");
    assert_eq!(asked[0]["kind"], "SubjectAccessReview");
    let expected = json!({
        "user": "alice", "groups": ["devs", "system:authenticated"],
        "resourceAttributes": {
            "namespace": "default", "verb": "list", "version": "v1", "resource": "pods",
            "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
            "labelSelector": {"requirements": [
                {"key": "app", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"},
            ]},
        },
    });
    assert_eq!(asked[0]["spec"], expected);
    let (code, status) = api.call("GET /api/v1/namespaces/default/secrets", json!(null)).await;
    let why = "secrets is forbidden: User \"alice\" cannot list resource \"secrets\" in API group \"\" in the namespace \
               \"default\": secrets are not for you";
    assert_eq!((code, &status["message"]), (403, &json!(why)));
    let (code, _) = api.call("GET /metrics", json!(null)).await;
    assert_eq!(code, 403);
    let asked = hook.take();
    assert_eq!(asked[1]["spec"]["nonResourceAttributes"], json!({"path": "/metrics", "verb": "get"}));
    // What RBAC allows is not asked for.
    test.admin().ok("GET /api/v1/nodes", json!(null)).await;
    api.ok("GET /version", json!(null)).await;
    assert_eq!(hook.take().len(), 0);
    let review =
        json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "default"}}});
    let answer = api.ok("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await;
    assert_eq!(answer["status"], json!({"allowed": false, "denied": true, "reason": "secrets are not for you"}));
    let rules = json!({"spec": {"namespace": "default"}});
    let answer = api.ok("POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules).await;
    assert_eq!(answer["status"]["incomplete"], true);
    assert_eq!(answer["status"]["evaluationError"], "webhook authorizer does not support user rule resolution");
}

#[tokio::test]
async fn old_reviews_are_spoken_too() {
    let hook = Hook::with(&Pki::new(), |_| json!({"allowed": true})).await;
    let test = TestServer::start_with(|config| {
        // The certificate is of another authority: nothing is trusted by default.
        config.authorization = settings(&hook);
        config.authorization.webhook.as_mut().unwrap().version = "v1beta1".into();
    })
    .await;
    alice(&test).ok("GET /api/v1/pods", json!(null)).await;
    let asked = hook.take();
    assert_eq!(asked[0]["apiVersion"], "authorization.k8s.io/v1beta1");
    assert_eq!(asked[0]["spec"]["group"], json!(["devs", "system:authenticated"]));
}

/// Answers in turn that are none, each refused within its time while others are served.
#[tokio::test]
async fn a_webhook_that_fails_lets_nobody_in() {
    let pki = Pki::new();
    let answer = |code: u16, body: &str| {
        let mut answer = http::Response::new(Full::new(bytes::Bytes::copy_from_slice(body.as_bytes())));
        *answer.status_mut() = http::StatusCode::from_u16(code).unwrap();
        answer
    };
    let hook = Hook::raw(&pki, move |review| {
        let name = review["spec"]["resourceAttributes"]["name"].as_str().unwrap_or_default().to_owned();
        Box::pin(async move {
            match name.as_str() {
                "hangs" => {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    answer(200, "{}")
                }
                "garbage" => answer(200, "no JSON at all"),
                "lies" => answer(200, r#"{"kind":"Pod","apiVersion":"v1","status":{"allowed":true}}"#),
                "truth" => answer(
                    200,
                    r#"{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":"yes"}}"#,
                ),
                "both" => answer(
                    200,
                    r#"{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":true,"denied":true}}"#,
                ),
                "redirects" => {
                    let mut answer = answer(302, "");
                    answer.headers_mut().insert("location", "https://127.0.0.1:1/elsewhere".parse().unwrap());
                    answer
                }
                "huge" => answer(200, &" ".repeat(40 << 20)),
                _ => answer(403, "go away"),
            }
        })
    })
    .await;
    let file = configure(&hook, &[hook.configured(json!({})), rbac()]);
    let test = TestServer::start_with(|config| config.authorization.config_file = Some(file)).await;
    let api = alice(&test);
    let check = async |name: &str, expected: &str| {
        let started = Instant::now();
        let (code, status) = api.call(&format!("GET /api/v1/namespaces/default/pods/{name}"), json!(null)).await;
        assert_eq!(code, 500, "{name}: {status}");
        assert!(status["message"].as_str().unwrap().contains(expected), "{name}: {status}");
        started.elapsed()
    };
    let quick = async {
        let started = Instant::now();
        for _ in 0..50 {
            test.admin().ok("GET /api/v1/namespaces/default", json!(null)).await;
        }
        started.elapsed()
    };
    let (hung, quick) = tokio::join!(check("hangs", "context deadline exceeded"), quick);
    assert!(hung < Duration::from_secs(10), "{hung:?}");
    assert!(quick < hung, "others were held up: {quick:?}");
    check("garbage", "decoding the webhook's answer").await;
    check("lies", "not SubjectAccessReview").await;
    check("truth", "no boolean").await;
    check("both", "returned both allow and deny response").await;
    check("redirects", "302").await;
    check("huge", "reading the answer").await;
    check("no", "does not allow access").await;
    // RBAC is asked all the same.
    api.ok("GET /version", json!(null)).await;
}

#[tokio::test]
async fn a_webhook_that_cannot_answer_now_is_asked_again() {
    let pki = Pki::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let hook = Hook::raw(&pki, move |mut review| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        review["status"] = json!({"allowed": true});
        let mut answer = http::Response::new(Full::new(review.to_string().into()));
        if first {
            *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        }
        Box::pin(async move { answer })
    })
    .await;
    let test = TestServer::start_with(|config| config.authorization = settings(&hook)).await;
    alice(&test).ok("GET /api/v1/pods", json!(null)).await;
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn conditions_spare_the_webhook() {
    let pki = Pki::new();
    let hook = Hook::with(&pki, |_| json!({"allowed": true})).await;
    let conditions = json!({
        "failurePolicy": "Deny", "matchConditionSubjectAccessReviewVersion": "v1",
        "matchConditions": [
            {"expression": "has(request.resourceAttributes)"},
            {"expression": "request.resourceAttributes.namespace == 'default'"},
            {"expression": "!('system:masters' in request.groups)"},
            {"expression": "request.resourceAttributes.name != 'odd' || request.extra['none'][0] == 'x'"},
        ],
    });
    let file = configure(&hook, &[hook.configured(conditions), rbac()]);
    let test = TestServer::start_with(|config| config.authorization.config_file = Some(file)).await;
    let api = alice(&test);
    api.ok("GET /api/v1/namespaces/default/pods", json!(null)).await;
    assert_eq!(hook.take().len(), 1);
    assert_eq!(api.call("GET /api/v1/namespaces/other/pods", json!(null)).await.0, 403);
    api.ok("GET /version", json!(null)).await;
    assert_eq!(hook.take().len(), 0, "neither matched");
    let (code, status) = api.call("GET /api/v1/namespaces/default/pods/odd", json!(null)).await;
    assert!(code == 500 && status["message"].as_str().unwrap().contains("resulted in error"), "{code} {status}");
    assert_eq!(hook.take().len(), 0, "a condition that fails denies");
}

#[tokio::test]
async fn the_configuration_is_read_again() {
    let pki = Pki::new();
    let hook = Hook::with(&pki, |_| json!({"allowed": true})).await;
    let file = configure(&hook, &[rbac()]);
    let test = TestServer::start_with(|config| config.authorization.config_file = Some(file)).await;
    let api = alice(&test);
    assert_eq!(api.call("GET /api/v1/pods", json!(null)).await.0, 403);
    let uncached = json!({"cacheAuthorizedRequests": false});
    configure(&hook, &[rbac(), hook.configured(uncached)]);
    api.eventually("GET /api/v1/pods", |code, _| code == 200).await;
    hook.take();
    api.ok("GET /api/v1/pods", json!(null)).await;
    api.ok("GET /api/v1/pods", json!(null)).await;
    assert_eq!(hook.take().len(), 2, "nothing is remembered");
    // What cannot be used changes nothing.
    configure(&hook, &[json!({"type": "AlwaysAllow", "name": "open"})]);
    configure(&hook, &[rbac(), json!({"type": "Webhook", "name": "hook"})]);
    api.ok("GET /api/v1/pods", json!(null)).await;
    configure(&hook, &[rbac()]);
    api.eventually("GET /api/v1/pods", |code, _| code == 403).await;
    // What one that cannot be used yet names is waited for.
    let elsewhere = tempfile::tempdir().unwrap();
    let info = json!({"type": "KubeConfigFile", "kubeConfigFile": elsewhere.path().join("kubeconfig")});
    configure(&hook, &[rbac(), hook.configured(json!({"connectionInfo": info}))]);
    for _ in 0..5 {
        assert_eq!(api.call("GET /api/v1/pods", json!(null)).await.0, 403);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for name in ["ca.crt", "kubeconfig"] {
        std::fs::copy(hook.dir.path().join(name), elsewhere.path().join(name)).unwrap();
    }
    api.eventually("GET /api/v1/pods", |code, _| code == 200).await;
}

/// Why the server does not start.
async fn refusal(authorization: Authorization) -> String {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::open(dir.path(), Options::default()).unwrap());
    let config = Config { authorization, ..Config::default() };
    ApiServer::new(config, store).await.err().map(|error| error.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn wrong_settings_stop_the_server() {
    let hook = Hook::with(&Pki::new(), |_| json!({})).await;
    let check = async |authorizers: &[Value], expected: &str| {
        let config_file = Some(configure(&hook, authorizers));
        let why = refusal(Authorization { config_file, ..Authorization::default() }).await;
        assert!(why.contains(expected), "{authorizers:?}: {why}");
    };
    check(&[], "authorizers: Required value: at least one authorization mode must be defined").await;
    let open = json!({"type": "AlwaysAllow", "name": "a"});
    check(&[open], "authorizers[0].type: Unsupported value: \"AlwaysAllow\"").await;
    check(&[rbac(), rbac()], "authorizers[1].type: Duplicate value: \"RBAC\"").await;
    let nameless = json!({"type": "Node"});
    check(&[nameless], "authorizers[0].name: Required value").await;
    let twice = [hook.configured(json!({})), hook.configured(json!({}))];
    check(&twice, "authorizers[1].name: Duplicate value: \"hook\"").await;
    let with = |field: &str, value: Value| hook.configured(json!({field: value}));
    check(&[with("timeout", "31s".into())], "authorizers[0].timeout: Invalid value: \"31s\": must be > 0s and <= 30s")
        .await;
    check(&[with("failurePolicy", "Ignore".into())], "authorizers[0].failurePolicy: Unsupported value: \"Ignore\"")
        .await;
    check(&[with("unknown", 1.into())], "unknown field `unknown`").await;
    let conditions = json!([{"expression": "request.nothing == 1"}]);
    let why =
        "authorizers[0].matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are";
    check(&[with("matchConditions", conditions.clone())], why).await;
    let conditions = json!({"matchConditionSubjectAccessReviewVersion": "v1", "matchConditions": conditions});
    check(&[hook.configured(conditions)], "undefined field 'nothing'").await;
    let connection = json!({"type": "InClusterConfig"});
    check(&[with("connectionInfo", connection)], "authorizers[0].connectionInfo.type: Unsupported value").await;
    let connection = json!({"type": "KubeConfigFile", "kubeConfigFile": "/nowhere"});
    check(&[with("connectionInfo", connection)], "authorizers[0].connectionInfo.kubeConfigFile: Invalid value").await;
    let modes = |modes: &[AuthorizationMode]| Authorization { modes: modes.to_vec(), ..Authorization::default() };
    use AuthorizationMode::{Node, Webhook};
    assert!(refusal(modes(&[])).await.contains("at least one authorization-mode must be passed"));
    assert!(refusal(modes(&[Node, Node])).await.contains("more than once"));
    assert!(refusal(modes(&[Webhook])).await.contains("config file not passed"));
    let unused = Authorization { modes: vec![Node], ..settings(&hook) };
    assert!(refusal(unused).await.contains("cannot specify --authorization-webhook-config-file without mode Webhook"));
    let why = "AlwaysAllow".parse::<AuthorizationMode>().unwrap_err();
    assert!(why.contains("cannot be turned off"), "{why}");
}
