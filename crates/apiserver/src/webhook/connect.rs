//! Connections to webhooks. A Service is resolved anew for each connection, to one of its ready endpoints; the certificate is
//! always that of `<service>.<namespace>.svc`.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Error;
use crate::core::Core;
use crate::endpoint;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a webhook is.
#[derive(Clone)]
enum Place {
    /// The URL's own host and port.
    Url,
    Service {
        core: Weak<Core>,
        namespace: String,
        name: String,
        port: u16,
    },
}

/// Makes connections to one webhook.
#[derive(Clone)]
pub(crate) struct Connector {
    place: Place,
    tls: TlsConnector,
    /// The name on the server's certificate, when it is not the host.
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    pub(crate) fn with(tls: Arc<ClientConfig>, server_name: Option<ServerName<'static>>) -> Self {
        Self { place: Place::Url, tls: TlsConnector::from(tls), server_name }
    }

    pub(crate) fn to_url(config: &Value) -> Result<Self, Error> {
        Ok(Self { place: Place::Url, tls: tls(config)?, server_name: None })
    }

    pub(crate) fn to_service(
        core: Weak<Core>,
        namespace: &str,
        name: &str,
        port: u16,
        config: &Value,
    ) -> Result<Self, Error> {
        let place = Place::Service { core, namespace: namespace.to_owned(), name: name.to_owned(), port };
        Ok(Self { place, tls: tls(config)?, server_name: None })
    }

    /// As [`Connector::to_service`], over TLS that is set up already.
    pub(crate) fn to_service_over(
        core: Weak<Core>,
        namespace: &str,
        name: &str,
        port: u16,
        tls: Arc<ClientConfig>,
    ) -> Self {
        let place = Place::Service { core, namespace: namespace.to_owned(), name: name.to_owned(), port };
        Self { place, tls: TlsConnector::from(tls), server_name: None }
    }

    /// Opens a connection for a request to `uri`.
    pub(crate) async fn connect(self, uri: Uri) -> Result<Stream, Error> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let failed = |what: &str, why: &dyn std::fmt::Display| Error(format!("{what}: {why}"));
        let addresses: Vec<SocketAddr> = match &self.place {
            Place::Url => {
                let port = uri.port_u16().unwrap_or(443);
                let found = tokio::net::lookup_host((host.as_str(), port)).await;
                found.map_err(|e| failed(&format!("dial tcp: lookup {host}"), &e))?.collect()
            }
            Place::Service { core, namespace, name, port } => {
                let core = core.upgrade().ok_or_else(|| Error("the server is shutting down".into()))?;
                endpoint::service_addresses(&core, namespace, name, *port).await.map_err(|e| Error(e.message))?
            }
        };
        let connect = TcpStream::connect(addresses.as_slice());
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Err(failed(&format!("dial tcp {}", show(&addresses)), &"connect: connection refused"));
            }
            Ok(Err(error)) => return Err(failed(&format!("dial tcp {}", show(&addresses)), &error)),
            Err(_) => return Err(failed(&format!("dial tcp {}", show(&addresses)), &"i/o timeout")),
        };
        let _ = stream.set_nodelay(true);
        let name = match self.server_name {
            Some(name) => name,
            None => ServerName::try_from(host.clone()).map_err(|e| failed("tls", &e))?,
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, self.tls.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(Stream(TokioIo::new(stream))),
            Ok(Err(error)) => Err(failed("tls: failed to verify certificate", &error)),
            Err(_) => Err(failed("tls", &"handshake timeout")),
        }
    }
}

fn show(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Trusts the configuration's bundle.
fn tls(config: &Value) -> Result<TlsConnector, Error> {
    let bad = |why: String| Error(format!("unable to load root certificates: {why}"));
    let bundle = config["caBundle"].as_str().filter(|bundle| !bundle.is_empty());
    let pem = bundle.map(|bundle| base64::prelude::BASE64_STANDARD.decode(bundle)).transpose();
    let roots = roots(pem.map_err(|e| bad(e.to_string()))?.as_deref()).map_err(bad)?;
    let config = trusting(roots).map_err(bad)?.with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The certificates of a bundle, or without one what the system trusts.
pub(crate) fn roots(bundle: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match bundle {
        Some(pem) => {
            for certificate in rustls_pki_types::CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| e.to_string())?;
                roots.add(certificate).map_err(|e| e.to_string())?;
            }
            if roots.is_empty() {
                return Err("unable to parse bytes as PEM block".into());
            }
        }
        None => {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
        }
    }
    Ok(roots)
}

/// A TLS client that trusts these; whether it shows a certificate is left open.
pub(crate) fn trusting(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    Ok(builder.with_root_certificates(roots))
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A TLS connection as hyper's pool wants it.
pub(crate) struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
