//! The commands: ADD, DEL, CHECK, GC, STATUS, VERSION.

use std::{fs::File, net::Ipv4Addr, os::unix::fs::MetadataExt as _, path::Path};

use ipnet::Ipv4Net;
use serde_json::json;

use crate::{
    SUPPORTED_VERSIONS,
    conf::{IpamConf, NetConf},
    error::{CniError, Context as _, code},
    ipam::Ipam,
    link, loopback, ports,
    request::{Command, Request},
    result::Added,
};

/// Carries out one request; the text for standard output.
pub(crate) async fn dispatch(request: &Request, stdin: &[u8]) -> Result<String, CniError> {
    if request.command == Command::Version {
        let version = crate::conf::answer_version(stdin);
        return Ok(json!({ "cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS }).to_string());
    }
    let conf = NetConf::parse(stdin)?;
    if loopback::is_meant(stdin) {
        return loopback::dispatch(request, &conf).await;
    }
    let ipam = conf.ipam()?;
    match request.command {
        Command::Add => add(request, &conf, ipam).await,
        Command::Del => del(request, &conf, ipam).await.map(|()| String::new()),
        Command::Check => check(request, &conf, ipam).await.map(|()| String::new()),
        Command::Gc => gc(&conf, ipam).await.map(|()| String::new()),
        Command::Status | Command::Version => status(&conf, ipam).map(|()| String::new()),
    }
}

async fn add(request: &Request, conf: &NetConf, ipam: &IpamConf) -> Result<String, CniError> {
    if !conf.is_gateway {
        let details = "isGateway: false: pods are routed through the bridge, which must be their gateway";
        return Err(CniError::new(code::UNSUPPORTED_FIELD, "unsupported network configuration", details));
    }
    let (netns, path) = open_netns(request)?;
    // The lock is held for the reservation only.
    let reservation = Ipam::open(&ipam.data_dir, &conf.name)?.reserve(ipam, &request.container_id, &request.ifname)?;
    let made = attach(request, conf, ipam, &netns, path, reservation.address).await;
    if made.is_err() {
        // The runtime calls DEL after a failed ADD; this only spares the address in case it does not.
        let _ = del(request, conf, ipam).await;
    }
    made.map(|added| added.to_json(conf, &request.ifname, &path.to_string_lossy()))
}

async fn attach(
    request: &Request,
    conf: &NetConf,
    ipam: &IpamConf,
    netns: &File,
    path: &Path,
    address: Ipv4Addr,
) -> Result<Added, CniError> {
    let host_ifname = link::host_ifname(&conf.name, &request.container_id, &request.ifname);
    let node = link::node_connection()?;
    let pod = link::pod_connection(netns, path)?;
    let (bridge, bridge_mac) = link::ensure_bridge(&node, conf, ipam).await?;
    let host = link::add_pair(&node, conf, bridge, &host_ifname, &request.ifname, netns, address).await?;
    let routes = pod_routes(ipam);
    let pod_mac = link::configure_pod(&pod, &request.ifname, address, &routes).await?;
    ports::add(address, &conf.runtime_config.port_mappings).await?;
    let host_mac = link::mac_text(host.address().unwrap_or_default());
    Ok(Added { bridge_mac, host_ifname, host_mac, pod_mac, address, gateway: ipam.gateway(), routes })
}

/// The configured routes, and always one to the gateway when none of them leads there.
fn pod_routes(ipam: &IpamConf) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let gateway = ipam.gateway();
    let mut routes: Vec<_> = ipam.routes.iter().map(|r| (r.dst.trunc(), r.gw.unwrap_or(gateway))).collect();
    if !routes.iter().any(|(dst, _)| dst.contains(&gateway)) {
        routes.push((ipam.subnet.trunc(), gateway));
    }
    routes
}

/// Undoes ADD from whatever is left of it. The address is freed last, so nobody else gets it while the pod's interface
/// or host ports still exist.
async fn del(request: &Request, conf: &NetConf, ipam: &IpamConf) -> Result<(), CniError> {
    let host_ifname = link::host_ifname(&conf.name, &request.container_id, &request.ifname);
    link::delete_pair(&link::node_connection()?, &host_ifname).await?;
    let held = Ipam::open(&ipam.data_dir, &conf.name)?.list()?;
    for r in held.iter().filter(|r| r.container_id == request.container_id && r.ifname == request.ifname) {
        ports::remove(r.address).await?;
        Ipam::open(&ipam.data_dir, &conf.name)?.remove(r)?;
    }
    Ok(())
}

async fn check(request: &Request, conf: &NetConf, ipam: &IpamConf) -> Result<(), CniError> {
    let broken = |what: String| {
        CniError::new(code::CHECK_FAILED, format!("container {} is not as ADD left it", request.container_id), what)
    };
    let (netns, path) = open_netns(request)?;
    let held = Ipam::open(&ipam.data_dir, &conf.name)?.list()?;
    let own = held.iter().find(|r| r.container_id == request.container_id && r.ifname == request.ifname);
    let own = own.ok_or_else(|| broken("it holds no address".to_owned()))?;
    let failed = || "cannot read the state of the network".to_owned();
    let node = link::node_connection()?;
    let bridge = node.get_link_by_name(conf.bridge.as_str()).await.context(code::NETLINK, failed)?;
    let bridge = bridge.ok_or_else(|| broken(format!("bridge {} is gone", conf.bridge)))?;
    let host_ifname = link::host_ifname(&conf.name, &request.container_id, &request.ifname);
    let host = node.get_link_by_name(host_ifname.as_str()).await.context(code::NETLINK, failed)?;
    if host.and_then(|h| h.master()) != Some(bridge.ifindex()) {
        return Err(broken(format!("{host_ifname} is not a port of bridge {}", conf.bridge)));
    }
    let pod = link::pod_connection(&netns, path)?;
    let eth = pod.get_link_by_name(request.ifname.as_str()).await.context(code::NETLINK, failed)?;
    let eth = eth.ok_or_else(|| broken(format!("interface {} is gone", request.ifname)))?;
    if !link::has_address(&pod, eth.ifindex(), own.address).await? {
        return Err(broken(format!("interface {} does not hold {}", request.ifname, own.address)));
    }
    let routes = pod.get_routes().await.context(code::NETLINK, failed)?;
    for (dst, gateway) in pod_routes(ipam) {
        let there = routes.iter().any(|r| {
            r.dst_len() == dst.prefix_len()
                && r.destination().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into()) == dst.network()
                && r.gateway().copied() == Some(gateway.into())
        });
        if !there {
            return Err(broken(format!("route {dst} via {gateway} is gone")));
        }
    }
    Ok(())
}

/// Frees what belongs to attachments that no longer exist.
async fn gc(conf: &NetConf, ipam: &IpamConf) -> Result<(), CniError> {
    let Some(valid) = &conf.valid_attachments else {
        let details = "cni.dev/valid-attachments is missing";
        return Err(CniError::new(code::INVALID_NETWORK_CONFIG, "invalid network configuration", details));
    };
    let stale = Ipam::open(&ipam.data_dir, &conf.name)?.stale(valid)?;
    let node = link::node_connection()?;
    for r in stale {
        link::delete_pair(&node, &link::host_ifname(&conf.name, &r.container_id, &r.ifname)).await?;
        ports::remove(r.address).await?;
        Ipam::open(&ipam.data_dir, &conf.name)?.remove(&r)?;
    }
    Ok(())
}

fn status(conf: &NetConf, ipam: &IpamConf) -> Result<(), CniError> {
    let unavailable = |why: String| CniError::new(code::NOT_AVAILABLE, "plugin not available", why);
    let store = Ipam::open(&ipam.data_dir, &conf.name).map_err(|e| unavailable(e.to_string()))?;
    if store.has_free(ipam)? {
        return Ok(());
    }
    Err(unavailable(format!("no IP addresses available in range {}", ipam.subnet)))
}

/// Opens the pod's namespace, which must not be the one we are in.
pub(crate) fn open_netns(request: &Request) -> Result<(File, &Path), CniError> {
    let path = request.netns.as_deref().unwrap_or(Path::new(""));
    let failed = || format!("failed to open netns {:?}", path.display().to_string());
    let netns = File::open(path).context(code::INVALID_ENVIRONMENT, failed)?;
    let pod = netns.metadata().context(code::IO, failed)?;
    let own = std::fs::metadata("/proc/thread-self/ns/net").context(code::IO, failed)?;
    if (pod.dev(), pod.ino()) == (own.dev(), own.ino()) {
        return Err(CniError::new(code::INVALID_NETNS, failed(), "it is the plugin's own namespace"));
    }
    Ok((netns, path))
}
