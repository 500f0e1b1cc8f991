//! Calls to webhooks: HTTPS servers that somebody runs to be asked about objects, named by URL or as a Service. One client
//! per configuration keeps its connections; every call has a time limit and a limit on the answer, and redirects are not
//! followed. What is asked and answered is the caller's: conversion here, admission later.

pub(crate) mod connect;
pub(crate) mod fetch;
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

/// Longest answer, unless the caller wants less: a webhook converts a whole batch of objects at once.
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
    max_answer_bytes: usize,
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
        Self { client, url, credentials, max_answer_bytes: MAX_ANSWER_BYTES }
    }

    /// With another limit on answers.
    pub(crate) fn with_limit(mut self, bytes: usize) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// Posts a review and returns the answer.
    pub(crate) async fn call(&self, review: &Value, timeout: Duration) -> Result<Value, Error> {
        self.ask(Bytes::from(review.to_string()), timeout).await
    }

    /// Posts JSON and returns the JSON that is answered.
    pub(crate) async fn ask(&self, body: Bytes, timeout: Duration) -> Result<Value, Error> {
        let (status, body) = self.post(body, timeout).await?;
        // As upstream's client.
        if !(200..=206).contains(&status.as_u16()) {
            return Err(Error(refusal(status, &body)));
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
            let response = self.client.request(request).await.map_err(|e| fail(why(&e)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), self.max_answer_bytes).collect().await;
            Ok((status, body.map_err(|e| fail(format!("reading the answer: {e}")))?.to_bytes()))
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(fail("context deadline exceeded".into())),
        }
    }
}

/// What upstream's client says of a status that is no success.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    const SHOWN_BYTES: usize = 2048;
    let code = status.as_u16();
    match code {
        400 => "the server rejected our request for an unknown reason".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        403 => "the server does not allow access to the requested resource".into(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        413 => "the server responded with the status code 413 but did not return more information".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .into()
        }
        500.. => {
            let shown = String::from_utf8_lossy(body.get(..SHOWN_BYTES).unwrap_or(body));
            // A document is not shown.
            let shown = if shown.starts_with('{') { "unknown" } else { shown.trim() };
            format!("an error on the server ({shown:?}) has prevented the request from succeeding")
        }
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}

/// Why a request failed: of one that did not get through, what the connector says.
fn why(error: &hyper_util::client::legacy::Error) -> String {
    use std::error::Error as _;
    match error.source().filter(|_| error.is_connect()) {
        Some(source) => chain(source),
        None => chain(error),
    }
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
