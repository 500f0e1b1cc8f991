//! What clients that send too much, too slowly or too often get.

mod support;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use keelson_apiserver::{Config, UserInfo};
use serde_json::{Value, json};
use support::{TestServer, tls_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const CM: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn bodies_end_in_time_and_are_not_too_large() {
    let test = TestServer::start().await;
    let api = test.admin();
    let filler = "x".repeat(3 << 20);
    let (code, status) =
        api.call(&format!("POST {CM}"), json!({"metadata": {"name": "a"}, "data": {"x": filler}})).await;
    assert_eq!((code, &status["message"]), (413, &json!("Request entity too large: limit is 3145728")));
    // A body in many pieces that does not say its length.
    let post = |body| {
        let request = Request::post(CM).header("content-type", "application/json").body(body).unwrap();
        let service = test.server.service_for(UserInfo::new("admin", ["system:masters"]));
        async move {
            let response = service.oneshot(request).await.unwrap();
            (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
        }
    };
    let frame = |bytes: &'static [u8]| Ok::<_, Infallible>(Frame::data(Bytes::from_static(bytes)));
    let endless = futures::stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b' '; 65536]))));
    assert_eq!(post(StreamBody::new(endless.boxed())).await.0, 413);
    let pieces = [&br#"{"metadata":"#[..], br#"{"name":"#, br#""pieces"}}"#].map(frame);
    assert_eq!(post(StreamBody::new(futures::stream::iter(pieces).boxed())).await.0, 201);
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    let stalled = futures::stream::iter([frame(b"{")]).chain(futures::stream::pending());
    let (code, body) = post(StreamBody::new(stalled.boxed())).await;
    let status: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, &status["reason"]), (408, &json!("Timeout")));
    assert!(begin.elapsed() < Duration::from_secs(11), "{:?}", begin.elapsed());
    // One byte a second, for ever: the request's own time limit.
    let drops = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b" "))), ()))
    });
    let begin = tokio::time::Instant::now();
    assert_eq!(post(StreamBody::new(drops.boxed())).await.0, 504);
    assert!((59..62).contains(&begin.elapsed().as_secs()));
}

/// No store is asked: on paused time its answer would always come too late.
const FROM_MEMORY: &str = "?resourceVersion=0";

/// Objects whose list comes in more than one piece.
async fn large_list(test: &TestServer) {
    for name in ["a", "b"] {
        let object = json!({"metadata": {"name": name}, "data": {"x": "x".repeat(70_000)}});
        test.admin().ok(&format!("POST {CM}"), object).await;
    }
}

#[tokio::test]
async fn lists_that_nobody_reads_are_let_go() {
    let test = TestServer::start().await;
    large_list(&test).await;
    tokio::time::pause();
    let response = test.admin().send(&format!("GET {CM}{FROM_MEMORY}"), "").await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().unwrap().into_data().unwrap().len() > 60_000);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "the response was not read in time");
}

#[tokio::test]
async fn lists_keep_their_seats_until_they_are_read() {
    // Few seats: a level that needs more gets what others lend at once.
    let few = |config: &mut Config| (config.max_requests_inflight, config.max_mutating_requests_inflight) = (20, 10);
    let test = TestServer::start_with(few).await;
    large_list(&test).await;
    test.settled().await;
    // Somebody who may list them, and whose requests are not exempt.
    let api = test.api(UserInfo::new("system:kube-controller-manager", ["system:authenticated"]));
    // Who waits for a seat in vain has waited at once.
    tokio::time::pause();
    let mut unread = Vec::new();
    let refused = loop {
        let response = api.send(&format!("GET {CM}{FROM_MEMORY}"), "").await;
        if response.status() != 200 || unread.len() > 2000 {
            break response.status();
        }
        unread.push(response.into_body());
    };
    assert_eq!(refused, 429, "after {} lists", unread.len());
    assert_eq!(test.admin().call(&format!("GET {CM}{FROM_MEMORY}"), json!(null)).await.0, 200, "another level's seats");
    assert!(unread.pop().unwrap().collect().await.is_ok());
    assert_eq!(api.send(&format!("GET {CM}{FROM_MEMORY}"), "").await.status(), 200, "what was read is over");
    // What nobody reads is let go in the end, though it is still held here.
    tokio::time::sleep(Duration::from_secs(61)).await;
    for _ in 0..3 {
        assert_eq!(api.call(&format!("GET {CM}{FROM_MEMORY}"), json!(null)).await.0, 200);
    }
    drop(unread);
}

