//! `keelson dns`: the cluster's name service on every node, as the Kubernetes DNS-Based Service Discovery specification
//! (1.1.0) says and CoreDNS behaves. Answers come straight from an index that informers keep; nothing is cached, polled
//! or forwarded, unless upstream servers are configured.
//!
//! - [`index`]: services, endpoints and pods, by what is asked for.
//! - [`zone`]: pure, from a question and the index to an answer.
//! - [`registration`]: the Service `kube-system/kube-dns` and this node's EndpointSlice.
//!
//! What is deliberately absent: IPv6 addresses (AAAA answers are empty), zone transfers, DNSSEC.

#![forbid(unsafe_code)]

mod config;
mod follow;
mod forward;
pub mod index;
mod registration;
mod server;
pub mod zone;

use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};
use keelson_client::InformerFactory;
use tokio_util::sync::CancellationToken;

pub use config::{Config, PodMode};
pub use server::{Shared, serve};

/// Why the name service cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not the node's.
    #[error("cannot listen on {0} (is another name service running? --address and --port choose another one): {1}")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
    /// The server stopped by itself.
    #[error("the DNS server failed: {0}")]
    Server(String),
    /// The cluster domain is no domain name.
    #[error("cluster domain {0:?} is not a domain name")]
    Domain(String),
}

/// Runs the name service until `shutdown`. It answers from the moment the informers are complete.
pub async fn run(client: kube::Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let shared = Shared::new(&config)?;
    let informers = InformerFactory::new(client.clone());
    informers.transform::<Namespace>(follow::keep_name);
    informers.transform::<Pod>(follow::keep_address);
    let services = informers.get::<Service>();
    let slices = informers.get::<EndpointSlice>();
    let namespaces = informers.get::<Namespace>();
    let pods = (config.pods == PodMode::Verified).then(|| informers.get::<Pod>());
    let changed = tokio::sync::Notify::new();
    let keep_index = follow::follow(&shared, &config, services, slices, namespaces, pods, &changed);
    let keep_registered = registration::keep(client, &config, &changed);
    let answer = async {
        shared.synced().await;
        serve(&shared, &config, shutdown.clone()).await
    };
    tokio::select! {
        done = answer => done,
        () = keep_index => Ok(()),
        () = keep_registered => Ok(()),
        () = shutdown.cancelled() => Ok(()),
    }
}
