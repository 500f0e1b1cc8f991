//! Requests that are passed on to another server: kubelets, pods, aggregated servers. Bodies and upgraded bytes go through as
//! they come, both ways, held up by whoever reads slowly. Redirects are never followed.
//!
//! A connection that was to be upgraded serves nothing else, whether the upgrade came about or not (CVE-2018-1002105): what
//! the other server answers instead is passed on as a response, and nothing that the client sends after it.

use std::net::IpAddr;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, BodyStream};
use hyper::body::Incoming;
use keelson_api::status::Status;
use tokio_util::sync::CancellationToken;

use crate::BoxError;
use crate::http::body::{Body, RequestBody};
use crate::http::reply::Reply;
use crate::limits::StreamPermit;

/// Headers that concern one connection only.
const HOP_BY_HOP: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"];

/// One number for a request at all servers that it comes by.
pub(crate) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// An extension of requests that are passed on: where they came from.
#[derive(Clone)]
pub(crate) struct Origin {
    /// `None`: from within this process.
    pub(crate) address: Option<IpAddr>,
    pub(crate) audit_id: HeaderValue,
}

impl Origin {
    fn tell(self, headers: &mut HeaderMap) {
        headers.insert(AUDIT_ID, self.audit_id);
        let Some(address) = self.address else { return };
        let before: Vec<&[u8]> = headers.get_all(&FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
        let mut all = before.join(&b", "[..]);
        if !all.is_empty() {
            all.extend_from_slice(b", ");
        }
        all.extend_from_slice(address.to_string().as_bytes());
        if let Ok(all) = HeaderValue::from_bytes(&all) {
            headers.insert(FORWARDED_FOR, all);
        }
    }
}

/// Takes out of a request what is for this server only: who the client is, whom it acts for, and its connection. `uri` is
/// where it goes.
pub(crate) fn onward(request: Request<RequestBody>, uri: &str, host: &str) -> Result<Request<RequestBody>, Status> {
    let (mut parts, body) = request.into_parts();
    parts.uri = uri.parse().map_err(|e| Status::bad_request(format!("invalid path: {e}")))?;
    parts.version = http::Version::HTTP_11;
    let upgrade = keelson_streaming::upgrade::is_upgrade(&parts.headers);
    strip(&mut parts.headers, upgrade);
    if upgrade {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    parts.headers.insert(HOST, HeaderValue::from_str(host).map_err(Status::internal)?);
    parts.headers.remove(AUTHORIZATION);
    let personal =
        |name: &&HeaderName| name.as_str().starts_with("impersonate-") || name.as_str().starts_with("x-remote-");
    let personal: Vec<_> = parts.headers.keys().filter(personal).cloned().collect();
    for name in personal {
        parts.headers.remove(name);
    }
    if let Some(origin) = parts.extensions.remove::<Origin>() {
        origin.tell(&mut parts.headers);
    }
    parts.extensions = http::Extensions::new();
    Ok(Request::from_parts(parts, body))
}

/// Sends a request by `send` and answers with what comes back; an upgrade is spliced. `prepare` makes the request that goes
/// on.
pub(crate) async fn relay<F: Future<Output = Result<Response<Incoming>, Status>>>(
    mut request: Request<RequestBody>,
    prepare: impl FnOnce(Request<RequestBody>) -> Result<Request<RequestBody>, Status>,
    send: impl FnOnce(Request<RequestBody>) -> F,
    shutdown: &CancellationToken,
) -> Reply {
    let is_websocket = keelson_streaming::upgrade::is_websocket(request.headers());
    let upgrades = keelson_streaming::upgrade::is_upgrade(request.headers());
    let client_upgrade = upgrades.then(|| hyper::upgrade::on(&mut request));
    let permit = request.extensions_mut().remove::<StreamPermit>();
    let mut response = send(prepare(request)?).await?;
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client_upgrade) = client_upgrade else {
            return Err(Status::internal("the backend upgraded a connection that nobody asked it to"));
        };
        let backend_upgrade = hyper::upgrade::on(&mut response);
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let spliced = async {
                let (client, backend) = match tokio::try_join!(client_upgrade, backend_upgrade) {
                    Ok(both) => both,
                    Err(error) => return tracing::debug!(%error, "an upgrade failed"),
                };
                if let Err(error) = keelson_streaming::proxy::splice(client, backend, is_websocket).await {
                    tracing::debug!(%error, "an upgraded connection ended");
                }
            };
            let _ = shutdown.run_until_cancelled(spliced).await;
            drop(permit);
        });
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = response.headers().clone();
        return Ok(answer);
    }
    if upgrades && status.as_u16() < 400 {
        return Err(Status::new(500, "", format!("invalid upgrade response: status code {}", status.as_u16())));
    }
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers, false);
    // A page of another server's has no say over scripts of this one's.
    for name in ["credentials", "headers", "methods", "origin"] {
        parts.headers.remove(format!("access-control-allow-{name}"));
    }
    Ok(Response::from_parts(parts, stream(body, shutdown.clone())))
}

/// One request over a connection of its own.
pub(crate) async fn exchange<S>(stream: S, request: Request<RequestBody>) -> Result<Response<Incoming>, hyper::Error>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a backend connection broke");
        }
    });
    sender.send_request(request).await
}

/// Removes the headers of a connection, also those that `Connection` names.
fn strip(headers: &mut HeaderMap, keep_upgrade: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != UPGRADE)
        .collect();
    for name in named.into_iter().chain(HOP_BY_HOP.map(HeaderName::from_static)) {
        headers.remove(name);
    }
    if !keep_upgrade {
        headers.remove(UPGRADE);
    }
}

/// A body that passes its bytes on as they come, until `shutdown`.
pub(crate) fn stream(body: Incoming, shutdown: CancellationToken) -> Body {
    let frames = BodyStream::new(body).filter_map(|frame| async {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok::<Bytes, _>),
            Err(error) => Some(Err(Box::new(error) as BoxError)),
        }
    });
    Body::Stream(frames.take_until(shutdown.cancelled_owned()).boxed())
}

/// An empty request body.
pub(crate) fn empty_body() -> RequestBody {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_learn_where_a_request_came_from() {
        let mut headers = HeaderMap::new();
        for before in ["10.0.0.1", "10.0.0.2, 10.0.0.3"] {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(before));
        }
        headers.insert(AUDIT_ID, HeaderValue::from_static("forged"));
        let address = Some(IpAddr::from([192, 0, 2, 7]));
        Origin { address, audit_id: HeaderValue::from_static("7") }.tell(&mut headers);
        assert_eq!(headers[AUDIT_ID], "7");
        let all: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
        assert_eq!(all, ["10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7"]);
    }
}
