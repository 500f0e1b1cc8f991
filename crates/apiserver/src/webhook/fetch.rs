//! Documents that other servers publish: discovery and keys of token issuers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;

use super::connect::{Connector, roots, trusting};
use super::{IDLE, chain};

/// Longest document.
const MAX_BYTES: usize = 1 << 20;
/// For one document, from the first packet to the last.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Gets documents over HTTPS. Redirects are not followed.
pub(crate) struct Fetcher {
    client: HyperClient<Connector, Full<Bytes>>,
}

impl Fetcher {
    /// Trusts the bundle (PEM), or without one what the system trusts.
    pub(crate) fn new(bundle: Option<&[u8]>) -> Result<Self, String> {
        let config = trusting(roots(bundle)?)?.with_no_client_auth();
        let connector = Connector::with(Arc::new(config), None);
        let builder = HyperClient::builder(TokioExecutor::new());
        let client = builder.clone().pool_idle_timeout(IDLE).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client })
    }

    /// A JSON document.
    pub(crate) async fn json(&self, url: &str) -> Result<Value, String> {
        let fail = |why: String| format!("Get {url:?}: {why}");
        let request = Request::builder()
            .method(Method::GET)
            .uri(url)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, "kube-apiserver")
            .body(Full::default())
            .map_err(|e| fail(e.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|e| fail(chain(&e)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
            let body = body.map_err(|e| fail(format!("reading the answer: {e}")))?.to_bytes();
            if status != http::StatusCode::OK {
                return Err(fail(format!("the server answered {status}")));
            }
            serde_json::from_slice(&body).map_err(|e| fail(format!("the answer is no JSON: {e}")))
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(fail("context deadline exceeded".into())))
    }
}
