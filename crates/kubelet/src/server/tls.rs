//! The server's TLS: its certificate (given, or self-signed and kept), and client certificates of the cluster's CA.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_client::changes::{Changes, Interest};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use crate::certificates::Serving;
use crate::config::Config;
use crate::error::Error;

/// The server's TLS configuration; `asked_for` gives the certificate where it comes by request. Clients without a certificate are let in to show a token instead.
pub(super) fn server_config(config: &Config, asked_for: Option<Arc<Serving>>) -> Result<rustls::ServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = |error: rustls::Error| Error::Tls(error.to_string());
    let versions: &[&rustls::SupportedProtocolVersion] = match config.tls_min_version_13 {
        true => &[&rustls::version::TLS13],
        false => rustls::ALL_VERSIONS,
    };
    let builder =
        rustls::ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).map_err(tls)?;
    let builder = match &config.client_ca_file {
        Some(file) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(tls)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| Error::Tls(format!("{}: {error}", file.display())))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut tls_config = match asked_for {
        Some(serving) => builder.with_cert_resolver(serving),
        None => {
            let (cert_file, key_file) = match (&config.tls_cert_file, &config.tls_private_key_file) {
                (Some(cert), Some(key)) => (cert.clone(), key.clone()),
                _ => self_signed(config)?,
            };
            let key = PrivateKeyDer::from_pem_file(&key_file)
                .map_err(|error| Error::Tls(format!("{}: {error}", key_file.display())))?;
            builder.with_single_cert(certificates(&cert_file)?, key).map_err(tls)?
        }
    };
    // Upgrades need HTTP/1.1.
    tls_config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls_config)
}

/// Makes the configuration anew whenever one of its files changes; one that cannot be used leaves the old.
pub(super) async fn follow(
    config: &Config,
    asked_for: Option<Arc<Serving>>,
    current: &watch::Sender<Arc<rustls::ServerConfig>>,
) {
    let files = [&config.client_ca_file, &config.tls_cert_file, &config.tls_private_key_file];
    let directories: BTreeSet<&Path> = files.into_iter().flatten().filter_map(|file| file.parent()).collect();
    if directories.is_empty() {
        return;
    }
    let changes = match Changes::of(directories, Interest::Written) {
        Ok(changes) => changes,
        Err(error) => return tracing::warn!(%error, "changes of the server's certificates are not seen"),
    };
    let read = || files.into_iter().flatten().map(|file| fs::read(file).ok()).collect::<Vec<_>>();
    let mut known = read();
    while changes.wait().await.is_ok() {
        let now = read();
        if now == known {
            continue;
        }
        match server_config(config, asked_for.clone()) {
            Ok(made) => {
                known = now;
                current.send_replace(Arc::new(made));
                tracing::info!("the server's certificates were read again");
            }
            // A key mostly comes after its certificate.
            Err(error) => tracing::warn!(%error, "the server's new certificates cannot be used yet"),
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |error: rustls_pki_types::pem::Error| Error::Tls(format!("{}: {error}", file.display()));
    CertificateDer::pem_file_iter(file).map_err(bad)?.collect::<Result<_, _>>().map_err(bad)
}

/// A certificate for this node's names under `<root>/pki`, made once.
fn self_signed(config: &Config) -> Result<(PathBuf, PathBuf), Error> {
    let dir = config.root_dir.join("pki");
    let (cert_file, key_file) = (dir.join("kubelet.crt"), dir.join("kubelet.key"));
    if cert_file.exists() && key_file.exists() {
        return Ok((cert_file, key_file));
    }
    fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    let names = vec![config.hostname().to_string(), config.node_ip.to_string()];
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| Error::Tls(error.to_string()))?;
    write(&key_file, made.signing_key.serialize_pem().as_bytes(), 0o600)?;
    write(&cert_file, made.cert.pem().as_bytes(), 0o644)?;
    Ok((cert_file, key_file))
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(mode).open(path).map_err(Error::file("create", path))?;
    std::io::Write::write_all(&mut file, content).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The certificate that a new connection is shown.
    async fn shown(config: Arc<rustls::ServerConfig>) -> CertificateDer<'static> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(keelson_client::tls::Unverified(provider)))
            .with_no_client_auth();
        let (one, two) = tokio::io::duplex(64 << 10);
        let server = tokio_rustls::TlsAcceptor::from(config);
        let client = tokio_rustls::TlsConnector::from(Arc::new(client));
        let (client, server) = tokio::join!(client.connect("n".try_into().unwrap(), one), server.accept(two));
        server.unwrap();
        client.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone()
    }

    #[tokio::test]
    async fn renewed_files_are_used_without_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let make = || rcgen::generate_simple_self_signed(vec!["n".to_string()]).unwrap();
        let put = |path: &Path, text: String| {
            let new = dir.path().join(".new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, path).unwrap();
        };
        let first = make();
        put(&cert, first.cert.pem());
        put(&key, first.signing_key.serialize_pem());
        let mut config = Config::new("n", "127.0.0.1".parse().unwrap());
        (config.tls_cert_file, config.tls_private_key_file) = (Some(cert.clone()), Some(key.clone()));
        let current = watch::Sender::new(Arc::new(server_config(&config, None).unwrap()));
        let mut news = current.subscribe();
        assert_eq!(&shown(news.borrow().clone()).await, first.cert.der());
        let second = make();
        let change = async {
            put(&cert, second.cert.pem());
            tokio::task::yield_now().await;
            put(&key, second.signing_key.serialize_pem());
            tokio::time::timeout(Duration::from_secs(20), news.changed()).await.unwrap().unwrap();
        };
        tokio::select! {
            biased;
            () = follow(&config, None, &current) => panic!("it follows for ever"),
            () = change => {}
        }
        assert_eq!(&shown(news.borrow().clone()).await, second.cert.der());
    }
}
