//! Interfaces, addresses and routes, over netlink.
//!
//! Pods are *routed*: each holds its address with a /32 and one default route to the bridge's own address. So every
//! packet between two pods passes the node's IP layer, where services are translated, in both directions. Rejected: the
//! usual on-link /24, with which the answer of a service's endpoint to a client on the same bridge goes past the node's
//! connection tracking unless `br_netfilter` is loaded.
//!
//! Where `br_netfilter` is loaded all the same, it forwards a translated packet straight from port to port; then ports
//! must not be isolated, and a pod that reaches itself through a service needs hairpin mode.
//!
//! Hardware addresses are made from IP addresses (`0a:58:…`), so a reused address never meets a stale ARP entry.

use std::{fs::File, net::Ipv4Addr, os::fd::AsFd as _, path::Path};

use nlink::netlink::{
    Connection, InterfaceRef, Route,
    addr::Ipv4Address,
    link::{BridgeLink, BridgePortConfig, LinkCreateExt as _, VethLink},
    messages::LinkMessage,
    route::Ipv4Route,
};

use crate::{
    conf::{IpamConf, NetConf},
    error::{CniError, Context as _, code},
};

/// Opens the netlink socket of the node's network namespace.
pub(crate) fn node_connection() -> Result<Connection<Route>, CniError> {
    Connection::<Route>::new().context(code::NETLINK, || "cannot open a netlink socket".to_owned())
}

/// Opens the netlink socket of a pod's network namespace.
pub(crate) fn pod_connection(netns: &File, path: &Path) -> Result<Connection<Route>, CniError> {
    Connection::<Route>::new_in(netns.as_fd())
        .context(code::NETLINK, || format!("cannot enter netns {}", path.display()))
}

/// Name of the node's end of the pair for one attachment: always the same, so that DEL needs no memory and a repeated ADD
/// finds what an earlier one left.
pub(crate) fn host_ifname(network: &str, container_id: &str, ifname: &str) -> String {
    let parts = [network, "\0", container_id, "\0", ifname];
    // FNV-1a: names must not change between builds, which std's hashers do not promise.
    let hash = parts
        .iter()
        .flat_map(|p| p.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("klv{:012x}", hash & 0xffff_ffff_ffff)
}

/// The hardware address that belongs to `address`.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// The usual text form of a hardware address.
pub(crate) fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// Finds the bridge, or makes it: up, with the gateway's address, and the node forwarding packets. Two calls at the same
/// time are fine. Returns its index and hardware address.
pub(crate) async fn ensure_bridge(
    conn: &Connection<Route>,
    conf: &NetConf,
    ipam: &IpamConf,
) -> Result<(u32, String), CniError> {
    let name = conf.bridge.as_str();
    let failed = || format!("cannot set up bridge {name}");
    let gateway = ipam.gateway();
    if let Some(link) = conn.get_link_by_name(name).await.context(code::NETLINK, failed)? {
        if link.kind() != Some("bridge") {
            return Err(CniError::new(
                code::INVALID_NETWORK_CONFIG,
                failed(),
                "an interface of another kind has its name",
            ));
        }
        // Complete, unless a call was killed in the middle of making it, or the node's range changed.
        if link.is_up() && has_address(conn, link.ifindex(), gateway).await? {
            return Ok((link.ifindex(), mac_text(link.address().unwrap_or_default())));
        }
    } else {
        let mut bridge = BridgeLink::new(name).address(mac_of(gateway));
        if let Some(mtu) = conf.mtu {
            bridge = bridge.mtu(mtu);
        }
        match conn.add_link(bridge).await {
            Err(e) if e.is_already_exists() => {}
            done => done.context(code::NETLINK, failed)?,
        }
    }
    let link = conn.get_link_by_name(name).await.context(code::NETLINK, failed)?;
    let link = link.ok_or_else(|| CniError::new(code::NETLINK, failed(), "it disappeared"))?;
    // A redirect would tell pods of one node to talk past the node.
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        (&format!("net/ipv4/conf/{name}/send_redirects"), "0"),
    ] {
        set_sysctl(key, value)?;
    }
    let address = Ipv4Address::with_index(link.ifindex(), gateway, ipam.subnet.prefix_len());
    conn.replace_address(address).await.context(code::NETLINK, failed)?;
    conn.set_link_up_by_index(link.ifindex()).await.context(code::NETLINK, failed)?;
    Ok((link.ifindex(), mac_text(link.address().unwrap_or_default())))
}

