//! Requests over TLS, and who the server takes their sender for.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::support::{Pki, TestServer, tls_connect};

/// Certificate and key.
pub type Identity = Option<(String, String)>;

/// Sends one request on a connection of its own; answers with code and body.
pub async fn send(
    pki: &Pki,
    address: SocketAddr,
    identity: Identity,
    request: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> (u16, Value) {
    let stream = tls_connect(pki, address, identity, b"http/1.1").await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let task = tokio::spawn(connection);
    let answer = exchange(&mut sender, request, headers, body).await;
    drop(sender);
    let _ = task.await;
    answer
}

/// One request on a connection.
pub async fn exchange(
    sender: &mut hyper::client::conn::http1::SendRequest<Full<bytes::Bytes>>,
    request: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> (u16, Value) {
    let (method, path) = request.split_once(' ').unwrap();
    let mut request = http::Request::builder().method(method).uri(path).header("host", "test");
    request = request.header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let response = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

pub const WHO_REQUEST: &str = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";

/// The server takes the sender for this user, or answers with a code that is no success.
pub async fn whoami(
    test: &TestServer,
    address: SocketAddr,
    identity: Identity,
    headers: &[(&str, &str)],
) -> Result<Value, u16> {
    let (code, answer) = send(&test.pki, address, identity, WHO_REQUEST, headers, json!({})).await;
    if code == 201 { Ok(answer["status"]["userInfo"].clone()) } else { Err(code) }
}

/// As [`whoami`], for a bearer of a token.
pub async fn bearer(test: &TestServer, address: SocketAddr, token: &str) -> Result<Value, u16> {
    whoami(test, address, None, &[("authorization", &format!("Bearer {token}"))]).await
}
