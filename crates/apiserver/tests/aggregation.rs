//! Group versions of another server, which is one of the test's own.

#[path = "aggregation/documents.rs"]
mod documents;
#[path = "aggregation/extension.rs"]
mod extension;
mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use extension::{
    APISERVICES, Extension, GROUP, Mood, REPORTS, ROOT, aggregated, api_service, becomes, bundle, condition, service,
};
use http_body_util::BodyExt;
use keelson_apiserver::UserInfo;
use serde_json::{Value, json};
use support::{Api, TestServer, tls_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn start() -> TestServer {
    start_with(Duration::from_secs(60)).await
}

async fn start_with(timeout: Duration) -> TestServer {
    TestServer::start_with(|config| {
        // The test's authority signs everybody.
        config.proxy_client = config.serving.clone();
        config.request_timeout = timeout;
    })
    .await
}

/// Lets `user` do anything with reports.
async fn allow(api: &Api, user: &str, resources: &[&str]) {
    let rules = json!([{"apiGroups": [GROUP], "resources": resources, "verbs": ["*"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    api.ok(&format!("POST {rbac}/clusterroles"), json!({"metadata": {"name": "reporter"}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": "reporter"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reporter"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    api.ok(&format!("POST {rbac}/clusterrolebindings"), binding).await;
}

#[tokio::test]
async fn requests_go_on_in_the_users_name() {
    let test = start().await;
    let extension = aggregated(&test).await;
    allow(&test.admin(), "jane", &["reports"]).await;
    let mut jane = UserInfo::new("jane", ["weather people"]);
    jane.extra.insert("example.com/Desk".into(), vec!["7".into()]);
    let jane = test.api(jane);
    let forged = [
        ("x-remote-user", "root"),
        ("x-remote-group", "system:masters"),
        ("x-remote-extra-scopes", "all"),
        ("x-remote-uid", "0"),
        ("authorization", "Bearer secret"),
        ("connection", "x-remote-user, x-remote-group, x-hop"),
        ("x-hop", "1"),
        ("x-mine", "1"),
    ];
    let response = jane.send_with(&format!("GET {REPORTS}?limit=5"), "", &forged).await;
    assert_eq!(response.status(), 200);
    let seen = extension.last(&format!("GET {REPORTS}?limit=5"));
    let of = |name: &str| -> Vec<_> { seen.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect() };
    assert_eq!(of("x-remote-user"), ["jane"]);
    assert_eq!(of("x-remote-group"), ["weather people", "system:authenticated"]);
    assert_eq!(of("x-remote-extra-example.com%2Fdesk"), ["7"]);
    for name in ["x-remote-uid", "x-remote-extra-scopes", "authorization", "x-hop"] {
        assert!(of(name).is_empty(), "{name}");
    }
    assert_eq!((of("x-mine"), of("host").len()), (vec!["1"], 1));
    assert_eq!(of("audit-id"), [response.headers()["audit-id"].to_str().unwrap()], "one number everywhere");

    // Who may not, does not get there; nor does a path that the other server may read otherwise.
    let (code, status) =
        test.api(UserInfo::new("joe", ["system:authenticated"])).call(&format!("GET {REPORTS}"), json!(null)).await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
    for path in
        [format!("{ROOT}//namespaces/default/reports"), format!("{REPORTS}/a%2Fstatus"), format!("{ROOT}/watch")]
    {
        let (code, answer) = jane.call(&format!("GET {path}"), json!(null)).await;
        assert!(matches!(code, 403 | 404), "{path}: {answer}");
    }
    assert_eq!(extension.lines(), [format!("GET {REPORTS}?limit=5")]);
}

#[tokio::test]
async fn conditions_say_why_a_server_is_not_available() {
    let test = start().await;
    let api = test.admin();
    let extension = Extension::serve(&test.pki, 0).await;
    let port = extension.address.port();
    api.ok(&format!("POST {APISERVICES}"), api_service(port, bundle(&test.pki))).await;
    let object = becomes(&api, "ServiceNotFound").await;
    assert_eq!(condition(&object), ("False", "ServiceNotFound", "service/weather in \"default\" is not present"));
    let (code, text, _) = api.raw(&format!("GET {REPORTS}"), String::new()).await;
    assert_eq!((code, text.as_str()), (503, "service unavailable\n"));

    let services = "/api/v1/namespaces/default/services";
    let ports =
        |port: u16| json!({"metadata": {"name": "weather"}, "spec": {"ports": [{"name": "api", "port": port}]}});
    api.ok(&format!("POST {services}"), ports(1)).await;
    let object = becomes(&api, "ServicePortError").await;
    let expected = format!("service/weather in \"default\" is not listening on port {port}");
    assert_eq!(condition(&object), ("False", "ServicePortError", expected.as_str()));
    api.ok(&format!("PATCH+merge {services}/weather"), json!({"spec": {"ports": [{"name": "api", "port": port}]}}))
        .await;
    let object = becomes(&api, "EndpointsNotFound").await;
    assert_eq!(condition(&object).2, "cannot find endpointslices for service/weather in \"default\"");
    let slice = json!({
        "metadata": {"name": "weather", "labels": {"kubernetes.io/service-name": "weather"}}, "addressType": "IPv4",
        "ports": [{"name": "api", "port": port}], "endpoints": [],
    });
    api.ok("POST /apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    let object = becomes(&api, "MissingEndpoints").await;
    let expected = "endpointslices for service/weather in \"default\" have no addresses with port name \"api\"";
    assert_eq!(condition(&object).2, expected);

    api.ok(&format!("DELETE {services}/weather"), json!(null)).await;
    becomes(&api, "ServiceNotFound").await;
    api.ok(&format!("POST {services}"), service()).await;
    let object = becomes(&api, "Passed").await;
    assert_eq!(condition(&object), ("True", "Passed", "all checks passed"));
    api.eventually(&format!("GET {REPORTS}"), |code, _| code == 200).await;
    let asked = extension.last(&format!("GET {ROOT}"));
    assert_eq!(asked.headers["x-remote-user"], "system:kube-aggregator");
    assert_eq!(asked.headers["x-remote-group"], "system:masters");

    // Only what says so is served by somebody else.
    api.ok(&format!("DELETE {APISERVICES}/v1.{GROUP}"), json!(null)).await;
    let status = api.eventually(&format!("GET {REPORTS}"), |code, _| code == 404).await;
    assert_eq!(status["message"], "the server could not find the requested resource");
    let local = api.ok(&format!("GET {APISERVICES}/v1.apps"), json!(null)).await;
    assert_eq!(condition(&local).1, "Local");
}

#[tokio::test]
async fn certificates_are_checked() {
    let test = start().await;
    let extension = aggregated(&test).await;
    let api = test.admin();
    // Another authority: the server is there, but nothing is sent to it.
    let path = format!("{APISERVICES}/v1.{GROUP}");
    let other = bundle(&support::Pki::new());
    api.ok(&format!("PATCH+merge {path}"), json!({"spec": other})).await;
    let text = api.eventually(&format!("GET {REPORTS}"), |code, _| code == 503).await;
    let text = text.as_str().unwrap();
    assert!(text.starts_with("error trying to reach service: ") && text.contains("certificate"), "{text}");
    assert!(extension.lines().is_empty());
    api.ok(&format!("PATCH+merge {path}"), json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}})).await;
    api.eventually(&format!("GET {REPORTS}"), |code, _| code == 200).await;
}

/// A server that answers nothing, breaks, or goes away costs those who ask it, and nobody else.
#[tokio::test]
async fn a_server_that_is_slow_or_gone() {
    let test = start_with(Duration::from_secs(3)).await;
    let extension = aggregated(&test).await;
    let api = test.admin();
    extension.is(Mood::Hangs);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let api = api.clone();
            tokio::spawn(async move { api.call(&format!("GET {REPORTS}"), json!(null)).await })
        })
        .collect();
    // All at once: one after the other, they would take longer than those wait for, where the store is slow.
    let others = (0..50).map(|_| api.ok("GET /api/v1/namespaces/default", json!(null)));
    futures::future::join_all(others).await;
    assert!(waiting.iter().all(|task| !task.is_finished()), "others are served meanwhile");
    for answer in waiting {
        let (code, status) = answer.await.unwrap();
        assert_eq!((code, &status["reason"]), (504, &json!("Timeout")), "{status}");
    }

    extension.is(Mood::Works);
    extension.stop();
    let (code, text, _) = api.raw(&format!("GET {REPORTS}"), String::new()).await;
    assert_eq!(code, 503);
    assert!(text.starts_with("error trying to reach service: "), "{text}");
    // The Service is touched, so the server is looked at.
    let touched = json!({"spec": {"externalName": "127.0.0.1"}});
    api.ok("PATCH+merge /api/v1/namespaces/default/services/weather", touched).await;
    let object = becomes(&api, "FailedDiscoveryCheck").await;
    assert!(condition(&object).2.starts_with("failing or missing response from https://weather.default.svc:"));
    let (code, text, _) = api.raw(&format!("GET {REPORTS}"), String::new()).await;
    assert_eq!((code, text.as_str()), (503, "service unavailable\n"));
    let again = Extension::serve(&test.pki, extension.address.port()).await;
    becomes(&api, "Passed").await;
    api.eventually(&format!("GET {REPORTS}"), |code, _| code == 200).await;
    again.is(Mood::Breaks);
    let (code, text, _) = api.raw(&format!("GET {REPORTS}"), String::new()).await;
    assert_eq!((code, text.as_str()), (500, "broken"), "its own errors are passed on");
}

/// What nobody reads is not fetched; what nobody takes is not read.
#[tokio::test]
async fn huge_bodies_are_not_kept() {
    let test = start().await;
    let extension = aggregated(&test).await;
    extension.is(Mood::Floods);
    let mut body = test.admin().send(&format!("GET {REPORTS}"), "").await.into_body();
    let mut read = 0;
    while read < (4 << 20) {
        read += body.frame().await.unwrap().unwrap().data_ref().unwrap().len();
    }
    // Whoever sends can only run ahead by what sockets hold.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let sent = extension.sent_bytes.load(Ordering::Relaxed);
        if sent == before {
            break;
        }
        before = sent;
    }
    assert!(before - read < 32 << 20, "{before} sent, {read} read");
    drop(body);

    extension.is(Mood::Works);
    let block = bytes::Bytes::from(vec![b' '; 24 << 20]);
    let response = test.admin().send(&format!("POST {REPORTS}"), block).await;
    let answer: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(answer["received"], 24 << 20, "more than this server's own limit");
}

#[tokio::test]
async fn watches_pass_events_as_they_come() {
    // Long enough for what is to be made first.
    let limit = Duration::from_secs(2);
    let test = start_with(limit).await;
    let _extension = aggregated(&test).await;
    let mut body = test.admin().send(&format!("GET {REPORTS}?watch=1"), "").await.into_body();
    let begin = Instant::now();
    for i in 0..3 {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().unwrap().unwrap();
        let event: Value = serde_json::from_slice(frame.data_ref().unwrap()).unwrap();
        assert_eq!(event["object"]["metadata"]["name"], format!("r{i}"));
    }
    // A watch outlives the limit on other requests.
    let more = tokio::time::timeout(limit + Duration::from_millis(100), body.frame()).await;
    assert!(more.is_err(), "{:?} {more:?}", begin.elapsed());
}

#[tokio::test]
async fn cve_2022_3172_redirects_are_refused() {
    let test = start().await;
    let extension = aggregated(&test).await;
    extension.is(Mood::Redirects);
    let response = test.admin().send(&format!("GET {REPORTS}"), "").await;
    assert_eq!(response.status(), 502);
    assert!(!response.headers().contains_key("location"));
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&*text, b"the backend attempted to redirect this request, which is not permitted\n");
    let upgrade = [("connection", "Upgrade"), ("upgrade", "echo")];
    let response = test.admin().send_with(&format!("GET {REPORTS}/a/attach"), "", &upgrade).await;
    assert_eq!(response.status(), 503);
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&*text, b"invalid upgrade response: status code 302\n");
}

/// The head of a response, and what of its body came with it.
async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    let mut block = [0; 4096];
    while !text.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut block)).await.unwrap().unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&block[..n]);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn upgrades_are_passed_through() {
    let test = start().await;
    let extension = aggregated(&test).await;
    let admin = test.pki.issue("admin", &["system:masters"]);
    let mut stream = tls_connect(&test.pki, test.listen(), Some(admin), b"http/1.1").await;
    let request =
        format!("POST {REPORTS}/a/attach HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(extension.last(&format!("POST {REPORTS}/a/attach")).headers["x-remote-user"], "admin");
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let expected = sent.clone();
    let write = async move {
        writer.write_all(&sent).await.unwrap();
        writer
    };
    let mut received = vec![0; expected.len()];
    let (_writer, read) = tokio::join!(write, reader.read_exact(&mut received));
    read.unwrap();
    assert!(received == expected);
}

/// An upgrade that the other server refuses leaves no way to it: what the client sends next is a request of its own, which
/// must be authorized.
#[tokio::test]
async fn cve_2018_1002105_a_failed_upgrade_opens_nothing() {
    let test = start().await;
    let extension = aggregated(&test).await;
    allow(&test.admin(), "mallory", &["reports/attach"]).await;
    let mallory = test.pki.issue("mallory", &[]);
    let mut stream = tls_connect(&test.pki, test.listen(), Some(mallory), b"http/1.1").await;
    let attach = format!("GET {REPORTS}/a/attach HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: other\r\n\r\n");
    let theft = format!(
        "GET {REPORTS} HTTP/1.1\r\nhost: x\r\nx-remote-user: admin\r\nx-remote-group: system:masters\r\nconnection: close\r\n\r\n"
    );
    // Both at once: whoever would pass bytes on blindly passes on the second.
    stream.write_all(format!("{attach}{theft}").as_bytes()).await.unwrap();
    let mut text = Vec::new();
    // How the connection ends does not matter.
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut text)).await.unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("no upgrade for you"), "{text}");
    assert!(!text.contains("ReportList"), "{text}");
    assert_eq!(extension.lines(), [format!("GET {REPORTS}/a/attach")]);
    assert_eq!(extension.last(&format!("GET {REPORTS}/a/attach")).headers["x-remote-user"], "mallory");
}

