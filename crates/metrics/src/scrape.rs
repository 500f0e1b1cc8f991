//! Asking kubelets: one connection and one answer each, many at once, each within a time limit.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::exposition::{Scrape, parse};

/// Kubelets asked at once.
const AT_ONCE: usize = 64;
/// All of one kubelet's answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer: 110 pods make some 100 KiB.
const MAX_BYTES: usize = 32 << 20;
const KUBELET_PORT: u16 = 10250;

/// Asks kubelets.
pub(crate) struct Scraper {
    tls: TlsConnector,
}

impl Scraper {
    pub(crate) fn new(tls: TlsConnector) -> Self {
        Self { tls }
    }

    /// What each node's kubelet answers; those that do not answer are left out.
    pub(crate) async fn all(&self, nodes: &[Node]) -> Vec<(String, Scrape)> {
        let ask = |node: &Node| {
            let name = node.metadata.name.clone().unwrap_or_default();
            let place = place(node);
            async move {
                let address = place?;
                match tokio::time::timeout(TIMEOUT, self.one(address)).await {
                    Ok(Ok(text)) => Some((name, parse(&text))),
                    Ok(Err(error)) => {
                        tracing::debug!(node = name, %address, error, "the kubelet gives no metrics");
                        None
                    }
                    Err(_) => {
                        tracing::debug!(node = name, %address, "the kubelet does not answer in time");
                        None
                    }
                }
            }
        };
        futures::stream::iter(nodes.iter().map(ask))
            .buffer_unordered(AT_ONCE)
            .filter_map(async |found| found)
            .collect()
            .await
    }

    async fn one(&self, address: SocketAddr) -> Result<String, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = TcpStream::connect(address).await.map_err(|error| text(&error))?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = self.tls.connect(name, stream).await.map_err(|error| text(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| text(&error))?;
        let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::get("/metrics/resource").header(http::header::HOST, address.to_string());
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| text(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| text(&error))?;
        if !answer.status().is_success() {
            return Err(answer.status().to_string());
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(|error| text(&error))?;
        drop(connection);
        String::from_utf8(body.to_bytes().into()).map_err(|error| text(&error))
    }
}

/// Where a node's kubelet is, by its InternalIP, else its ExternalIP: its name need not resolve here.
fn place(node: &Node) -> Option<SocketAddr> {
    let status = node.status.as_ref()?;
    let addresses = status.addresses.as_deref().unwrap_or_default();
    let of = |kind: &str| addresses.iter().filter(|a| a.type_ == kind).find_map(|a| a.address.parse::<IpAddr>().ok());
    let port = status.daemon_endpoints.as_ref().and_then(|endpoints| endpoints.kubelet_endpoint.as_ref());
    let port = port.and_then(|endpoint| u16::try_from(endpoint.port).ok()).filter(|port| *port > 0);
    Some(SocketAddr::new(of("InternalIP").or_else(|| of("ExternalIP"))?, port.unwrap_or(KUBELET_PORT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (status, expected) in [
            (
                serde_json::json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 1234}}}),
                Some("10.0.0.1:1234"),
            ),
            (
                serde_json::json!({"addresses": [{"type": "Hostname", "address": "a"}, {"type": "ExternalIP", "address": "10.0.0.2"}]}),
                Some("10.0.0.2:10250"),
            ),
            (serde_json::json!({"addresses": [{"type": "Hostname", "address": "10.0.0.1"}]}), None),
        ] {
            let node: Node = serde_json::from_value(serde_json::json!({"metadata": {}, "status": status})).unwrap();
            assert_eq!(place(&node).map(|place| place.to_string()).as_deref(), expected);
        }
    }
}
