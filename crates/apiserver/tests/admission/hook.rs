//! A webhook: an HTTPS server that answers as the test says, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::support::{Pki, TestServer};

pub const BASE: &str = "/apis/admissionregistration.k8s.io/v1";

pub type Answer = http::Response<Full<Bytes>>;
type Handler = Arc<dyn Fn(String, Value) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A running webhook.
#[derive(Clone)]
pub struct Hook {
    pub address: SocketAddr,
    bundle: String,
    /// Path and review of each call.
    calls: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Hook {
    /// Answers each review with what `answer` makes of its path and request, as the review's `response`.
    pub async fn start(server: &TestServer, answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        Self::raw(&server.pki, move |path, review| {
            let response = answer(&path, &review["request"]);
            Box::pin(async move { reply(200, &respond(&review, response)) })
        })
        .await
    }

    /// Answers each request as `handler` says.
    pub async fn raw(
        pki: &Pki,
        handler: impl Fn(String, Value) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    ) -> Self {
        let (certificate, key) = pki.issue("webhook", &[]);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        );
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let (handler, remembered): (Handler, _) = (Arc::new(handler), calls.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, handler, calls) = (acceptor.clone(), handler.clone(), remembered.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (handler, calls) = (handler.clone(), calls.clone());
                        async move {
                            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
                            let body = request.into_body().collect().await?.to_bytes();
                            let review: Value = serde_json::from_slice(&body).unwrap_or_default();
                            calls.lock().push((path.clone(), review.clone()));
                            Ok::<_, hyper::Error>(handler(path, review).await)
                        }
                    });
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                });
            }
        });
        Self { address, bundle: BASE64_STANDARD.encode(&pki.ca_pem), calls }
    }

    /// The reviews so far, which are forgotten.
    pub fn take(&self) -> Vec<Value> {
        self.take_calls().into_iter().map(|(_, review)| review).collect()
    }

    pub fn take_calls(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.calls.lock())
    }

    /// A webhook of a configuration: this server, at `/name`, for rules on these resources. `more` goes into it.
    pub fn webhook(&self, name: &str, resources: &[&str], more: Value) -> Value {
        let config =
            json!({"url": format!("https://127.0.0.1:{}/{name}", self.address.port()), "caBundle": self.bundle});
        let mut webhook = json!({
            "name": format!("{name}.example.com"), "clientConfig": config,
            "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}],
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            webhook[key] = value.clone();
        }
        webhook
    }
}

/// The answer to a review.
pub fn respond(review: &Value, mut response: Value) -> Value {
    if response["uid"].is_null() {
        response["uid"] = review["request"]["uid"].clone();
    }
    json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})
}

pub fn reply(code: u16, body: &Value) -> Answer {
    http::Response::builder().status(code).body(Full::new(body.to_string().into())).unwrap()
}

/// A response that lets pass.
pub fn allowed() -> Value {
    json!({"allowed": true})
}

/// A response that patches.
pub fn patched(patch: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(patch.to_string())})
}

/// A response that refuses.
pub fn denied(message: &str) -> Value {
    json!({"allowed": false, "status": {"message": message}})
}

/// Writes a configuration of webhooks (`mutating` or `validating`), which acts at once.
pub async fn configure(server: &TestServer, kind: &str, name: &str, webhooks: Value) {
    let path = format!("{BASE}/{kind}webhookconfigurations");
    server.admin().ok(&format!("POST {path}"), json!({"metadata": {"name": name}, "webhooks": webhooks})).await;
}

pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}
