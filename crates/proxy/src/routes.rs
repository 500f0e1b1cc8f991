//! Routes the node needs: to the pods of every other node by way of that node's address, and one for the services' range.
//!
//! Our routes carry a protocol number of their own ([`PROTOCOL`]), by which a restarted proxy knows what it left behind.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use keelson_client::{Backoff, SharedInformer};
use nlink::netlink::{
    Connection, Route,
    route::Ipv4Route,
    types::route::{RouteProtocol, RouteScope},
};

use crate::{Config, Error};

/// `rtm_protocol` of our routes ("K").
pub const PROTOCOL: u8 = 75;

/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Destination and next hop of each route to other nodes' pods. Nodes without a range or address have none yet.
pub fn plan<'a>(own_name: &str, nodes: impl IntoIterator<Item = &'a Node>) -> BTreeMap<Ipv4Net, Ipv4Addr> {
    let others = nodes.into_iter().filter(|node| node.metadata.name.as_deref() != Some(own_name));
    others
        .filter_map(|node| {
            let cidr: Ipv4Net = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
            let addresses = node.status.as_ref()?.addresses.as_ref()?;
            let ip = addresses.iter().find(|a| a.type_ == "InternalIP")?.address.parse().ok()?;
            Some((cidr.trunc(), ip))
        })
        .collect()
}

/// Keeps the routes until cancelled.
pub(crate) async fn follow(config: &Config, nodes: Option<SharedInformer<Node>>) -> Result<(), Error> {
    let mut keeper = Keeper::open(config).await?;
    let mut changes = nodes.as_ref().map(SharedInformer::subscribe);
    let mut backoff = Backoff::new(std::time::Duration::from_millis(100), std::time::Duration::from_secs(30));
    let mut retry = false;
    loop {
        let changed = async {
            match &mut changes {
                Some(changes) => drop(changes.next().await),
                None if keeper.is_done() => std::future::pending().await,
                None => {}
            }
        };
        tokio::select! {
            () = changed => {}
            () = backoff.wait(), if retry => {}
        }
        let listed = nodes.as_ref().map(SharedInformer::list).unwrap_or_default();
        let wanted = plan(&config.node_name, listed.iter().map(AsRef::as_ref));
        match keeper.sync(&wanted).await {
            Ok(()) => backoff.reset(),
            Err(ref e) => tracing::error!(error = %e, "routes not up to date, will try again"),
        }
        retry = !keeper.is_complete(&wanted);
    }
}

/// Keeps the kernel's routes equal to a plan.
pub struct Keeper {
    conn: Connection<Route>,
    service_cidr: Option<Ipv4Net>,
    node_ip: Ipv4Addr,
    /// What the kernel has of ours; `None` before the first look.
    present: Option<BTreeMap<Ipv4Net, Option<Ipv4Addr>>>,
}

impl Keeper {
    /// Opens a netlink socket in the configured namespace.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let conn: Connection<Route> = match &config.netns {
            Some(path) => Connection::new_in(path.as_path()),
            None => Connection::<Route>::new(),
        }
        .map_err(|e| Error::Kernel("open a netlink socket", e))?;
        Ok(Self { conn, service_cidr: config.service_cidr, node_ip: config.node_ip, present: None })
    }

    fn is_done(&self) -> bool {
        self.present.is_some()
    }

    /// Whether all of `nodes` have their routes.
    fn is_complete(&self, nodes: &BTreeMap<Ipv4Net, Ipv4Addr>) -> bool {
        let Some(present) = &self.present else { return false };
        nodes.iter().all(|(net, gateway)| present.get(net) == Some(&Some(*gateway)))
    }

    /// Adds what is missing, corrects what differs, removes what is ours and not wanted.
    pub async fn sync(&mut self, nodes: &BTreeMap<Ipv4Net, Ipv4Addr>) -> Result<(), Error> {
        let failed = |e| Error::Kernel("keep the routes to other nodes", e);
        let mut wanted: BTreeMap<Ipv4Net, Option<Ipv4Addr>> = nodes.iter().map(|(net, ip)| (*net, Some(*ip))).collect();
        wanted.extend(self.service_cidr.map(|net| (net, None)));
        let mut present = match self.present.take() {
            Some(present) => present,
            None => self.list().await.map_err(failed)?,
        };
        let gone: Vec<_> = present.iter().filter(|(net, _)| !wanted.contains_key(net)).map(|(n, g)| (*n, *g)).collect();
        for (net, gateway) in gone {
            self.conn.del_route_if_exists(self.route(net, gateway)).await.map_err(failed)?;
            present.remove(&net);
        }
        let mut unreachable = None;
        for (net, gateway) in &wanted {
            if present.get(net) == Some(gateway) {
                continue;
            }
            match self.conn.replace_route(self.route(*net, *gateway)).await {
                Ok(()) => drop(present.insert(*net, *gateway)),
                // One node off the link must not keep the others from their routes.
                Err(e) => unreachable = Some(e),
            }
        }
        if let Some(e) = unreachable {
            self.present = Some(present);
            return Err(failed(e));
        }
        self.present = Some(present);
        Ok(())
    }

    fn route(&self, net: Ipv4Net, gateway: Option<Ipv4Addr>) -> Ipv4Route {
        let route = Ipv4Route::from_addr(net.network(), net.prefix_len()).protocol(RouteProtocol::Other(PROTOCOL));
        match gateway {
            Some(gateway) => route.gateway(gateway),
            // Only there so that a socket of the node finds a way and a source before its packet is translated.
            None if Some(net) == self.service_cidr => {
                route.dev_index(LOOPBACK).prefsrc(self.node_ip).scope(RouteScope::Link)
            }
            None => route,
        }
    }

    async fn list(&self) -> nlink::Result<BTreeMap<Ipv4Net, Option<Ipv4Addr>>> {
        let routes = self.conn.get_routes().await?;
        let v4 = |ip: Option<&std::net::IpAddr>| match ip {
            Some(std::net::IpAddr::V4(ip)) => Some(*ip),
            _ => None,
        };
        let ours = routes.iter().filter(|r| r.protocol() == RouteProtocol::Other(PROTOCOL));
        let known = ours.filter_map(|r| {
            let net = Ipv4Net::new(v4(r.destination())?, r.dst_len()).ok()?;
            Some((net, v4(r.gateway())))
        });
        Ok(known.collect())
    }
}

#[cfg(test)]
mod tests;
