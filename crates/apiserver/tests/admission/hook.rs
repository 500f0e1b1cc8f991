//! A webhook: an HTTPS server that answers as the test says, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::future::BoxFuture;
use http_body_util::Full;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::https::{Answer, Https};
use crate::support::{Pki, TestServer};

pub const BASE: &str = "/apis/admissionregistration.k8s.io/v1";

/// A running webhook.
#[derive(Clone)]
pub struct Hook {
    pub address: SocketAddr,
    bundle: String,
    /// Path and review of each call.
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    _server: Arc<Https>,
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
        let calls: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let remembered = calls.clone();
        let server = Https::start(pki, move |request| {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            let review: Value = serde_json::from_slice(request.body()).unwrap_or_default();
            remembered.lock().push((path.clone(), review.clone()));
            handler(path, review)
        })
        .await;
        let (address, bundle) = (server.address, BASE64_STANDARD.encode(&pki.ca_pem));
        Self { address, bundle, calls, _server: Arc::new(server) }
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
