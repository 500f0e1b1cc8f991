//! HTTPS servers that tests run.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::Pki;

pub type Answer = Response<Full<Bytes>>;
type Handler = dyn Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync;

/// Runs until it is dropped.
pub struct HttpsServer {
    pub pki: Pki,
    pub address: SocketAddr,
    /// Requests so far.
    pub requests: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl HttpsServer {
    pub async fn start<F>(handler: impl Fn(Request<Bytes>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let pki = Pki::new();
        let (certificate, key) = pki.issue("server", &[]);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let handler: Arc<Handler> = Arc::new(move |request| Box::pin(handler(request)));
        let counted = requests.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (acceptor, handler, counted) = (acceptor.clone(), handler.clone(), counted.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                        let (handler, counted) = (handler.clone(), counted.clone());
                        async move {
                            counted.fetch_add(1, Ordering::SeqCst);
                            let (parts, body) = request.into_parts();
                            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                            Ok::<_, Infallible>(handler(Request::from_parts(parts, body)).await)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { pki, address, requests, _tasks: tasks }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    pub fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// A kubeconfig whose cluster is this server.
    pub fn kubeconfig(&self, dir: &std::path::Path, token: &str) -> std::path::PathBuf {
        let (ca, config) = (dir.join("ca.crt"), dir.join("kubeconfig"));
        std::fs::write(&ca, &self.pki.ca_pem).unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: \"{}\", certificate-authority: ca.crt}}}}]\n\
             users: [{{name: u, user: {{token: {token}}}}}]\n",
            self.url("/authenticate")
        );
        std::fs::write(&config, text).unwrap();
        config
    }
}

pub fn json(value: &Value) -> Answer {
    Response::builder().header("content-type", "application/json").body(Full::from(value.to_string())).unwrap()
}

pub fn status(code: u16) -> Answer {
    Response::builder().status(code).body(Full::default()).unwrap()
}
