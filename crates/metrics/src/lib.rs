//! The metrics.k8s.io server: what nodes and containers use right now, for `kubectl top` and autoscalers. It is an aggregated
//! server like any other, behind a Service and an APIService that it registers itself; whoever installs another one under the
//! same APIService takes over.
//!
//! Kubelets are asked only while somebody asks here: the first question takes two scrapes and so a good second, those after it
//! are answered from scrapes that are never older than [`store::INTERVAL`]. Upstream's asks them four times a minute for ever.
//!
//! - [`exposition`]: what kubelets answer at `/metrics/resource`
//! - [`usage`]: from two scrapes to rates, purely
//! - [`scrape`]: asking kubelets
//! - [`store`]: when they are asked, and the latest scrapes
//! - [`api`]: the objects, lists and tables, and what discovery is told
//! - [`server`]: HTTPS for the API server alone, which has authenticated and authorized
//! - [`register`]: the Service, its endpoints and the APIService

#![forbid(unsafe_code)]

mod api;
mod exposition;
mod register;
mod scrape;
mod server;
mod store;
mod tls;
mod usage;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

/// The Service, in `kube-system`.
pub const SERVICE: &str = "keelson-metrics";
/// The name in the serving certificate that the API server expects.
pub const SERVER_NAME: &str = "keelson-metrics.kube-system.svc";

/// What the server needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens; every server of the cluster on the same port.
    pub address: SocketAddr,
    /// PEM files: a serving certificate for [`SERVER_NAME`] and its key.
    pub serving: (PathBuf, PathBuf),
    /// PEM file of who signed it, for the APIService.
    pub serving_ca: PathBuf,
    /// PEM file of who signs the front proxy's client certificate.
    pub front_proxy_ca: PathBuf,
    /// PEM files: a client certificate for kubelets and its key.
    pub kubelet_client: (PathBuf, PathBuf),
    /// PEM file of who signs kubelets' serving certificates.
    pub kubelet_ca: PathBuf,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate or key cannot be used.
    #[error("{file}: {why}")]
    Credentials {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The port is taken, mostly.
    #[error("listening on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// Serves until `shutdown`. `client` is asked for nodes and pods.
pub async fn run(client: kube::Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let acceptor = tls::acceptor(&config)?;
    let scraper = scrape::Scraper::new(tls::connector(&config)?);
    let ca_bundle = tls::read(&config.serving_ca)?;
    let listen = |source| Error::Listen { address: config.address, source };
    let listener = tokio::net::TcpListener::bind(config.address).await.map_err(listen)?;
    let store = Arc::new(store::Store::new(client.clone(), scraper));
    tokio::join!(
        server::run(listener, acceptor, api::Api::new(client.clone(), store.clone()), shutdown.clone()),
        store.keep(shutdown.clone()),
        register::run(client, config.address.port(), ca_bundle, shutdown),
    );
    Ok(())
}
