//! An aggregated API server of the test's own, over TLS on loopback: it believes who a request is from only when its front
//! proxy's certificate comes with it, and does as it is told.

#![allow(unreachable_pub, reason = "one test binary's own")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::{Api, Pki, TestServer};

pub const GROUP: &str = "weather.example.com";
pub const ROOT: &str = "/apis/weather.example.com/v1";
pub const REPORTS: &str = "/apis/weather.example.com/v1/namespaces/default/reports";
pub const APISERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the server does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Works,
    /// Everything is elsewhere.
    Redirects,
    /// Never answers.
    Hangs,
    /// Answers without end.
    Floods,
    /// Answers discovery and OpenAPI with something else.
    Lies,
    /// Knows no aggregated discovery, and no OpenAPI v3.
    IsOld,
    Breaks,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: HeaderMap,
}

pub struct Extension {
    pub address: SocketAddr,
    pub mood: Arc<Mutex<Mood>>,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub sent_bytes: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
}

impl Extension {
    /// Serves on a free port, or on `port`.
    pub async fn serve(pki: &Pki, port: u16) -> Self {
        let (certificate, key) = pki.issue_for("weather.default.svc", "weather", &[]);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pki.ca_pem.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let extension = Self {
            address,
            mood: Arc::new(Mutex::new(Mood::Works)),
            seen: Arc::default(),
            sent_bytes: Arc::default(),
            stop,
        };
        let shared = (extension.mood.clone(), extension.seen.clone(), extension.sent_bytes.clone());
        tokio::spawn(async move {
            let mut end = stopped.clone();
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    _ = end.changed() => return,
                };
                let (acceptor, shared, mut end) = (acceptor.clone(), shared.clone(), stopped.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| {
                        let (mood, seen, sent) = shared.clone();
                        async move { Ok::<_, Infallible>(answer(request, &mood, &seen, sent).await) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades();
                    tokio::select! {
                        _ = connection => {}
                        _ = end.changed() => {}
                    }
                });
            }
        });
        extension
    }

    /// Closes the listener and all connections.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub fn is(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    /// The request lines that were about resources.
    pub fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock();
        seen.iter().map(|seen| seen.line.clone()).filter(|line| line.contains("/reports")).collect()
    }

    /// The last request of this line.
    pub fn last(&self, line: &str) -> Seen {
        self.seen.lock().iter().rev().find(|seen| seen.line == line).cloned().unwrap()
    }
}

/// A Service for the server. Upstream takes endpoints on loopback from nobody, but asks an ExternalName's host.
pub fn service() -> Value {
    json!({"metadata": {"name": "weather"}, "spec": {"type": "ExternalName", "externalName": "localhost"}})
}

