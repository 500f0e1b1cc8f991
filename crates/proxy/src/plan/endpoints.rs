//! Which endpoints of a service port may be used, from the slices.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::MAX_ENDPOINTS;
use crate::model::Protocol;

/// The usable endpoints of one service port, ordered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Usable {
    /// In the whole cluster.
    pub(super) all: Vec<SocketAddrV4>,
    /// On this node.
    pub(super) local: Vec<SocketAddrV4>,
    /// Addresses on this node that may be clients too.
    pub(super) hairpin: Vec<Ipv4Addr>,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    ready: bool,
    /// Still answers, but is going away.
    draining: bool,
    local: bool,
}

impl Usable {
    /// Ready endpoints; where there are none, those that are terminating but still serve (KEP-1669).
    pub(super) fn select<'a>(
        node: &str,
        port: &str,
        protocol: Protocol,
        slices: impl Iterator<Item = &'a EndpointSlice>,
    ) -> Self {
        // Ordered and without duplicates: an endpoint may be in two slices while it moves between them.
        let mut found: BTreeMap<SocketAddrV4, State> = BTreeMap::new();
        for slice in slices.filter(|s| s.address_type == "IPv4") {
            let matches = slice.ports.iter().flatten().filter(|p| {
                p.name.as_deref().unwrap_or("") == port && Protocol::parse(p.protocol.as_deref()) == Some(protocol)
            });
            for number in matches.filter_map(|p| p.port).filter_map(|n| u16::try_from(n).ok()) {
                for endpoint in &slice.endpoints {
                    // Consumers use the first address only: all of an endpoint are interchangeable.
                    let Some(ip) = endpoint.addresses.first().and_then(|a| a.parse().ok()) else { continue };
                    let state = found.entry(SocketAddrV4::new(ip, number)).or_default();
                    let (ready, draining) = conditions(endpoint);
                    state.ready |= ready;
                    state.draining |= draining;
                    state.local |= endpoint.node_name.as_deref() == Some(node);
                }
            }
        }
        let pick = |only_local: bool| -> Vec<SocketAddrV4> {
            let candidates = || found.iter().filter(move |(_, s)| s.local || !only_local);
            let take = |usable: fn(&State) -> bool| {
                candidates().filter(|(_, s)| usable(s)).map(|(to, _)| *to).take(MAX_ENDPOINTS).collect::<Vec<_>>()
            };
            let ready = take(|s| s.ready);
            if ready.is_empty() { take(|s| s.draining) } else { ready }
        };
        let all = pick(false);
        let is_local = |to: &&SocketAddrV4| found.get(to).is_some_and(|s| s.local);
        let mut hairpin: Vec<Ipv4Addr> = all.iter().filter(is_local).map(|to| *to.ip()).collect();
        hairpin.dedup();
        Self { local: pick(true), all, hairpin }
    }
}

/// (ready, terminating but serving).
fn conditions(endpoint: &Endpoint) -> (bool, bool) {
    let c = endpoint.conditions.as_ref();
    let ready = c.and_then(|c| c.ready).unwrap_or(true);
    let serving = c.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = c.and_then(|c| c.terminating).unwrap_or(false);
    (ready, serving && terminating)
}