/// What this server shows is read again when its files change.
#[tokio::test]
async fn a_rotated_front_proxy_certificate_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("proxy.crt"), dir.path().join("proxy.key"));
    let write = |(text, secret): (String, String)| {
        for (path, text) in [(&key, secret), (&certificate, text)] {
            let next = path.with_extension("next");
            std::fs::write(&next, text).unwrap();
            std::fs::rename(next, path).unwrap();
        }
    };
    // Signed by somebody whom the other server does not trust.
    write(support::Pki::new().issue("front-proxy-client", &[]));
    let identity = keelson_apiserver::Identity { certificate: certificate.clone().into(), key: key.clone().into() };
    let test = TestServer::start_with(|config| config.proxy_client = Some(identity)).await;
    let extension = Extension::serve(&test.pki, 0).await;
    let api = test.admin();
    api.ok("POST /api/v1/namespaces/default/services", service()).await;
    api.ok(&format!("POST {APISERVICES}"), api_service(extension.address.port(), bundle(&test.pki))).await;
    becomes(&api, "FailedDiscoveryCheck").await;
    write(test.pki.issue("front-proxy-client", &[]));
    becomes(&api, "Passed").await;
    api.ok(&format!("GET {REPORTS}"), json!(null)).await;
    assert_eq!(extension.last(&format!("GET {REPORTS}")).headers["x-remote-user"], "admin");
}
