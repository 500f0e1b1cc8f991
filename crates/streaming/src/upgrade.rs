//! Upgrades of HTTP/1.1 connections: choosing the protocol that client and server both speak, and asking a backend.

use base64::Engine;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{
        CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::Error;

/// The header that lists the protocols inside SPDY.
pub const STREAM_PROTOCOL_VERSION: &str = "x-stream-protocol-version";
const ACCEPTED_STREAM_PROTOCOL_VERSIONS: &str = "x-accepted-stream-protocol-versions";
const SPDY: &str = "SPDY/3.1";
/// How much of a refusal is worth passing on.
const MAX_REFUSAL: usize = 64 << 10;

/// An upgraded connection as bytes.
pub type UpgradedIo = TokioIo<Upgraded>;

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Spdy,
    WebSocket,
}

/// An upgrade that both sides agree on. It happens when the answer is sent.
#[derive(Debug)]
pub struct Upgrade {
    pub transport: Transport,
    /// The protocol chosen; empty if the client named none (SPDY only).
    pub protocol: String,
    on: OnUpgrade,
}

impl Upgrade {
    /// The connection, once the answer has gone out.
    pub async fn connection(self) -> Result<UpgradedIo, Error> {
        Ok(TokioIo::new(self.on.await?))
    }
}

/// An upgrade that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Rejected {
    pub status: StatusCode,
    pub message: String,
    /// Protocols that would have been accepted.
    accepted: Vec<&'static str>,
}

impl Rejected {
    /// A rejection of another kind, to be answered the same way.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Rejected {
        Rejected { status, message: message.into(), accepted: Vec::new() }
    }

    /// The answer, as upstream's streaming handlers give it: plain text.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.message + "\n")));
        *response.status_mut() = self.status;
        for protocol in self.accepted {
            response.headers_mut().append(ACCEPTED_STREAM_PROTOCOL_VERSIONS, HeaderValue::from_static(protocol));
        }
        response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }
}

/// Whether the request asks for a switch of protocols at all.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && tokens(headers, CONNECTION.as_str()).any(|t| t.eq_ignore_ascii_case("upgrade"))
}

/// Whether it asks for a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    tokens(headers, UPGRADE.as_str()).any(|token| token.eq_ignore_ascii_case("websocket"))
}

