//! A webhook that answers at once: `/mutating` adds a label, all else lets pass.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use keelson_cluster::pki::KeyCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Server;
use crate::cli::Failure;

const PATCH: &[u8] = br#"[{"op":"add","path":"/metadata/labels","value":{"by":"webhook"}}]"#;

/// An HTTPS server on a thread of its own, whose time can be told from the API server's.
pub(super) struct Webhook {
    pub(super) address: SocketAddr,
    pub(super) thread: Server,
    asked: Arc<AtomicUsize>,
    stop: DropGuard,
    running: JoinHandle<()>,
}

impl Webhook {
    /// Dropped, it stops; [`Webhook::stop`] also waits for that.
    pub(super) fn start(identity: KeyCert) -> Result<Self, Failure> {
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (asked, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (count, stopped) = (asked.clone(), stop.clone());
        let (tell, told) = std::sync::mpsc::channel();
        let running = std::thread::Builder::new().name("webhook".into()).spawn(move || {
            // Nobody waits any more if this fails.
            let _ = tell.send(Server::this_thread());
            let serve = async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => accept(listener, acceptor, count).await,
                    Err(error) => tracing::error!(%error, "the bench's webhook does not run"),
                }
            };
            runtime.block_on(stopped.run_until_cancelled(serve));
        })?;
        Ok(Self { address, thread: told.recv()?, asked, stop: stop.drop_guard(), running })
    }

    /// How often it was asked.
    pub(super) fn stop(self) -> Result<usize, Failure> {
        drop(self.stop);
        self.running.join().map_err(|_| "the bench's webhook panicked")?;
        Ok(self.asked.load(Ordering::Relaxed))
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, asked: Arc<AtomicUsize>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, asked) = (acceptor.clone(), asked.clone());
        tokio::spawn(async move {
            // Answers are small: without this they would wait for the acknowledgement of what went before.
            let _ = stream.set_nodelay(true);
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|request| {
                asked.fetch_add(1, Ordering::Relaxed);
                answer(request)
            });
            // It ends when the client goes away.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Failure> {
    let mutates = request.uri().path() == "/mutating";
    let review: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?;
    let mut response = json!({"uid": review["request"]["uid"], "allowed": true});
    if mutates {
        response["patchType"] = "JSONPatch".into();
        response["patch"] = serde_json::to_value(ByteString(PATCH.into()))?;
    }
    let review = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
    Ok(Response::new(Full::new(review.to_string().into())))
}
