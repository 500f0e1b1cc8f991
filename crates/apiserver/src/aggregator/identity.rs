//! What this server shows aggregated ones: the front proxy's client certificate. It is read again when its files change, so
//! that a rotated one is shown on all connections from then on.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::config::{Identity, Pem};
use crate::files;
use crate::http::listen::load_identity;

const WHAT: &str = "front proxy client certificate";

/// See above.
pub(super) struct FrontProxy {
    source: Identity,
    shown: ArcSwap<CertifiedKey>,
}

impl FrontProxy {
    pub(super) fn new(source: Identity) -> Result<Self, Error> {
        let shown = ArcSwap::from_pointee(load(&source)?);
        Ok(Self { source, shown })
    }

    /// Follows the files until `shutdown`. Returns at once when there are none.
    pub(super) async fn keep(&self, shutdown: CancellationToken) {
        let files: Vec<&Path> =
            [&self.source.certificate, &self.source.key].into_iter().filter_map(Pem::path).collect();
        if files.is_empty() {
            return;
        }
        let changes = match files::changes(files) {
            Ok(changes) => changes,
            Err(error) => return tracing::warn!(%error, "the {WHAT} cannot be watched for changes"),
        };
        loop {
            match load(&self.source) {
                Ok(new) if new.cert != self.shown.load().cert => {
                    tracing::info!("a new {WHAT} is shown");
                    self.shown.store(Arc::new(new));
                }
                Ok(_) => {}
                // Between the writing of certificate and key they are no pair.
                Err(error) => tracing::warn!(%error, "the {WHAT} could not be read again; the old one stays"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                more = changes.wait() => if more.is_err() { return },
            }
        }
    }
}

fn load(source: &Identity) -> Result<CertifiedKey, Error> {
    let (chain, key) = load_identity(source, WHAT)?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider)
        .map_err(|error| Error::Credentials { what: WHAT, why: error.to_string() })
}

impl ResolvesClientCert for FrontProxy {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for FrontProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrontProxy")
    }
}