/// Chooses the first protocol that the client offers and the server knows for its transport. Returns the answer to send,
/// and the upgrade to wait for in another task.
pub fn negotiate<B>(
    request: &mut Request<B>,
    spdy: &[&'static str],
    websocket: &[&'static str],
) -> Result<(Response<Empty<Bytes>>, Upgrade), Rejected> {
    let headers = request.headers();
    let asks_for = |what: &str| tokens(headers, UPGRADE.as_str()).any(|t| t.eq_ignore_ascii_case(what));
    if !is_upgrade(headers) || !(asks_for(SPDY) || asks_for("websocket")) {
        return Err(Rejected::new(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request"));
    }
    let (transport, offered, known) = if asks_for("websocket") {
        (Transport::WebSocket, tokens(headers, SEC_WEBSOCKET_PROTOCOL.as_str()), websocket)
    } else {
        (Transport::Spdy, tokens(headers, STREAM_PROTOCOL_VERSION), spdy)
    };
    let offered: Vec<&str> = offered.collect();
    let chosen = offered.iter().find_map(|o| known.iter().find(|k| *k == o)).copied();
    // A SPDY client that names none speaks the first version, which is all that port-forwarding has.
    let unnamed = offered.is_empty() && transport == Transport::Spdy && known.contains(&crate::portforward::PROTOCOL);
    let Some(protocol) = chosen.or(unnamed.then_some("")) else {
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {known:?}"
        );
        return Err(Rejected { status: StatusCode::FORBIDDEN, message, accepted: known.to_vec() });
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    match transport {
        Transport::Spdy => {
            answer.insert(UPGRADE, HeaderValue::from_static(SPDY));
            if !protocol.is_empty() {
                answer.insert(STREAM_PROTOCOL_VERSION, HeaderValue::from_static(protocol));
            }
        }
        Transport::WebSocket => {
            let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| {
                headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|v| v == "13") && request.method() == Method::GET
            });
            let Some(key) = key else {
                return Err(Rejected::new(
                    StatusCode::BAD_REQUEST,
                    "unable to upgrade: not a WebSocket version 13 request",
                ));
            };
            let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
            let accept = accept.map_err(|_| Rejected::new(StatusCode::BAD_REQUEST, "unable to upgrade: bad key"))?;
            answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
            answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
            answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
    }
    let upgrade = Upgrade { transport, protocol: protocol.to_owned(), on: hyper::upgrade::on(request) };
    Ok((response, upgrade))
}

/// The comma-separated words of all headers of this name.
fn tokens<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|t| !t.is_empty())
}

/// Connects to the host of an `http` URL, such as a CRI runtime's streaming server gives out.
pub async fn dial(uri: &Uri) -> Result<TcpStream, Error> {
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http"));
    let host = host.ok_or_else(|| Error::Protocol(format!("{uri} is not an http URL")))?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks the server at the other end of `io` for SPDY/3.1 with one of these protocols. Returns the connection and the
/// protocol chosen.
pub async fn request_spdy<T>(io: T, uri: &Uri, protocols: &[&'static str]) -> Result<(UpgradedIo, String), Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut request = request(uri, Method::POST)?;
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static(SPDY));
    for protocol in protocols {
        request.headers_mut().append(STREAM_PROTOCOL_VERSION, HeaderValue::from_static(protocol));
    }
    let (io, headers) = switch(io, request).await?;
    let chosen = headers.get(STREAM_PROTOCOL_VERSION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    Ok((io, chosen.to_owned()))
}

/// Asks for a WebSocket with one of these protocols. Returns the connection and the protocol chosen.
pub async fn request_websocket<T>(io: T, uri: &Uri, protocols: &[&'static str]) -> Result<(UpgradedIo, String), Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut request = request(uri, Method::GET)?;
    let key = base64::engine::general_purpose::STANDARD.encode(nonce());
    let bad = |_| Error::Protocol("these protocols cannot be asked for".into());
    let headers = request.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::try_from(protocols.join(", ")).map_err(bad)?);
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key.as_str()).map_err(bad)?);
    let (io, headers) = switch(io, request).await?;
    if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|a| a.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(Error::Protocol("the server did not accept the WebSocket's key".into()));
    }
    let chosen = headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(|v| v.to_str().ok()).unwrap_or_default();
    Ok((io, chosen.to_owned()))
}

/// The key only proves that the server read the request: hash seeds are random enough.
fn nonce() -> [u8; 16] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let word = || RandomState::new().build_hasher().finish().to_le_bytes();
    let mut out = [0; 16];
    out[..8].copy_from_slice(&word());
    out[8..].copy_from_slice(&word());
    out
}

fn request(uri: &Uri, method: Method) -> Result<Request<Empty<Bytes>>, Error> {
    let bad = |_| Error::Protocol(format!("{uri} cannot be asked for"));
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_11;
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    *request.uri_mut() = path.parse().map_err(bad)?;
    let host = uri.authority().map_or("localhost", |a| a.as_str());
    request.headers_mut().insert(HOST, HeaderValue::from_str(host).map_err(|_| Error::Protocol("bad host".into()))?);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    Ok(request)
}

async fn switch<T>(io: T, request: Request<Empty<Bytes>>) -> Result<(UpgradedIo, HeaderMap), Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut response = sender.send_request(request).await?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
        let message = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).trim().to_owned()).unwrap_or_default();
        return Err(Error::NotUpgraded { status, message });
    }
    // Upstream's clients go by both headers, too.
    if !is_upgrade(response.headers()) {
        return Err(Error::Protocol("the server switches protocols without saying which".into()));
    }
    let upgraded = hyper::upgrade::on(&mut response).await?;
    Ok((TokioIo::new(upgraded), std::mem::take(response.headers_mut())))
}