#[tokio::test]
async fn timeouts_are_honoured() {
    let test = TestServer::start().await;
    test.settled().await;
    let api = test.admin();
    for (timeout, code, message) in [
        ("1m", 200, ""),
        ("0s", 200, ""),
        ("10", 400, "invalid timeout specified in the request URL - time: missing unit in duration \"10\""),
        ("soon", 400, "invalid timeout specified in the request URL - time: invalid duration \"soon\""),
    ] {
        let (got, status) = api.call(&format!("GET {CM}?timeout={timeout}"), json!(null)).await;
        assert_eq!(got, code, "{timeout}: {status}");
        assert_eq!(status["message"].as_str().unwrap_or_default(), message);
    }
    // On paused time a millisecond passes as soon as the server waits for the disk. A disk may be faster than that once.
    tokio::time::pause();
    let message = "Timeout: request did not complete within requested timeout - context deadline exceeded";
    for attempt in 0..100 {
        let map = json!({"metadata": {"name": format!("a{attempt}")}});
        let (code, status) = api.call(&format!("POST {CM}?timeout=1ms"), map).await;
        if code != 201 {
            return assert_eq!((code, status["message"].as_str().unwrap()), (504, message));
        }
    }
    panic!("no request timed out");
}

#[tokio::test]
async fn headers_are_bounded() {
    let test = TestServer::start().await;
    let address = test.listen();
    let mut stream = tls_connect(&test.pki, address, None, b"http/1.1").await;
    let head = format!("GET /version HTTP/1.1\r\nHost: localhost\r\nX-Much: {}\r\n\r\n", "x".repeat(128 << 10));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

/// An HTTP/2 frame of a stream.
fn h2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Requests on a connection of their own, each taken back as soon as it is sent, then one that is not. The answer's code, or
/// why the connection was ended.
async fn flood(test: &TestServer, address: std::net::SocketAddr, resets: u32) -> Result<u8, u32> {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const END_STREAM_AND_HEADERS: u8 = 5;
    // In HPACK: `:method: GET`, `:scheme: https`, `:path: /version`, `:authority: localhost`.
    let get = b"\x82\x87\x04\x08/version\x01\x09localhost";
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(h2_frame(SETTINGS, 0, 0, &[]));
    for stream in (1..).step_by(2).take(resets as usize) {
        sent.extend(h2_frame(HEADERS, END_STREAM_AND_HEADERS, stream, get));
        sent.extend(h2_frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let last = resets * 2 + 1;
    sent.extend(h2_frame(HEADERS, END_STREAM_AND_HEADERS, last, get));
    let mut tls = tls_connect(&test.pki, address, None, b"h2").await;
    // In one piece: the server sees all of it before it answers any.
    tls.write_all(&sent).await.unwrap();
    loop {
        let mut head = [0; 9];
        tls.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        tls.read_exact(&mut payload).await.unwrap();
        match head[3] {
            GOAWAY => return Err(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
            // `:status: 200` is 8 of the static table.
            HEADERS if stream == last => return Ok(payload[0] & 0x7f),
            _ => {}
        }
    }
}

#[tokio::test]
async fn reset_floods_harm_nobody_else() {
    let test = TestServer::start().await;
    let address = test.listen();
    // What a busy client may do.
    assert_eq!(flood(&test, address, 50).await, Ok(8));
    const ENHANCE_YOUR_CALM: u32 = 11;
    assert_eq!(flood(&test, address, 400).await, Err(ENHANCE_YOUR_CALM));
    let mut other = tls_connect(&test.pki, address, None, b"http/1.1").await;
    other.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = other.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn watches_end_properly_when_the_server_stops() {
    let test = TestServer::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (server, stop) = (test.server.clone(), CancellationToken::new());
    let serving = tokio::spawn({
        let stop = stop.clone();
        async move { server.serve(listener, stop).await }
    });
    let admin = || Some(test.pki.issue("admin", &["system:masters"]));
    let mut one = tls_connect(&test.pki, address, admin(), b"http/1.1").await;
    one.write_all(format!("GET {CM}?watch=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let two = tls_connect(&test.pki, address, admin(), b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(two)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("https://localhost{CM}?watch=1")).body(Empty::<Bytes>::new()).unwrap();
    let mut watch = sender.send_request(request).await.unwrap().into_body();
    test.admin().ok(&format!("POST {CM}"), json!({"metadata": {"name": "a"}})).await;
    assert!(watch.frame().await.unwrap().unwrap().into_data().unwrap().starts_with(br#"{"type":"ADDED""#));
    stop.cancel();
    let ends = async {
        let mut text = String::new();
        one.read_to_string(&mut text).await.unwrap();
        assert!(text.contains(r#"{"type":"ADDED""#) && text.ends_with("\r\n0\r\n\r\n"), "{text}");
        while let Some(frame) = watch.frame().await {
            assert_eq!(frame.expect("an end, not an error").into_data().unwrap(), Bytes::new());
        }
        drop(sender);
        connection.await.unwrap().unwrap();
        serving.await.unwrap().unwrap();
    };
    tokio::time::timeout(Duration::from_secs(20), ends).await.unwrap();
}
