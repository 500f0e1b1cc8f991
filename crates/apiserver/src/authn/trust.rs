//! The authorities that sign clients: the cluster's own, and that of front proxies. Files are read again when they change;
//! what cannot be used then is refused, and the old ones stay.

use std::path::Path;
use std::sync::Arc;

use rustls::DistinguishedName;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Pem;
use crate::files;
use crate::http::listen::load_roots;
use crate::{Config, Error};

/// Authorities of one kind.
pub(crate) struct Authority {
    /// As it was read.
    pub(crate) pem: Vec<u8>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Authority {
    pub(crate) fn new(pem: Vec<u8>, what: &'static str) -> Result<Self, Error> {
        let roots = Arc::new(load_roots(&Pem::Inline(pem.clone()), what)?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        Ok(Self { pem, verifier: verifier.map_err(|e| Error::Credentials { what, why: e.to_string() })? })
    }

    /// Whether a chain leads here, now, for the use as a client's. The error says why not.
    pub(crate) fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), String> {
        let (leaf, rest) = chain.split_first().ok_or("there is no certificate")?;
        self.verifier.verify_client_cert(leaf, rest, now).map(|_| ()).map_err(|e| e.to_string())
    }

    /// The authorities' names, by which clients choose among their certificates.
    fn names(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }
}

/// Who is trusted at a moment.
#[derive(Default)]
pub(crate) struct Trust {
    pub(crate) client_ca: Option<Authority>,
    pub(crate) request_header_ca: Option<Authority>,
}

impl Trust {
    fn load(sources: &Sources) -> Result<Self, Error> {
        let load = |pem: &Option<Pem>, what| pem.as_ref().map(|pem| Authority::new(pem.load()?, what)).transpose();
        Ok(Self {
            client_ca: load(&sources.client_ca, "client CA")?,
            request_header_ca: load(&sources.request_header_ca, "request header client CA")?,
        })
    }

    /// Whether there is anybody to ask clients for a certificate of.
    pub(crate) fn is_empty(&self) -> bool {
        self.client_ca.is_none() && self.request_header_ca.is_none()
    }

    pub(crate) fn names(&self) -> Vec<DistinguishedName> {
        [&self.client_ca, &self.request_header_ca].into_iter().flatten().flat_map(Authority::names).cloned().collect()
    }

    fn same(&self, other: &Self) -> bool {
        let pem = |authority: &Option<Authority>| authority.as_ref().map(|a| a.pem.clone());
        pem(&self.client_ca) == pem(&other.client_ca) && pem(&self.request_header_ca) == pem(&other.request_header_ca)
    }
}

#[derive(Clone)]
struct Sources {
    client_ca: Option<Pem>,
    request_header_ca: Option<Pem>,
}

/// Keeps [`Trust`] as the files have it.
pub(crate) struct Trusted {
    sources: Sources,
    current: watch::Sender<Arc<Trust>>,
}

impl Trusted {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let headers = config.authentication.request_header.as_ref();
        let sources =
            Sources { client_ca: config.client_ca.clone(), request_header_ca: headers.map(|h| h.client_ca.clone()) };
        let current = watch::Sender::new(Arc::new(Trust::load(&sources)?));
        Ok(Self { sources, current })
    }

    pub(crate) fn current(&self) -> Arc<Trust> {
        self.current.borrow().clone()
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Trust>> {
        self.current.subscribe()
    }

    /// Follows the files until `shutdown`. Returns at once when there are none.
    pub(crate) async fn keep(&self, shutdown: CancellationToken) {
        let pems = [&self.sources.client_ca, &self.sources.request_header_ca];
        let files: Vec<&Path> = pems.into_iter().flatten().filter_map(Pem::path).collect();
        if files.is_empty() {
            return;
        }
        let changes = match files::changes(files) {
            Ok(changes) => changes,
            Err(error) => return tracing::warn!(%error, "client authorities cannot be watched for changes"),
        };
        loop {
            match Trust::load(&self.sources) {
                Ok(new) => {
                    self.current.send_if_modified(|current| {
                        let differs = !current.same(&new);
                        if differs {
                            *current = Arc::new(new);
                        }
                        differs
                    });
                }
                Err(error) => tracing::warn!(%error, "client authorities could not be read again; the old ones stay"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                more = changes.wait() => if more.is_err() { return },
            }
        }
    }
}
