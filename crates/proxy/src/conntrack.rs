//! UDP flows the kernel remembers although their endpoint is gone, or from before the service had any.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
};

use nlink::netlink::{
    Connection, Netfilter,
    netfilter::{ConntrackEntry, IpProtocol},
};

use crate::{
    model::{Frontend, Key, Protocol},
    state::Diff,
};

/// Which flows are stale after a change.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    /// The endpoints of every UDP frontend that changed: flows to others are stale.
    live: HashMap<(Ipv4Addr, u16), HashSet<SocketAddrV4>>,
    /// Frontends that are new or change between refusing and balancing: flows past the translation are stale.
    fresh: HashSet<(Ipv4Addr, u16)>,
}

impl Stale {
    /// `endpoints` are those of a frontend after the change.
    pub(crate) fn of(diff: &Diff, endpoints: impl Fn(Frontend) -> HashSet<SocketAddrV4>) -> Self {
        let mut stale = Self::default();
        for (key, _) in diff.remove.iter().chain(&diff.add) {
            let (Key::Service(frontend) | Key::Endpoint(frontend, _)) = key else { continue };
            if frontend.protocol == Protocol::Udp {
                let at = (frontend.ip, frontend.port);
                stale.live.entry(at).or_insert_with(|| endpoints(*frontend));
                if matches!(key, Key::Service(_)) {
                    stale.fresh.insert(at);
                }
            }
        }
        stale
    }

    /// Deletes the stale flows.
    pub(crate) async fn forget(&self, conn: &Connection<Netfilter>) -> nlink::Result<()> {
        if self.live.is_empty() {
            return Ok(());
        }
        for flow in conn.get_conntrack().await?.iter().filter(|flow| is_stale(flow, self)) {
            match conn.del_conntrack_entry(flow).await {
                Err(e) if e.is_not_found() => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Whether the flow that was sent to `to` and is answered by `from` is stale.
    fn matches(&self, to: SocketAddrV4, from: SocketAddrV4) -> bool {
        // A node port is known under 0.0.0.0.
        [*to.ip(), Ipv4Addr::UNSPECIFIED].into_iter().any(|ip| {
            let at = (ip, to.port());
            let lost = self.live.get(&at).is_some_and(|live| !live.contains(&from));
            lost && (from != to || self.fresh.contains(&at))
        })
    }
}

fn is_stale(flow: &ConntrackEntry, stale: &Stale) -> bool {
    let address = |ip: Option<IpAddr>, port: Option<u16>| match (ip, port) {
        (Some(IpAddr::V4(ip)), Some(port)) => Some(SocketAddrV4::new(ip, port)),
        _ => None,
    };
    let to = address(flow.orig.dst_ip, flow.orig.dst_port);
    let from = address(flow.reply.src_ip, flow.reply.src_port);
    flow.proto == IpProtocol::Udp && to.zip(from).is_some_and(|(to, from)| stale.matches(to, from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Class, Value};

    #[test]
    fn only_flows_to_other_than_live_endpoints_are_stale() {
        let at = |s: &str| s.parse::<SocketAddrV4>().unwrap();
        let frontend = Frontend { ip: Ipv4Addr::new(10, 96, 0, 10), protocol: Protocol::Udp, port: 53 };
        let node_port = Frontend { ip: Ipv4Addr::UNSPECIFIED, port: 30053, ..frontend };
        let tcp = Frontend { protocol: Protocol::Tcp, port: 54, ..frontend };
        let endpoint = |f, to: &str| (Key::Endpoint(f, 0), Value::To(at(to)));
        let diff = Diff {
            remove: vec![endpoint(frontend, "10.0.0.1:53"), endpoint(tcp, "10.0.0.9:53")],
            add: vec![endpoint(frontend, "10.0.0.2:53"), (Key::Service(node_port), Value::Class(Class::Reject))],
        };
        let live = |f: Frontend| if f == frontend { [at("10.0.0.2:53")].into() } else { HashSet::new() };
        let stale = Stale::of(&diff, live);
        let check = |to, from, expected| assert_eq!(stale.matches(at(to), at(from)), expected, "{to} {from}");
        check("10.96.0.10:53", "10.0.0.1:53", true);
        check("10.96.0.10:53", "10.0.0.2:53", false);
        check("10.96.0.10:53", "10.0.0.9:53", true);
        check("10.96.0.11:53", "10.0.0.9:53", false);
        check("10.96.0.10:54", "10.0.0.9:53", false);
        check("192.0.2.1:30053", "10.0.0.1:53", true);
        check("192.0.2.1:30053", "192.0.2.1:30053", true);
        // Not translated before, and its service only changed an endpoint: a flow of somebody else's.
        check("10.96.0.10:53", "10.96.0.10:53", false);
    }
}
