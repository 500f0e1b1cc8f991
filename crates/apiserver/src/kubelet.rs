//! The way to the kubelets and to pods: one connection per request, TLS with the server's client certificate, bodies and
//! upgraded bytes passed through as they come. Redirects are never followed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::header::{CONNECTION, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, BodyStream};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use keelson_api::status::Status;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::config::KubeletClient;
use crate::http::body::{Body, RequestBody};
use crate::http::listen::{load_identity, load_roots};
use crate::http::reply::Reply;
use crate::limits::StreamPermit;
use crate::{BoxError, Error};

/// A kubelet's port unless its node says otherwise.
pub(crate) const KUBELET_PORT: u16 = 10250;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until a kubelet answers with the head of its response.
const KUBELET_TIMEOUT: Duration = Duration::from_secs(60);
/// As [`KUBELET_TIMEOUT`], for what is proxied to a pod.
const POD_TIMEOUT: Duration = Duration::from_secs(300);

/// Headers that concern one connection only.
const HOP_BY_HOP: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"];

/// Credentials for kubelets.
pub(crate) struct Kubelets {
    tls: TlsConnector,
}

/// Where a request goes.
pub(crate) struct Backend {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// `None`: plain HTTP.
    pub(crate) tls: Option<TlsConnector>,
    /// Path and query.
    pub(crate) path: String,
}

impl Kubelets {
    pub(crate) fn new(config: &KubeletClient) -> Result<Self, Error> {
        let what = "kubelet client certificate";
        let (chain, key) = load_identity(&config.identity, what)?;
        let roots = load_roots(&config.ca, "kubelet CA")?;
        let bad = |e: rustls::Error| Error::Credentials { what, why: e.to_string() };
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(bad)?;
        Ok(Self { tls: TlsConnector::from(Arc::new(tls)) })
    }

    /// A kubelet's endpoint.
    pub(crate) fn backend(&self, address: IpAddr, port: u16, path: String) -> Backend {
        Backend { address, port, tls: Some(self.tls.clone()), path }
    }
}

impl Backend {
    /// Sends the request on and answers with what comes back; an upgrade is spliced.
    pub(crate) async fn forward(self, mut request: Request<RequestBody>, shutdown: &CancellationToken) -> Reply {
        let is_websocket = keelson_streaming::upgrade::is_websocket(request.headers());
        let client_upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let permit = request.extensions_mut().remove::<StreamPermit>();
        let onward = self.onward(request)?;
        let mut response = self.send(onward).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client_upgrade) = client_upgrade else {
                return Err(Status::internal("the backend upgraded a connection that nobody asked it to"));
            };
            let backend_upgrade = hyper::upgrade::on(&mut response);
            tokio::spawn(async move {
                let (client, backend) = match tokio::try_join!(client_upgrade, backend_upgrade) {
                    Ok(both) => both,
                    Err(error) => return tracing::debug!(%error, "an upgrade failed"),
                };
                if let Err(error) = keelson_streaming::proxy::splice(client, backend, is_websocket).await {
                    tracing::debug!(%error, "an upgraded connection ended");
                }
                drop(permit);
            });
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *answer.headers_mut() = response.headers().clone();
            return Ok(answer);
        }
        let (mut parts, body) = response.into_parts();
        strip(&mut parts.headers, false);
        Ok(Response::from_parts(parts, stream(body, shutdown.clone())))
    }

    fn onward(&self, request: Request<RequestBody>) -> Result<Request<RequestBody>, Status> {
        let (mut parts, body) = request.into_parts();
        parts.uri = self.path.parse().map_err(|e| Status::bad_request(format!("invalid path: {e}")))?;
        parts.version = http::Version::HTTP_11;
        let upgrade = parts.headers.get(UPGRADE).cloned();
        strip(&mut parts.headers, upgrade.is_some());
        if upgrade.is_some() {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        let host = match self.address {
            IpAddr::V4(address) => format!("{address}:{}", self.port),
            IpAddr::V6(address) => format!("[{address}]:{}", self.port),
        };
        parts.headers.insert(HOST, HeaderValue::from_str(&host).map_err(Status::internal)?);
        // Who the client is and whom it acts for is for this server only.
        parts.headers.remove(http::header::AUTHORIZATION);
        let personal: Vec<_> =
            parts.headers.keys().filter(|n| n.as_str().starts_with("impersonate-")).cloned().collect();
        for name in personal {
            parts.headers.remove(name);
        }
        parts.extensions = http::Extensions::new();
        Ok(Request::from_parts(parts, body))
    }

    /// Sends one request over a connection of its own.
    pub(crate) async fn send(&self, request: Request<RequestBody>) -> Result<Response<Incoming>, Status> {
        let (address, port) = (self.address, self.port);
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            let path = &self.path;
            Status::internal(format!("error dialing backend: {what} {address}:{port}{path}: {e}"))
        };
        let connect = TcpStream::connect((address, port));
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed("dial tcp", &error)),
            Err(_) => return Err(failed("dial tcp", &"i/o timeout")),
        };
        let _ = stream.set_nodelay(true);
        // A pod may think longer than a kubelet.
        let patience = if self.tls.is_some() { KUBELET_TIMEOUT } else { POD_TIMEOUT };
        let answered = |answer: Result<Result<_, hyper::Error>, _>| match answer {
            Ok(answer) => answer.map_err(|e| failed("http", &e)),
            Err(_) => Err(Status::timeout(format!("awaiting response headers from {address}:{port}{}", self.path))),
        };
        match &self.tls {
            None => answered(tokio::time::timeout(patience, exchange(stream, request)).await),
            Some(tls) => {
                let handshake = tls.connect(ServerName::IpAddress(address.into()), stream);
                let stream = match tokio::time::timeout(CONNECT_TIMEOUT, handshake).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return Err(failed("tls", &error)),
                    Err(_) => return Err(failed("tls", &"handshake timeout")),
                };
                answered(tokio::time::timeout(patience, exchange(stream, request)).await)
            }
        }
    }
}

async fn exchange<S>(stream: S, request: Request<RequestBody>) -> Result<Response<Incoming>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a backend connection broke");
        }
    });
    sender.send_request(request).await
}

fn strip(headers: &mut HeaderMap, keep_upgrade: bool) {
    for name in HOP_BY_HOP {
        headers.remove(HeaderName::from_static(name));
    }
    if !keep_upgrade {
        headers.remove(UPGRADE);
    }
}

/// A body that passes its bytes on as they come, until `shutdown`.
pub(crate) fn stream(body: Incoming, shutdown: CancellationToken) -> Body {
    let frames = BodyStream::new(body).filter_map(|frame| async {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(Box::new(error) as BoxError)),
        }
    });
    Body::Stream(frames.take_until(shutdown.cancelled_owned()).boxed())
}

/// An empty request body.
pub(crate) fn empty_body() -> RequestBody {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}
