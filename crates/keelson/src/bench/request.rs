//! Requests as the benches send them: over TLS, the whole answer read and thrown away.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::cli::Failure;

/// What came back.
pub(super) struct Answer {
    pub(super) bytes: usize,
    /// From sending the request to the first bytes of the answer's body, and to its end.
    pub(super) first: Duration,
    pub(super) total: Duration,
}

/// Sends a request and reads the whole answer.
pub(super) async fn send(
    client: &kube::Client,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Result<Answer, Failure> {
    let start = Instant::now();
    let mut body = open(client, method, path, body).await?.into_body();
    let (mut bytes, mut first) = (0, None);
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
        first.get_or_insert_with(|| start.elapsed());
    }
    let total = start.elapsed();
    Ok(Answer { bytes, first: first.unwrap_or(total), total })
}

/// Sends a request; a refusal is an error.
pub(super) async fn open(
    client: &kube::Client,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Result<Response<kube::client::Body>, Failure> {
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header("content-type", content_type).body(body.into())?;
    let response = client.send(request).await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.into_body().collect().await?.to_bytes();
    Err(format!("{method} {path}: {status}: {}", String::from_utf8_lossy(&text)).into())
}

/// Operations a second.
pub(super) async fn load<F, T>(count: usize, in_flight: usize, operation: impl Fn(usize) -> F) -> Result<f64, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let start = Instant::now();
    futures::stream::iter(0..count)
        .map(operation)
        .buffer_unordered(in_flight)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
