//! The way to the kubelets and to pods: one connection per request, TLS with the server's client certificate.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use keelson_api::status::Status;
use keelson_client::tls::Unverified;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::config::KubeletClient;
use crate::http::body::RequestBody;
use crate::http::listen::{load_identity, load_roots};
use crate::http::reply::Reply;
use crate::{Error, relay};

/// A kubelet's port unless its node says otherwise.
pub(crate) const KUBELET_PORT: u16 = 10250;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until a kubelet answers with the head of its response.
const KUBELET_TIMEOUT: Duration = Duration::from_secs(60);
/// As [`KUBELET_TIMEOUT`], for what is proxied to a pod.
const POD_TIMEOUT: Duration = Duration::from_secs(300);

/// Credentials for kubelets.
pub(crate) struct Kubelets {
    tls: TlsConnector,
    /// Believes any certificate.
    unverified: TlsConnector,
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
        let verified = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(bad)?;
        let mut unverified = verified.clone();
        let provider = unverified.crypto_provider().clone();
        unverified.dangerous().set_certificate_verifier(Arc::new(Unverified(provider)));
        // A session that is resumed was verified, or not, when it began.
        unverified.resumption = Resumption::disabled();
        let connector = |config| TlsConnector::from(Arc::new(config));
        Ok(Self { tls: connector(verified), unverified: connector(unverified) })
    }

    /// A kubelet's endpoint.
    pub(crate) fn backend(&self, address: IpAddr, port: u16, path: String) -> Backend {
        Backend { address, port, tls: Some(self.tls.clone()), path }
    }

    /// As [`Kubelets::backend`], whatever certificate the kubelet shows.
    pub(crate) fn unverified(&self, address: IpAddr, port: u16, path: String) -> Backend {
        Backend { address, port, tls: Some(self.unverified.clone()), path }
    }
}

impl Backend {
    /// Sends the request on and answers with what comes back; an upgrade is spliced.
    pub(crate) async fn forward(self, request: Request<RequestBody>, shutdown: &CancellationToken) -> Reply {
        let host = SocketAddr::from((self.address, self.port)).to_string();
        relay::relay(
            request,
            |request| relay::onward(request, &self.path, &host),
            |request| self.send(request),
            shutdown,
        )
        .await
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
            None => answered(tokio::time::timeout(patience, relay::exchange(TokioIo::new(stream), request)).await),
            Some(tls) => {
                let handshake = tls.connect(ServerName::IpAddress(address.into()), stream);
                let stream = match tokio::time::timeout(CONNECT_TIMEOUT, handshake).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return Err(failed("tls", &error)),
                    Err(_) => return Err(failed("tls", &"handshake timeout")),
                };
                answered(tokio::time::timeout(patience, relay::exchange(TokioIo::new(stream), request)).await)
            }
        }
    }
}