pub fn api_service(port: u16, more: Value) -> Value {
    let mut spec = json!({
        "group": GROUP, "version": "v1", "groupPriorityMinimum": 500, "versionPriority": 15,
        "service": {"namespace": "default", "name": "weather", "port": port},
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": format!("v1.{GROUP}")}, "spec": spec})
}

pub fn bundle(pki: &Pki) -> Value {
    json!({"caBundle": base64::prelude::BASE64_STANDARD.encode(&pki.ca_pem)})
}

/// What the condition says.
pub fn condition(api_service: &Value) -> (&str, &str, &str) {
    let condition = &api_service["status"]["conditions"][0];
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    (text("status"), text("reason"), text("message"))
}

/// Waits until the condition has this reason.
pub async fn becomes(api: &Api, reason: &str) -> Value {
    let path = format!("GET {APISERVICES}/v1.{GROUP}");
    api.eventually(&path, |_, object| condition(object).1 == reason).await
}

/// Makes an APIService that leads to the extension.
pub async fn point_to(test: &TestServer, extension: &Extension) {
    let api = test.admin();
    api.ok("POST /api/v1/namespaces/default/services", service()).await;
    api.ok(&format!("POST {APISERVICES}"), api_service(extension.address.port(), bundle(&test.pki))).await;
    becomes(&api, "Passed").await;
}

/// A server whose APIService leads to the extension, which is up.
pub async fn aggregated(test: &TestServer) -> Extension {
    let extension = Extension::serve(&test.pki, 0).await;
    point_to(test, &extension).await;
    let api = test.admin();
    api.eventually(&format!("GET {REPORTS}"), |code, _| code == 200).await;
    extension.seen.lock().clear();
    extension
}

async fn answer(
    mut request: Request<Incoming>,
    mood: &Mutex<Mood>,
    seen: &Mutex<Vec<Seen>>,
    sent: Arc<AtomicUsize>,
) -> Response<Body> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let line = format!("{} {path}", request.method());
    seen.lock().push(Seen { line: line.clone(), headers: request.headers().clone() });
    let mood = *mood.lock();
    let about_itself = !path.contains("/reports");
    match mood {
        Mood::Hangs if !about_itself => {
            std::future::pending::<()>().await;
        }
        Mood::Redirects if !about_itself => {
            let response = Response::builder().status(302).header("location", "https://127.0.0.1:1/stolen");
            return response.body(full("go there")).unwrap();
        }
        Mood::Breaks => return Response::builder().status(500).body(full("broken")).unwrap(),
        Mood::Lies if about_itself => return document(&json!({"kind": "Nonsense", "items": 7})),
        // Its head says that it is there.
        Mood::Floods => return flood(sent),
        _ => {}
    }
    if path.ends_with("/attach") {
        if request.headers().get("upgrade").is_none_or(|upgrade| upgrade != "echo") {
            return Response::builder().status(403).body(full("no upgrade for you")).unwrap();
        }
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let (mut reader, mut writer) = tokio::io::split(&mut io);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        return response.header("connection", "Upgrade").header("upgrade", "echo").body(full("")).unwrap();
    }
    if path.contains("watch=1") {
        let events = futures::stream::iter(0..3).then(|i| async move {
            if i > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let event = json!({"type": "ADDED", "object": {"metadata": {"name": format!("r{i}")}}});
            Ok(Frame::data(Bytes::from(format!("{event}\n"))))
        });
        let open = events.chain(futures::stream::pending());
        let response = Response::builder().header("content-type", "application/json");
        return response.body(StreamBody::new(open).boxed_unsync()).unwrap();
    }
    if request.method() == "POST" {
        let mut body = request.into_body();
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
        }
        return document(&json!({"received": length}));
    }
    if path == "/apis" && mood != Mood::IsOld {
        return aggregated_discovery(request.headers());
    }
    match path.split('?').next().unwrap() {
        "/apis" => document(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [{"name": GROUP}]})),
        REPORTS => document(&json!({"kind": "ReportList", "apiVersion": format!("{GROUP}/v1"), "items": []})),
        ROOT => document(&json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/v1"),
            "resources": [{"name": "reports", "singularName": "report", "namespaced": true, "kind": "Report",
                "verbs": ["create", "get", "list", "watch"], "shortNames": ["rep"]}],
        })),
        "/openapi/v3" if mood != Mood::IsOld => document(&json!({"paths": {
            "apis/weather.example.com/v1": {"serverRelativeURL": "/openapi/v3/apis/weather.example.com/v1?hash=ab"},
            "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=mischief"},
        }})),
        "/openapi/v3/apis/weather.example.com/v1" => document(&json!({
            "openapi": "3.0.0", "components": {"schemas": {"Report": {"description": "What the weather was."}}},
        })),
        "/openapi/v2" => document(&json!({
            "swagger": "2.0",
            "paths": {REPORTS: {"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/Report"}}}}}, "/apis/apps/v1/x": {}},
            "definitions": {"Report": {"description": "What the weather was.", "type": "object"}, "Other": {}},
        })),
        _ => Response::builder().status(404).body(full("404 page not found")).unwrap(),
    }
}

const ETAG: &str = "\"one\"";

/// Also of a group version that nobody asked it for.
fn aggregated_discovery(headers: &HeaderMap) -> Response<Body> {
    if headers.get("if-none-match").is_some_and(|known| known == ETAG) {
        return Response::builder().status(304).header("etag", ETAG).body(full("")).unwrap();
    }
    let resource = |name: &str, kind: &str| {
        json!({
            "resource": name, "singularResource": kind.to_lowercase(), "scope": "Namespaced",
            "responseKind": {"group": GROUP, "version": "v1", "kind": kind}, "shortNames": ["rep"],
            "verbs": ["create", "get", "list", "watch"], "mischief": {"a": "b"},
            "subresources": [{"subresource": "attach", "responseKind": null, "verbs": ["get"]}],
        })
    };
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": [
            {"metadata": {"name": GROUP}, "versions": [
                {"version": "v1", "resources": [resource("reports", "Report")], "freshness": "Stale"},
                {"version": "v7", "resources": [resource("wonders", "Wonder")]},
            ]},
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [resource("pods", "Pod")]}]},
        ],
    });
    let mut response = document(&list);
    response.headers_mut().insert("etag", ETAG.parse().unwrap());
    response
}

fn flood(sent: Arc<AtomicUsize>) -> Response<Body> {
    let block = Bytes::from(vec![b' '; 64 << 10]);
    let blocks = futures::stream::repeat_with(move || {
        sent.fetch_add(block.len(), Ordering::Relaxed);
        Ok(Frame::data(block.clone()))
    });
    Response::builder().header("content-type", "application/json").body(StreamBody::new(blocks).boxed_unsync()).unwrap()
}

fn document(value: &Value) -> Response<Body> {
    Response::builder().header("content-type", "application/json").body(full(&value.to_string())).unwrap()
}

fn full(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned())).boxed_unsync()
}
