//! The listening socket: TLS (client certificates asked for, judged by authentication), HTTP/2 and HTTP/1.1, limits.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::trust::Trust;
use crate::authn::x509::{AnyCertificate, Peer};
use crate::config::{Identity, Pem};
use crate::core::Core;
use crate::dispatch::Caller;
use crate::executor::{Executor, Flow};
use crate::{BoxError, Config, Error, dispatch};

/// Connections served at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 8192;
/// Streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 1000;
/// Streams that a client reset before they were served: past this it is cut off (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 64;
/// Streams that this server reset because the client broke the protocol.
const MAX_ERROR_RESETS: usize = 256;
/// Of one HTTP/2 stream: what a client that does not read can make the server keep.
const SEND_BUFFER_BYTES: usize = 128 << 10;
const MAX_HEADER_BYTES: u32 = 64 << 10;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection on which nothing was asked for so long, and nothing is being answered, is told to end. What is sent on it still,
/// such as a watch, goes on.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long requests under way may go on after shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to tell the other servers, when the store does not answer.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long those that are cut off then may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// How long [`serve`] takes at most once it is told to stop, beyond what the audit log's backends need.
pub(crate) fn longest_shutdown(config: &Config) -> Duration {
    config.shutdown_delay + DRAIN_TIMEOUT + LEAVE_TIMEOUT + END_TIMEOUT
}

/// A certificate chain and key, decoded.
pub(crate) fn load_identity(
    identity: &Identity,
    what: &'static str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let key = PrivateKeyDer::from_pem_slice(&identity.key.load()?)
        .map_err(|e| Error::Credentials { what, why: format!("key: {e}") })?;
    Ok((load_certificates(&identity.certificate, what)?, key))
}

/// Certificates of a PEM file; at least one.
pub(crate) fn load_certificates(pem: &Pem, what: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.load()?).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::Credentials { what, why: "no certificate in it".into() }),
        Err(error) => Err(Error::Credentials { what, why: error.to_string() }),
    }
}

/// Roots that sign peers.
pub(crate) fn load_roots(pem: &Pem, what: &'static str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in load_certificates(pem, what)? {
        roots.add(certificate).map_err(|e| Error::Credentials { what, why: e.to_string() })?;
    }
    Ok(roots)
}

fn tls(config: &Config, trust: &Trust) -> Result<ServerConfig, Error> {
    let what = "serving certificate";
    let missing = || Error::Credentials { what, why: "none is configured".into() };
    let (chain, key) = load_identity(config.serving.as_ref().ok_or_else(missing)?, what)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let bad = |e: String| Error::Credentials { what, why: e };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?;
    let builder = if trust.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_verifier(Arc::new(AnyCertificate::new(provider, trust.names())))
    };
    let mut tls = builder.with_single_cert(chain, key).map_err(|e| bad(e.to_string()))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// Serves until `shutdown`.
pub(crate) async fn serve(
    core: Arc<Core>,
    listener: std::net::TcpListener,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut trust = core.authenticator.trusted.follow();
    let mut acceptor = TlsAcceptor::from(Arc::new(tls(&core.config, &trust.borrow_and_update().clone())?));
    listener.set_nonblocking(true).map_err(Error::Listener)?;
    let listener = TcpListener::from_std(listener).map_err(Error::Listener)?;
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
    let stop_taking = async {
        shutdown.cancelled().await;
        core.stopping.cancel();
        // Who balances the load learns from `/readyz` to ask elsewhere, and is still answered until then.
        tokio::time::sleep(core.config.shutdown_delay).await;
    };
    tokio::pin!(stop_taking);
    loop {
        let accepted = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stop_taking => break,
            accepted = accepted => accepted,
        };
        let (stream, address) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                // Out of descriptors, most likely: connections that end will free some.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Clients choose among their certificates by the authorities that are named to them.
        if trust.has_changed().unwrap_or_default() {
            let now = trust.borrow_and_update().clone();
            match tls(&core.config, &now) {
                Ok(config) => acceptor = TlsAcceptor::from(Arc::new(config)),
                Err(error) => tracing::warn!(%error, "new client authorities are not shown to clients"),
            }
        }
        let (core, acceptor, drain, stop) = (core.clone(), acceptor.clone(), drain.clone(), stop.clone());
        let (executor, flow) = (core.executor.clone(), Flow::default());
        let serve = {
            let flow = flow.clone();
            async move {
                tokio::select! {
                    () = connection(core, acceptor, stream, address, flow, drain) => {}
                    () = stop.cancelled() => {}
                }
                drop(permit);
            }
        };
        executor.spawn(flow, connections.track_future(serve)).detach();
    }
    drop(listener);
    core.draining.cancel();
    drain.cancel();
    connections.close();
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await;
    let _ = tokio::time::timeout(LEAVE_TIMEOUT, core.left.cancelled()).await;
    stop.cancel();
    // What they end with is written down still.
    let ended = async {
        core.requests.close();
        core.requests.wait().await;
        connections.wait().await;
    };
    let _ = tokio::time::timeout(END_TIMEOUT, ended).await;
    if let Some(audit) = &core.audit {
        audit.flush().await;
    }
    Ok(())
}

/// What is asked on a connection.
struct Activity {
    under_way: AtomicUsize,
    last: Mutex<Instant>,
}

impl Activity {
    fn new() -> Self {
        Self { under_way: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }

    async fn of<T>(&self, request: impl Future<Output = T>) -> T {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let _under_way = UnderWay(self);
        request.await
    }

    /// Ends when nothing has been asked for a while.
    async fn idle(&self) {
        loop {
            let mut until = *self.last.lock() + IDLE_TIMEOUT;
            if self.under_way.load(Ordering::Relaxed) > 0 {
                until = Instant::now() + IDLE_TIMEOUT;
            } else if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Counts a request until it is answered, or cut off.
struct UnderWay<'a>(&'a Activity);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        *self.0.last.lock() = Instant::now();
    }
}

/// Serves one connection; lets it end when it is idle or `drain` is cancelled.
async fn connection(
    core: Arc<Core>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: IpAddr,
    flow: Flow,
    drain: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let peer = stream.get_ref().1.peer_certificates().and_then(Peer::new).map(Arc::new);
    let activity = Arc::new(Activity::new());
    let asked = activity.clone();
    let streams = Streams { executor: core.executor.clone(), flow: flow.clone() };
    let service = service_fn(move |request| {
        let caller = Caller::Remote { address, certificate: peer.clone(), flow: flow.clone() };
        let (core, asked) = (core.clone(), asked.clone());
        async move { asked.of(answer(core, caller, request)).await }
    });
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(Duration::from_secs(30))
        .adaptive_window(true);
    let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = async { tokio::select! { () = drain.cancelled() => {}, () = activity.idle() => {} } } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error, "a connection broke");
    }
}

/// Runs a connection's HTTP/2 streams, which have their turns with it.
#[derive(Clone)]
struct Streams {
    executor: Arc<Executor>,
    flow: Flow,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.executor.spawn(self.flow.clone(), future).detach();
    }
}

async fn answer(
    core: Arc<Core>,
    caller: Caller,
    request: Request<Incoming>,
) -> Result<http::Response<crate::Body>, Infallible> {
    let request = request.map(|body: Incoming| body.map_err(|e| Box::new(e) as BoxError).boxed_unsync());
    Ok(dispatch::handle(core, caller, request).await)
}
