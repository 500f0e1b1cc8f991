//! Certificates: the server's, the front proxy's and kubelets'.

use std::path::Path;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{Config, Error};

fn bad(file: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Credentials { file: file.into(), why: why.to_string() }
}

/// The text of a PEM file.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| bad(file, &error))
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| bad(file, &error))?;
    certificates.collect::<Result<_, _>>().map_err(|error| bad(file, &error))
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| bad(file, &error))
}

fn roots(file: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(file)? {
        roots.add(certificate).map_err(|error| bad(file, &error))?;
    }
    Ok(roots)
}

/// Lets in who has the front proxy's certificate, and nobody else: it alone may say who asks.
pub(crate) fn acceptor(config: &Config) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let file = &config.front_proxy_ca;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(file)?), provider.clone())
        .build()
        .map_err(|error| bad(file, &error))?;
    let (certificate, own_key) = &config.serving;
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(certificate, &error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(certificate)?, key(own_key)?)
        .map_err(|error| bad(certificate, &error))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

/// For kubelets.
pub(crate) fn connector(config: &Config) -> Result<TlsConnector, Error> {
    let (certificate, own_key) = &config.kubelet_client;
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(certificate, &error))?
        .with_root_certificates(roots(&config.kubelet_ca)?)
        .with_client_auth_cert(chain(certificate)?, key(own_key)?)
        .map_err(|error| bad(certificate, &error))?;
    Ok(TlsConnector::from(Arc::new(tls)))
}
