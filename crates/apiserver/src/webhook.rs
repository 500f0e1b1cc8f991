//! Calls to webhooks: HTTPS servers that somebody runs to be asked about objects, named by URL or as a Service. One client
//! per configuration keeps its connections; every call has a time limit and a limit on the answer, and redirects are not
//! followed. What is asked and answered is the caller's: conversion here, admission later.

pub(crate) mod connect;
pub(crate) mod kubeconfig;

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;

use self::connect::Connector;
use self::kubeconfig::Credentials;
use crate::core::Core;

/// Longest answer: a webhook converts a whole batch of objects at once.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(90);

/// Why a call failed, in the words of upstream's client.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Error(String);

/// A webhook.
pub(crate) struct Webhook {
    client: HyperClient<Connector, Full<Bytes>>,
    url: String,
    credentials: Credentials,
}

impl Webhook {
    /// From a `WebhookClientConfig` (`url` or `service`, `caBundle`), which has been validated.
    pub(crate) fn new(core: Weak<Core>, config: &Value) -> Result<Self, Error> {
        let service = &config["service"];
        let (connector, url) = if service.is_object() {
            let text = |key: &str| service[key].as_str().unwrap_or_default();
            let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
            let host = format!("{}.{}.svc", text("name"), text("namespace"));
            let path = text("path").trim_start_matches('/');
            let connector = Connector::to_service(core, text("namespace"), text("name"), port, config)?;
            (connector, format!("https://{host}:{port}/{path}"))
        } else {
            (Connector::to_url(config)?, config["url"].as_str().unwrap_or_default().to_owned())
        };
        Ok(Self::over(connector, url, Credentials::None))
    }

    fn over(connector: Connector, url: String, credentials: Credentials) -> Self {
        let client = HyperClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { client, url, credentials }
    }

    /// Posts a review and returns the answer.
    pub(crate) async fn call(&self, review: &Value, timeout: Duration) -> Result<Value, Error> {
        let (status, body) = self.post(Bytes::from(review.to_string()), timeout).await?;
        // As upstream's client.
        if !(200..=206).contains(&status.as_u16()) {
            return Err(Error(refusal(status)));
        }
        let decoded = keelson_api::codec::json::decode(&body);
        Ok(decoded.map_err(|e| Error(format!("Post {:?}: reading the answer: {e}", self.url)))?.value)
    }

    /// Posts JSON and returns what was answered, whatever the status.
    pub(crate) async fn post(&self, body: Bytes, timeout: Duration) -> Result<(StatusCode, Bytes), Error> {
        let url = format!("{}?timeout={}s", self.url, timeout.as_secs());
        let fail = |why: String| Error(format!("Post {url:?}: {why}"));
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&url)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, "kube-apiserver-admission");
        if let Some(authorization) = self.credentials.header().map_err(|e| fail(e.to_string()))? {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|e| fail(e.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|e| fail(chain(&e)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(|e| fail(format!("reading the answer: {e}")))?.to_bytes()))
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(fail("context deadline exceeded".into())),
        }
    }
}

/// What upstream's client says of a status that is no success.
fn refusal(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or_default();
    format!("the server responded with the status code {} {reason}", status.as_u16())
}

/// An error and what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
