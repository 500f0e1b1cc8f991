//! HTTPS servers that authenticators ask.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::Value;

use crate::support::Pki;
pub use crate::support::https::Answer;
use crate::support::https::Https;

/// Runs until it is dropped.
pub struct HttpsServer {
    pub pki: Pki,
    pub address: SocketAddr,
    /// Requests so far.
    pub requests: Arc<AtomicUsize>,
    _server: Https,
}

impl HttpsServer {
    pub async fn start<F>(handler: impl Fn(Request<Bytes>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let pki = Pki::new();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let server = Https::start(&pki, move |request| {
            counted.fetch_add(1, Ordering::SeqCst);
            handler(request)
        })
        .await;
        Self { pki, address: server.address, requests, _server: server }
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
