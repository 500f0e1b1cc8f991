//! The audit log: which events a request leaves, what is in them, and that nothing secret is.

mod support;

use std::path::{Path, PathBuf};

use keelson_apiserver::{Audit, AuditFormat, AuditLog, AuditMode, AuditTruncate, UserInfo};
use serde_json::{Value, json};
use support::{TestServer, tls_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: []
rules:
- level: None
  users: ["system:kube-scheduler"]
- level: None
  nonResourceURLs: ["/healthz*"]
- level: Metadata
  resources: [{group: "", resources: [secrets, "serviceaccounts/token"]}, {group: authentication.k8s.io}]
- level: Request
  omitStages: [RequestReceived]
  resources: [{group: "", resources: [pods/*, nodes]}]
- level: RequestResponse
  omitStages: [RequestReceived]
  omitManagedFields: true
  resources: [{group: ""}]
- level: Metadata
  omitStages: [RequestReceived]
"#;

struct Audited {
    test: TestServer,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

async fn start(policy: &str, mode: AuditMode) -> Audited {
    start_with(policy, |log| log.mode = mode).await
}

async fn start_with(policy: &str, change: impl FnOnce(&mut AuditLog)) -> Audited {
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&file, policy).unwrap();
    let mut backend = AuditLog::new(log.clone());
    change(&mut backend);
    let audit = Audit { policy: file, log: Some(backend), webhook: None };
    let test = TestServer::start_with(|config| config.audit = Some(audit)).await;
    Audited { test, log, _dir: dir }
}

fn events(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Events of one request, found by its ID.
fn of(log: &Path, id: &str) -> Vec<Value> {
    events(log).into_iter().filter(|event| event["auditID"] == id).collect()
}

#[tokio::test]
async fn events_say_what_the_policy_wants() {
    let Audited { test, log, _dir } = start(POLICY, AuditMode::Blocking).await;
    let api = test.admin();
    let body = json!({"metadata": {"name": "one"}, "data": {"a": "b"}});
    let headers =
        [("audit-id", "create-one"), ("user-agent", "tester/1"), ("x-forwarded-for", "203.0.113.9, nonsense")];
    let path = "POST /api/v1/namespaces/default/configmaps?fieldManager=me";
    let response = api.send_with(path, body.to_string(), &headers).await;
    assert_eq!(
        (response.status(), &response.headers()["audit-id"]),
        (201.try_into().unwrap(), &"create-one".parse().unwrap())
    );
    let found = of(&log, "create-one");
    assert_eq!(found.len(), 1, "{found:?}");
    let event = &found[0];
    for (field, expected) in [
        ("/kind", json!("Event")),
        ("/apiVersion", json!("audit.k8s.io/v1")),
        ("/level", json!("RequestResponse")),
        ("/stage", json!("ResponseComplete")),
        ("/requestURI", json!("/api/v1/namespaces/default/configmaps?fieldManager=me")),
        ("/verb", json!("create")),
        ("/user", json!({"username": "admin", "groups": ["system:masters", "system:authenticated"]})),
        ("/sourceIPs", json!(["203.0.113.9", "127.0.0.1"])),
        ("/userAgent", json!("tester/1")),
        ("/objectRef", json!({"resource": "configmaps", "namespace": "default", "name": "one", "apiVersion": "v1"})),
        ("/responseStatus", json!({"metadata": {}, "code": 201})),
        ("/requestObject", body),
        ("/responseObject/data", json!({"a": "b"})),
        ("/annotations", json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""})),
    ] {
        assert_eq!(event.pointer(field), Some(&expected), "{field}");
    }
    assert_eq!(event.pointer("/responseObject/metadata/managedFields"), None, "{event}");
    let times = (event["requestReceivedTimestamp"].as_str().unwrap(), event["stageTimestamp"].as_str().unwrap());
    assert!(times.0 <= times.1 && times.0.len() == "2026-01-02T03:04:05.000000Z".len(), "{times:?}");

    // A list is put together from its pieces; a patch is noted as it was sent; nobody's name comes from a patch.
    api.send_with("GET /api/v1/namespaces/default/configmaps", "", &[("audit-id", "list")]).await;
    let patch = json!({"metadata": {"labels": {"x": "y"}}});
    let path = "PATCH+merge /api/v1/namespaces/default/configmaps/one";
    api.send_with(path, patch.to_string(), &[("audit-id", "patch")]).await;
    let event = &of(&log, "patch")[0];
    assert_eq!((&event["requestObject"], &event["verb"]), (&patch, &json!("patch")));
    // The list's body was dropped unread: what there is of it is not there.
    let list = http_body_util::BodyExt::collect(
        api.send_with("GET /api/v1/namespaces/default/configmaps", "", &[("audit-id", "list-read")]).await.into_body(),
    );
    list.await.unwrap();
    let event = eventually(&log, "list-read", 1).await.remove(0);
    assert_eq!(event["responseObject"]["items"][0]["data"], json!({"a": "b"}), "{event}");
    assert_eq!(event["responseObject"]["items"][0]["metadata"]["managedFields"], Value::Null, "{event}");

    // Errors, as the client got them.
    api.send_with("GET /api/v1/namespaces/default/configmaps/none", "", &[("audit-id", "missing")]).await;
    let event = &of(&log, "missing")[0];
    let status = json!({"metadata": {}, "status": "Failure", "message": "configmaps \"none\" not found",
        "reason": "NotFound", "details": {"name": "none", "kind": "configmaps"}, "code": 404});
    assert_eq!((&event["responseStatus"], &event["responseObject"]["kind"]), (&status, &json!("Status")));
    // A deletion's answer is a status of its own.
    api.send_with("DELETE /api/v1/namespaces/default/configmaps/one", "", &[("audit-id", "gone")]).await;
    assert_eq!(of(&log, "gone")[0]["responseStatus"]["status"], "Success");

    // Level None, and a path that no rule leaves out.
    let scheduler = test.api(UserInfo::new("system:kube-scheduler", Vec::<String>::new()));
    scheduler.send_with("GET /api/v1/nodes", "", &[("audit-id", "scheduler")]).await;
    api.send_with("GET /healthz", "", &[("audit-id", "healthz")]).await;
    api.send_with("GET /version", "", &[("audit-id", "version")]).await;
    assert_eq!((of(&log, "scheduler").len(), of(&log, "healthz").len(), of(&log, "version").len()), (0, 0, 1));
    assert_eq!(of(&log, "version")[0].get("objectRef"), None);
}

async fn eventually(log: &Path, id: &str, count: usize) -> Vec<Value> {
    for _ in 0..500 {
        let found = of(log, id);
        if found.len() >= count {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{id}: {:?}", of(log, id));
}

#[tokio::test]
async fn who_asks_is_named() {
    let Audited { test, log, _dir } = start(POLICY, AuditMode::Blocking).await;
    let admin = test.admin();
    let headers = [("audit-id", "as-ann"), ("impersonate-user", "ann"), ("impersonate-group", "devs")];
    assert_eq!(admin.send_with("GET /api/v1/nodes", "", &headers).await.status(), 403);
    let event = &of(&log, "as-ann")[0];
    assert_eq!(event["user"]["username"], "admin");
    let ann = json!({"username": "ann", "groups": ["devs", "system:authenticated"]});
    assert_eq!(event["impersonatedUser"], ann);
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!((&event["responseStatus"]["reason"], &event["level"]), (&json!("Forbidden"), &json!("Request")));

    // Over the wire: the peer's address; a token that is nobody's leaves one event, without it.
    let address = test.listen();
    let mut stream = tls_connect(&test.pki, address, None, b"http/1.1").await;
    let request = "GET /api/v1/nodes HTTP/1.1\r\nHost: localhost\r\nAudit-ID: nobody\r\nConnection: close\r\n\
        Authorization: Bearer not-a-token\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.to_ascii_lowercase().contains("audit-id: nobody"), "{answer}");
    let found = of(&log, "nobody");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["stage"], &found[0]["user"]), (&json!("ResponseStarted"), &json!({})));
    assert_eq!((&found[0]["responseStatus"]["code"], &found[0]["sourceIPs"]), (&json!(401), &json!(["127.0.0.1"])));
    assert!(!std::fs::read_to_string(&log).unwrap().contains("not-a-token"));
}

#[tokio::test]
async fn watches_have_a_beginning_and_an_end() {
    let Audited { test, log, _dir } = start(POLICY, AuditMode::Blocking).await;
    let watch = "GET /api/v1/namespaces/default/secrets?watch=1";
    let response = test.admin().send_with(watch, "", &[("audit-id", "watch")]).await;
    let stages =
        |events: &[Value]| -> Vec<String> { events.iter().map(|e| e["stage"].as_str().unwrap().into()).collect() };
    assert_eq!(stages(&of(&log, "watch")), ["RequestReceived", "ResponseStarted"]);
    drop(response);
    let found = eventually(&log, "watch", 3).await;
    assert_eq!(stages(&found), ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
}

/// A body that does not come.
struct Silent;

impl http_body::Body for Silent {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn who_goes_away_is_written_down() {
    let Audited { test, log, _dir } = start(POLICY, AuditMode::Blocking).await;
    let service = test.server.service_for(UserInfo::new("admin", ["system:masters"]));
    let request = http::Request::builder().method("POST").header("audit-id", "gone");
    let request = request.uri("/api/v1/namespaces/default/secrets").body(Silent).unwrap();
    let answer = tokio::spawn(tower::ServiceExt::oneshot(service, request));
    eventually(&log, "gone", 1).await;
    answer.abort();
    let found = eventually(&log, "gone", 2).await;
    assert_eq!((&found[1]["stage"], &found[1]["responseStatus"]["code"]), (&json!("ResponseComplete"), &json!(499)));
}

#[tokio::test]
async fn no_secret_is_written_at_metadata() {
    let Audited { test, log, _dir } = start(POLICY, AuditMode::Batch).await;
    let api = test.admin();
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "swordfish"}});
    api.ok("POST /api/v1/namespaces/default/secrets", secret).await;
    let read = api.ok("GET /api/v1/namespaces/default/secrets/s", json!(null)).await;
    api.ok("PATCH+merge /api/v1/namespaces/default/secrets/s", json!({"stringData": {"password": "sturgeon"}})).await;
    api.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
    let path = "POST /api/v1/namespaces/default/serviceaccounts/robot/token";
    let token = api.ok(path, json!({"spec": {}})).await["status"]["token"].as_str().unwrap().to_owned();
    let review = json!({"spec": {"token": token}});
    let review = api.ok("POST /apis/authentication.k8s.io/v1/tokenreviews", review).await;
    assert_eq!(review["status"]["authenticated"], true, "{review}");
    api.send_with("GET /version", "", &[("audit-id", "last")]).await;
    eventually(&log, "last", 1).await;
    let text = std::fs::read_to_string(&log).unwrap();
    let encoded = read["data"]["password"].as_str().unwrap();
    for secret in ["swordfish", "sturgeon", encoded, &token, token.rsplit('.').next().unwrap()] {
        assert!(!text.contains(secret), "{secret}");
    }
    let writes: Vec<Value> = events(&log).into_iter().filter(|e| e["objectRef"]["resource"] == "secrets").collect();
    assert!(writes.len() >= 6, "{writes:?}");
    assert!(writes.iter().all(|event| event["level"] == "Metadata" && event.get("requestObject").is_none()));
}

#[tokio::test]
async fn a_policy_that_makes_no_sense_stops_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    std::fs::write(&policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Everything}]").unwrap();
    let store = keelson_store::LocalStore::open(dir.path().join("store").as_path(), Default::default()).unwrap();
    let audit = Some(Audit { policy, log: None, webhook: None });
    let config = keelson_apiserver::Config { audit, ..Default::default() };
    let error = keelson_apiserver::ApiServer::new(config, std::sync::Arc::new(store)).await.err().unwrap().to_string();
    assert!(error.contains("policy.yaml") && error.contains("unknown variant `Everything`"), "{error}");
}

#[tokio::test]
async fn events_that_are_too_large_lose_their_objects() {
    let truncate = Some(AuditTruncate { max_event_bytes: 3000, max_batch_bytes: 3000 });
    let Audited { test, log, _dir } = start_with(POLICY, |log| log.truncate = truncate).await;
    let api = test.admin();
    let maps = "POST /api/v1/namespaces/default/configmaps";
    for (id, bytes) in [("small", 100), ("large", 10_000)] {
        let body = json!({"metadata": {"name": id}, "data": {"a": "x".repeat(bytes)}});
        assert_eq!(api.send_with(maps, body.to_string(), &[("audit-id", id)]).await.status(), 201);
    }
    let (small, large) = (of(&log, "small").remove(0), of(&log, "large").remove(0));
    assert_eq!(
        (
            small["requestObject"]["data"]["a"].as_str().unwrap().len(),
            small["annotations"].get("audit.k8s.io/truncated")
        ),
        (100, None)
    );
    assert_eq!((large.get("requestObject"), large.get("responseObject")), (None, None), "{large}");
    assert_eq!(large["annotations"]["audit.k8s.io/truncated"], "true");
    assert_eq!(large["objectRef"]["name"], "large");
    // What is large without objects is lost, and that is told.
    let path = format!("GET /api/v1/namespaces/default/configmaps?fieldSelector=metadata.name={}", "x".repeat(4000));
    assert_eq!(api.send_with(&path, "", &[("audit-id", "huge")]).await.status(), 200);
    let lost = r#"apiserver_audit_error_total{plugin="truncate"} 1"#;
    let begin = std::time::Instant::now();
    while !api.raw("GET /metrics", String::new()).await.1.lines().any(|line| line == lost) {
        assert!(begin.elapsed().as_secs() < 20, "{lost}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(of(&log, "huge").is_empty());
}

#[tokio::test]
async fn events_are_text_for_who_wants_that() {
    let Audited { test, log, _dir } = start_with(POLICY, |log| log.format = AuditFormat::Legacy).await;
    let api = test.admin();
    let headers = [("audit-id", "told"), ("user-agent", "tester/1")];
    let body = json!({"metadata": {"name": "one"}, "data": {"a": "hidden"}});
    api.send_with("POST /api/v1/namespaces/default/configmaps", body.to_string(), &headers).await;
    let text = std::fs::read_to_string(&log).unwrap();
    let line = text.lines().find(|line| line.contains(r#"id="told""#)).unwrap();
    let (time, rest) = line.split_once(' ').unwrap();
    time.parse::<jiff::Timestamp>().unwrap();
    assert_eq!(
        rest,
        r#"AUDIT: id="told" stage="ResponseComplete" ip="127.0.0.1" method="create" user="admin" groups="\"system:masters\",\"system:authenticated\"" as="<self>" asgroups="<lookup>" user-agent="tester/1" namespace="default" uri="/api/v1/namespaces/default/configmaps" response="201""#
    );
}