/// Makes the pair of interfaces: one end a port of the bridge, the other in the pod's namespace. Returns the node's end.
pub(crate) async fn add_pair(
    conn: &Connection<Route>,
    conf: &NetConf,
    bridge: u32,
    host: &str,
    ifname: &str,
    netns: &File,
    address: Ipv4Addr,
) -> Result<LinkMessage, CniError> {
    let failed = || format!("cannot create interface {ifname} of the pod");
    let pair = || {
        let pair = VethLink::new(host, ifname).peer_address(mac_of(address)).peer_netns_fd(netns);
        let pair = if let Some(mtu) = conf.mtu { pair.mtu(mtu) } else { pair };
        pair.master(InterfaceRef::Index(bridge)).up()
    };
    match conn.add_link(pair()).await {
        Err(e) if e.is_already_exists() => {
            // What an ADD that was killed left behind; a live interface of the pod with that name stays an error.
            conn.del_link_if_exists(host).await.context(code::NETLINK, failed)?;
            conn.add_link(pair()).await.context(code::NETLINK, failed)?;
        }
        done => done.context(code::NETLINK, failed)?,
    }
    let link = conn.get_link_by_name(host).await.context(code::NETLINK, failed)?;
    let link = link.ok_or_else(|| CniError::new(code::NETLINK, failed(), format!("{host} disappeared")))?;
    let port = BridgePortConfig::new().hairpin(conf.hairpin_mode);
    conn.set_bridge_port_by_index(link.ifindex(), port).await.context(code::NETLINK, failed)?;
    Ok(link)
}

/// Configures the pod's end: address, up, routes.
pub(crate) async fn configure_pod(
    conn: &Connection<Route>,
    ifname: &str,
    address: Ipv4Addr,
    routes: &[(ipnet::Ipv4Net, Ipv4Addr)],
) -> Result<String, CniError> {
    let failed = || format!("cannot configure interface {ifname} of the pod");
    let link = conn.get_link_by_name(ifname).await.context(code::NETLINK, failed)?;
    let link = link.ok_or_else(|| CniError::new(code::NETLINK, failed(), "it disappeared"))?;
    let index = link.ifindex();
    conn.add_address(Ipv4Address::with_index(index, address, 32)).await.context(code::NETLINK, failed)?;
    conn.set_link_up_by_index(index).await.context(code::NETLINK, failed)?;
    for (dst, gateway) in routes {
        // On-link: with a /32 no route leads to the gateway itself.
        let route = Ipv4Route::from_addr(dst.network(), dst.prefix_len()).gateway(*gateway).dev_index(index).onlink();
        conn.add_route(route)
            .await
            .context(code::NETLINK, || format!("cannot add route {dst} via {gateway} to the pod"))?;
    }
    Ok(mac_text(link.address().unwrap_or_default()))
}

/// Removes the pair by the node's end, which takes the pod's end with it; none is fine.
pub(crate) async fn delete_pair(conn: &Connection<Route>, host: &str) -> Result<(), CniError> {
    let gone = conn.del_link_if_exists(host).await;
    gone.map(|_| ()).context(code::NETLINK, || format!("cannot delete interface {host}"))
}

/// Whether interface `index` holds `address`.
pub(crate) async fn has_address(conn: &Connection<Route>, index: u32, address: Ipv4Addr) -> Result<bool, CniError> {
    let all = conn.get_addresses_by_index(index).await;
    let all = all.context(code::NETLINK, || "cannot list addresses".to_owned())?;
    Ok(all.iter().any(|a| a.local().or(a.address()).copied() == Some(address.into())))
}

/// Sets a kernel parameter of the calling thread's network namespace, unless it has the value already.
fn set_sysctl(key: &str, value: &str) -> Result<(), CniError> {
    let path = Path::new("/proc/sys").join(key);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).context(code::IO, || format!("cannot set {} to {value}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_stable_short_and_differ() {
        let name = host_ifname("keelson", "abc", "eth0");
        assert_eq!(name, host_ifname("keelson", "abc", "eth0"));
        assert_eq!(name.len(), 15);
        assert_ne!(name, host_ifname("keelson", "abce", "th0"));
        assert_ne!(name, host_ifname("other", "abc", "eth0"));
    }

    #[test]
    fn hardware_addresses_follow_ip_addresses() {
        assert_eq!(mac_text(&mac_of(Ipv4Addr::new(10, 244, 0, 5))), "0a:58:0a:f4:00:05");
    }
}
