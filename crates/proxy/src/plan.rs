//! The pure half: from one service and its endpoint slices to the entries of the kernel's maps.

mod endpoints;

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use k8s_openapi::api::{
    core::v1::{Service, ServicePort, ServiceSpec},
    discovery::v1::EndpointSlice,
};

use crate::model::{Balance, Class, Entry, Frontend, Key, LOCAL, Masquerade, Protocol, Value};
use endpoints::Usable;

/// Endpoints used per service port; more are left out. Bounds the number of rules.
pub const MAX_ENDPOINTS: usize = 10_000;

/// Label of services and slices that another proxy serves.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// What planning must know about the node.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Name of the node, as in `endpoints[].nodeName`.
    pub name: String,
    /// Addresses of all pods of the cluster. When known, clients from elsewhere are masqueraded to cluster IPs.
    pub cluster_cidr: Option<Ipv4Net>,
    /// The services' range: addresses in it that no service has are dropped.
    pub service_cidr: Option<Ipv4Net>,
    /// Masquerades everybody to cluster IPs.
    pub masquerade_all: bool,
}

/// The entries for `service`; none when it is none of this proxy's business.
pub fn plan<'a>(
    node: &NodeView,
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    let Some(spec) = service.spec.as_ref().filter(|_| is_ours(service)) else { return entries };
    for port in spec.ports.iter().flatten() {
        let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else { continue };
        let usable = Usable::select(&node.name, port.name.as_deref().unwrap_or(""), protocol, slices.clone());
        plan_port(node, service, spec, port, protocol, &usable, &mut entries);
    }
    entries
}

/// Headless, ExternalName and foreign services have nothing to translate.
fn is_ours(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    let foreign = labels.is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL));
    let spec = service.spec.as_ref();
    !foreign && spec.is_some_and(|s| s.type_.as_deref() != Some("ExternalName")) && !cluster_ips(spec).is_empty()
}

/// The service's IPv4 addresses.
fn cluster_ips(spec: Option<&ServiceSpec>) -> Vec<Ipv4Addr> {
    let Some(spec) = spec else { return Vec::new() };
    let all = match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ips.as_slice(),
        _ => spec.cluster_ip.as_slice(),
    };
    all.iter().filter_map(|ip| ip.parse().ok()).collect()
}

fn plan_port(
    node: &NodeView,
    service: &Service,
    spec: &ServiceSpec,
    port: &ServicePort,
    protocol: Protocol,
    usable: &Usable,
    entries: &mut Vec<Entry>,
) {
    let Some(number) = u16::try_from(port.port).ok().filter(|n| *n > 0) else { return };
    let sticky_seconds = sticky_seconds(spec);
    let internal = match (node.masquerade_all, node.cluster_cidr) {
        (true, _) => Masquerade::Always,
        (false, Some(_)) => Masquerade::OffCluster,
        (false, None) => Masquerade::Never,
    };
    let inside = if spec.internal_traffic_policy.as_deref() == Some("Local") { &usable.local } else { &usable.all };
    for ip in cluster_ips(Some(spec)) {
        let balance = |all| Balance { node_port: false, all, local: None, masquerade: internal, sticky_seconds };
        let frontend = Frontend { ip, protocol, port: number };
        publish(frontend, class(usable, inside.len(), balance), inside, &[], entries);
        entries.push((Key::ClusterIp(ip), Value::Member));
    }
    let local_only = spec.external_traffic_policy.as_deref() == Some("Local");
    let outside = |node_port| {
        let local = if local_only { Some(count(usable.local.len())) } else { None };
        move |all| Balance { node_port, all, local, masquerade: Masquerade::Always, sticky_seconds }
    };
    let local: &[SocketAddrV4] = if local_only { &usable.local } else { &[] };
    let external = |ip| Frontend { ip, protocol, port: number };
    for ip in spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()) {
        publish(external(ip), class(usable, usable.all.len(), outside(false)), &usable.all, local, entries);
    }
    for ip in load_balancer_ips(service) {
        publish(external(ip), class(usable, usable.all.len(), outside(false)), &usable.all, local, entries);
        firewall(external(ip), spec, entries);
    }
    let node_port = port.node_port.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    if let Some(node_port) = node_port.filter(|_| matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))) {
        let frontend = Frontend { ip: Ipv4Addr::UNSPECIFIED, protocol, port: node_port };
        publish(frontend, class(usable, usable.all.len(), outside(true)), &usable.all, local, entries);
    }
    entries.extend(usable.hairpin.iter().map(|ip| (Key::Hairpin(*ip), Value::Member)));
}

/// Refuse without any endpoints, drop without any that may be used from here, else balance.
fn class(usable: &Usable, candidates: usize, balance: impl FnOnce(u32) -> Balance) -> Class {
    match (usable.all.len(), candidates) {
        (0, _) => Class::Reject,
        (_, 0) => Class::Drop,
        (_, n) => Class::Balance(balance(count(n))),
    }
}

/// The entries of one frontend.
fn publish(frontend: Frontend, class: Class, all: &[SocketAddrV4], local: &[SocketAddrV4], entries: &mut Vec<Entry>) {
    entries.push((Key::Service(frontend), Value::Class(class)));
    let Class::Balance(balance) = class else { return };
    for (base, endpoints) in [(0, all), (LOCAL, local)] {
        let indexed = (base..).zip(endpoints);
        entries.extend(indexed.map(|(index, to)| (Key::Endpoint(frontend, index), Value::To(*to))));
    }
    if balance.sticky_seconds.is_some() {
        entries.extend(all.iter().map(|to| (Key::Sticky(frontend, *to), Value::Member)));
    }
}

/// `loadBalancerSourceRanges`. A range that is not IPv4 allows nobody, but still closes the port to others.
fn firewall(frontend: Frontend, spec: &ServiceSpec, entries: &mut Vec<Entry>) {
    let Some(ranges) = spec.load_balancer_source_ranges.as_ref().filter(|ranges| !ranges.is_empty()) else { return };
    let ranges: Vec<Ipv4Net> = ranges.iter().filter_map(|range| range.trim().parse().ok()).collect();
    if ranges.iter().any(|range| range.prefix_len() == 0) {
        return;
    }
    entries.push((Key::Firewalled(frontend), Value::Member));
    // Ranges inside others add nothing, and the kernel refuses overlaps.
    for range in Ipv4Net::aggregate(&ranges) {
        entries.push((Key::Allowed(frontend, range), Value::Member));
    }
}

/// Addresses of the load balancer that are to be served here: not those whose `ipMode` is `Proxy`.
fn load_balancer_ips(service: &Service) -> Vec<Ipv4Addr> {
    let is_balanced = service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
    let status = service.status.as_ref().filter(|_| is_balanced).and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|s| s.ingress.as_deref()).unwrap_or_default();
    let here = ingress.iter().filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
    // A loopback address is the host's, not the node's: somebody else forwards from there.
    here.filter_map(|i| i.ip.as_deref()?.parse::<Ipv4Addr>().ok()).filter(|ip| !ip.is_loopback()).collect()
}

fn sticky_seconds(spec: &ServiceSpec) -> Option<u32> {
    (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        let seconds = config.and_then(|c| c.timeout_seconds).and_then(|s| u32::try_from(s).ok());
        seconds.filter(|s| *s > 0).unwrap_or(10_800)
    })
}

/// Lists are at most [`MAX_ENDPOINTS`] long.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
