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
    model::{Frontend, Key, Protocol, Value},
    state::Diff,
};

/// Which flows are stale after a change.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    /// Endpoints a frontend lost.
    lost: HashMap<(Ipv4Addr, u16), HashSet<SocketAddrV4>>,
    /// Frontends that were new, or had been refused: flows past the translation.
    untranslated: HashSet<(Ipv4Addr, u16)>,
}

impl Stale {
    pub(crate) fn of(diff: &Diff) -> Self {
        let mut stale = Self::default();
        let udp = |f: &Frontend| (f.protocol == Protocol::Udp).then_some((f.ip, f.port));
        for (key, value) in &diff.remove {
            let (Key::Endpoint(frontend, _), Value::To(to)) = (key, value) else { continue };
            if let Some(at) = udp(frontend) {
                stale.lost.entry(at).or_default().insert(*to);
            }
        }
        for (key, value) in &diff.add {
            match (key, value) {
                // Only moved to another index.
                (Key::Endpoint(frontend, _), Value::To(to)) => {
                    if let Some(lost) = udp(frontend).and_then(|at| stale.lost.get_mut(&at)) {
                        lost.remove(to);
                    }
                }
                (Key::Service(frontend), _) => stale.untranslated.extend(udp(frontend)),
                _ => {}
            }
        }
        stale.lost.retain(|_, endpoints| !endpoints.is_empty());
        stale
    }

    fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.untranslated.is_empty()
    }

    /// Whether the flow that was sent to `to` and is answered by `from` is stale.
    fn matches(&self, to: SocketAddrV4, from: SocketAddrV4) -> bool {
        // A node port is known under 0.0.0.0.
        [*to.ip(), Ipv4Addr::UNSPECIFIED].into_iter().any(|ip| {
            let at = (ip, to.port());
            let lost = self.lost.get(&at).is_some_and(|endpoints| endpoints.contains(&from));
            lost || (from == to && self.untranslated.contains(&at))
        })
    }
}

/// Deletes the stale flows.
pub(crate) async fn forget(conn: &Connection<Netfilter>, stale: &Stale) -> nlink::Result<()> {
    if stale.is_empty() {
        return Ok(());
    }
    for flow in conn.get_conntrack().await?.iter().filter(|flow| is_stale(flow, stale)) {
        match conn.del_conntrack_entry(flow).await {
            Err(e) if e.is_not_found() => {}
            done => done?,
        }
    }
    Ok(())
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
    fn only_lost_endpoints_and_untranslated_flows_are_stale() {
        let at = |s: &str| s.parse::<SocketAddrV4>().unwrap();
        let frontend = Frontend { ip: Ipv4Addr::new(10, 96, 0, 10), protocol: Protocol::Udp, port: 53 };
        let node_port = Frontend { ip: Ipv4Addr::UNSPECIFIED, port: 30053, ..frontend };
        let tcp = Frontend { protocol: Protocol::Tcp, ..frontend };
        let endpoint = |f, i, to: &str| (Key::Endpoint(f, i), Value::To(at(to)));
        let diff = Diff {
            remove: vec![
                endpoint(frontend, 0, "10.0.0.1:53"),
                endpoint(frontend, 1, "10.0.0.2:53"),
                endpoint(node_port, 0, "10.0.0.1:53"),
                endpoint(tcp, 0, "10.0.0.9:53"),
            ],
            add: vec![endpoint(frontend, 0, "10.0.0.2:53"), (Key::Service(node_port), Value::Class(Class::Reject))],
        };
        let stale = Stale::of(&diff);
        let check = |to, from, expected| assert_eq!(stale.matches(at(to), at(from)), expected, "{to} {from}");
        check("10.96.0.10:53", "10.0.0.1:53", true);
        check("10.96.0.10:53", "10.0.0.2:53", false);
        check("10.96.0.10:53", "10.0.0.9:53", false);
        check("10.96.0.10:53", "10.96.0.10:53", false);
        check("192.0.2.1:30053", "10.0.0.1:53", true);
        check("192.0.2.1:30053", "192.0.2.1:30053", true);
    }
}
