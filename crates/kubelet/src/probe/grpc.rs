//! gRPC probes: `grpc.health.v1.Health/Check`, encoded by hand (one string in, one number out).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{Outcome, tcp};

/// `HealthCheckResponse.SERVING`.
const SERVING: u64 = 1;
/// Longest answer, bytes.
const MAX_ANSWER: usize = 64 << 10;

pub(super) async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = tcp::join(host, port);
    match tokio::time::timeout(timeout, check(host, port, service)).await {
        Err(_) => Outcome::Failure(format!(
            "timeout: failed to connect service {address:?} within {}s: context deadline exceeded",
            timeout.as_secs()
        )),
        Ok(Ok(SERVING)) => Outcome::Success,
        Ok(Ok(status)) => {
            let name = match status {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                _ => "SERVICE_UNKNOWN",
            };
            Outcome::Failure(format!("service unhealthy (responded with {name:?})"))
        }
        Ok(Err(error)) => Outcome::Failure(error),
    }
}

async fn check(host: &str, port: u16, service: &str) -> Result<u64, String> {
    let address = tcp::join(host, port);
    let stream = TcpStream::connect((host, port)).await.map_err(|error| {
        format!("timeout: failed to connect service {address:?}: {}", tcp::dial_error(host, port, &error))
    })?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let _stop = tokio_util::task::AbortOnDropHandle::new(connection);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("user-agent", "kube-probe/1.35")
        .header("te", "trailers")
        .body(Full::new(encode(service)))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let early = grpc_error(response.headers());
    let collected =
        Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    let late = collected.trailers().and_then(grpc_error);
    if let Some(error) = early.or(late) {
        return Err(error);
    }
    decode(&collected.to_bytes()).ok_or_else(|| "malformed answer of grpc.health.v1.Health".into())
}

fn grpc_error(headers: &http::HeaderMap) -> Option<String> {
    let code = headers.get("grpc-status")?.to_str().ok()?;
    match code {
        "0" => None,
        "12" => Some(format!(
            "this server does not implement the grpc health protocol (grpc.health.v1.Health): rpc error: code = {code}"
        )),
        _ => Some(format!("rpc error: code = {code}")),
    }
}

/// The framed request: field 1, a string.
fn encode(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        prost::encoding::encode_varint(service.len() as u64, &mut message);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}

/// The status in a framed answer: field 1, an enum; absent means 0.
fn decode(framed: &[u8]) -> Option<u64> {
    let mut message = framed.get(5..)?;
    while let Some((tag, rest)) = message.split_first() {
        message = rest;
        let value = prost::encoding::decode_varint(&mut message).ok()?;
        match tag {
            0x08 => return Some(value),
            tag if tag & 7 == 2 => message = message.get(usize::try_from(value).ok()?..)?,
            tag if tag & 7 == 0 => {}
            _ => return None,
        }
    }
    Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        assert_eq!(encode("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(encode("ab").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(decode(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(decode(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(decode(&[0, 0]), None);
        assert_eq!(decode(&[0, 0, 0, 0, 2, 0x0a, 200]), None);
    }
}
