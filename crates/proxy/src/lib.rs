//! `keelson proxy`: what kube-proxy does, in the kernel's nftables. It watches Services, EndpointSlices and Nodes and keeps
//! a table of its own, `ip keelson-proxy`, as they say; packets never pass through this process.
//!
//! - [`plan`]: pure, from a service and its slices to map entries.
//! - [`Proxier`]: what is wanted, what the kernel has, and the transaction between them.
//! - [`routes`]: routes to the pods of other nodes (and to the services' range), kept from Nodes.
//!
//! What is deliberately absent: IPv6, topology hints, node ports on 127.0.0.1 (which would take `route_localnet`,
//! CVE-2020-8558), and the health-check servers of load balancers.

#![forbid(unsafe_code)]

mod conntrack;
mod executor;
mod model;
mod nft;
pub mod plan;
mod proxier;
pub mod routes;
mod state;
mod sysctl;

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use ipnet::Ipv4Net;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use keelson_client::{Change, InformerFactory, SharedInformer};
use tokio_util::sync::CancellationToken;

pub use model::{Balance, Class, Entry, Frontend, Key, LOCAL, Masquerade, Protocol, Value};
pub use plan::NodeView;
pub use proxier::Proxier;

/// Settings of a node's proxy.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the node.
    pub node_name: String,
    /// The node's InternalIP; source address of the node's own connections to services.
    pub node_ip: Ipv4Addr,
    /// `--cluster-cidr`: addresses of all pods. Clients from elsewhere are masqueraded to cluster IPs.
    pub cluster_cidr: Option<Ipv4Net>,
    /// `--masquerade-all`.
    pub masquerade_all: bool,
    /// The services' range. When known, the node gets a route for it, so that its own processes reach services without
    /// a default route, and addresses of no service are dropped.
    pub service_cidr: Option<Ipv4Net>,
    /// Keeps a route to each other node's pod CIDR by way of its InternalIP. For nodes on one link.
    pub node_routes: bool,
    /// `--iptables-min-sync-period`: changes within this time go to the kernel together. The first one goes at once.
    pub min_sync_period: Duration,
    /// Network namespace to work in; that of the calling thread when absent.
    pub netns: Option<PathBuf>,
}

impl Config {
    /// The defaults: kubeadm's ranges, node routes on, 2 ms between transactions.
    pub fn new(node_name: impl Into<String>, node_ip: Ipv4Addr) -> Self {
        Self {
            node_name: node_name.into(),
            node_ip,
            cluster_cidr: Ipv4Net::new(Ipv4Addr::new(10, 244, 0, 0), 16).ok(),
            masquerade_all: false,
            service_cidr: Ipv4Net::new(Ipv4Addr::new(10, 96, 0, 0), 12).ok(),
            node_routes: true,
            min_sync_period: Duration::from_millis(2),
            netns: None,
        }
    }

    fn node_view(&self) -> NodeView {
        NodeView {
            name: self.node_name.clone(),
            cluster_cidr: self.cluster_cidr,
            service_cidr: self.service_cidr,
            masquerade_all: self.masquerade_all,
        }
    }
}

/// Why the proxy cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused an operation on its tables, routes or flows.
    #[error("cannot {0}: {1} (the proxy needs CAP_NET_ADMIN and a kernel with nf_tables, nft_nat, nft_numgen)")]
    Kernel(&'static str, #[source] nlink::Error),
    /// A kernel parameter could not be set.
    #[error("cannot set {0}: {1}; set it by hand, or run with a writable /proc/sys")]
    Sysctl(String, #[source] std::io::Error),
}

/// Services without another proxy's label.
const SERVICES: &str = "!service.kubernetes.io/service-proxy-name";
/// Slices that some service's packets may be sent to.
const SLICES: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";

/// Runs the proxy until `shutdown`. The table stays in the kernel, so connections go on across a restart.
pub async fn run(client: kube::Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let informers = InformerFactory::new(client);
    let services = informers.select::<Service>(Some(SERVICES), None);
    let slices = informers.select::<EndpointSlice>(Some(SLICES), None);
    let nodes = config.node_routes.then(|| informers.get::<Node>());
    run_with(services, slices, nodes, config, shutdown).await
}

/// [`run`] on informers that exist already.
pub async fn run_with(
    services: SharedInformer<Service>,
    slices: SharedInformer<EndpointSlice>,
    nodes: Option<SharedInformer<Node>>,
    config: Config,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    sysctl::prepare(config.netns.as_deref())?;
    let proxier = Proxier::open(&config)?;
    let work = async {
        tokio::try_join!(follow(proxier, services, slices, config.min_sync_period), routes::follow(&config, nodes))
    };
    tokio::select! {
        done = work => done.map(|_| ()),
        () = shutdown.cancelled() => Ok(()),
    }
}

/// Brings every change of services and slices into the kernel.
async fn follow(
    mut proxier: Proxier,
    services: SharedInformer<Service>,
    slices: SharedInformer<EndpointSlice>,
    min_sync_period: Duration,
) -> Result<(), Error> {
    let (mut services, mut slices) = (services.subscribe(), slices.subscribe());
    // Both lists must be complete, or the first transaction would cut off services that work.
    proxier.service_changed(services.next().await);
    proxier.slice_changed(slices.next().await);
    let mut backoff = keelson_client::Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    loop {
        let started = tokio::time::Instant::now();
        match proxier.sync().await {
            Ok(()) => backoff.reset(),
            Err(e) => {
                tracing::error!(error = %e, "services not programmed, will try again");
                backoff.wait().await;
                continue;
            }
        }
        // Never more than half of the time, however large the table is.
        tokio::time::sleep_until(started + min_sync_period.max(2 * started.elapsed())).await;
        if !proxier.is_dirty() {
            tokio::select! {
                change = services.next() => proxier.service_changed(change),
                change = slices.next() => proxier.slice_changed(change),
            }
        }
        drain(&mut proxier, &mut services, &mut slices);
    }
}

/// Takes what else is there already, so that a burst is one transaction.
fn drain(
    proxier: &mut Proxier,
    services: &mut keelson_client::Subscription<Service>,
    slices: &mut keelson_client::Subscription<EndpointSlice>,
) {
    let mut next_service = || services.try_next();
    while let Some(change) = next_service() {
        proxier.service_changed(change);
    }
    while let Some(change) = slices.try_next() {
        proxier.slice_changed(change);
    }
}

/// A change for [`Proxier`].
pub type ServiceChange = Change<Service>;
/// A change for [`Proxier`].
pub type SliceChange = Change<EndpointSlice>;
