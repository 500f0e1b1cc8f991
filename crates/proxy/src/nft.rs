//! The nftables table: its fixed chains, one chain per [`Class`] of frontends, and the maps that hold everything that
//! changes.
//!
//! ```text
//! prerouting, output (nat) -> services -> map services: address . protocol . port -> chain of the class
//! class chain: map endpoints: address . protocol . port . random index -> address . port, then dnat
//! postrouting (nat): masquerade what was marked, or what reaches itself
//! ```
//!
//! Rejected: upstream's chain per service and per endpoint. Chains that depend on nothing but the *number* of endpoints
//! are made once and kept, so a change of a service is a few map entries in one transaction, whatever else there is.
//!
//! `nlink` speaks netlink for us; the one expression that it models with constants only (`dnat` to registers) goes as
//! raw attributes. So no `nft` program is needed on a node.

mod rules;

use std::net::{Ipv4Addr, SocketAddrV4};

use nlink::netlink::nftables::{
    BaseChain, Chain, ChainName, Family, NatHook, Priority, Set, SetDataType, SetElement, SetKeyType, Transaction,
    Verdict,
};

use crate::model::{Balance, Class, Entry, Frontend, Key, Masquerade, Value};

/// Name of the table.
pub(crate) const TABLE: &str = "keelson-proxy";

/// Clients remembered for session affinity, over all services; further ones are balanced without memory.
const STICKY_CLIENTS: u32 = 65_536;

/// Entries per netlink message, whose attributes are limited to 64 KiB.
const ENTRIES_PER_MESSAGE: usize = 256;

/// The whole table without entries: sets, maps, chains that always exist, and their rules.
pub(crate) fn create_table(batch: Transaction, service_cidr: Option<ipnet::Ipv4Net>) -> nlink::Result<Transaction> {
    let mut batch = batch.add_table(TABLE, Family::Ip);
    for set in [services(), endpoints(), sticky(), affinity(), cluster_ips(), hairpin(), firewalled(), allowed()] {
        batch = batch.add_set(set);
    }
    for (name, base) in [
        ("services", None),
        ("reject", None),
        ("prerouting", Some(BaseChain::nat(NatHook::Prerouting, Priority::DstNat))),
        ("output", Some(BaseChain::nat(NatHook::Output, Priority::DstNat))),
        ("postrouting", Some(BaseChain::nat(NatHook::Postrouting, Priority::SrcNat))),
    ] {
        let chain = Chain::new(TABLE, name)?.family(Family::Ip);
        batch = batch.add_chain(if let Some(base) = base { chain.base(base) } else { chain });
    }
    rules::fixed(service_cidr)?.into_iter().try_fold(batch, |batch, rule| Ok(batch.add_rule(rule)))
}

/// The chain of a class with its rules, if it has one of its own.
pub(crate) fn create_class(
    batch: Transaction,
    class: Class,
    cluster_cidr: Option<ipnet::Ipv4Net>,
) -> nlink::Result<Transaction> {
    let Class::Balance(balance) = class else { return Ok(batch) };
    let name = chain_name(&balance);
    let batch = batch.add_chain(Chain::new(TABLE, name.as_str())?.family(Family::Ip));
    let rules = rules::balance(&name, &balance, cluster_cidr)?;
    Ok(rules.into_iter().fold(batch, Transaction::add_rule))
}

/// Adds entries to their maps.
pub(crate) fn add_entries(batch: Transaction, entries: &[Entry]) -> nlink::Result<Transaction> {
    each_set(batch, entries, |batch, set, elements| batch.add_set_elements(set, elements))
}

/// Removes entries from their maps.
pub(crate) fn remove_entries(batch: Transaction, entries: &[Entry]) -> nlink::Result<Transaction> {
    let keys: Vec<Entry> = entries.iter().map(|(key, _)| (*key, Value::Member)).collect();
    each_set(batch, &keys, |batch, set, elements| batch.del_set_elements(set, elements))
}

/// Entries of one map, in as few messages as possible. `entries` are sorted, so those of a map are neighbours.
fn each_set(
    mut batch: Transaction,
    entries: &[Entry],
    send: impl Fn(Transaction, &Set, &[SetElement]) -> Transaction,
) -> nlink::Result<Transaction> {
    let same_set = |a: &Entry, b: &Entry| std::mem::discriminant(&a.0) == std::mem::discriminant(&b.0);
    for group in entries.chunk_by(same_set) {
        let Some((first, _)) = group.first() else { continue };
        let set = set_of(first);
        for chunk in group.chunks(ENTRIES_PER_MESSAGE) {
            let elements = chunk.iter().map(element).collect::<nlink::Result<Vec<_>>>()?;
            batch = send(batch, &set, &elements);
        }
    }
    Ok(batch)
}

fn set_of(key: &Key) -> Set {
    match key {
        Key::Service(_) => services(),
        Key::Endpoint(..) => endpoints(),
        Key::Sticky(..) => sticky(),
        Key::ClusterIp(_) => cluster_ips(),
        Key::Hairpin(_) => hairpin(),
        Key::Firewalled(_) => firewalled(),
        Key::Allowed(..) => allowed(),
    }
}

fn element((key, value): &Entry) -> nlink::Result<SetElement> {
    let element = match *key {
        Key::Service(frontend) | Key::Firewalled(frontend) => SetElement::concat(fields(frontend)),
        Key::Endpoint(frontend, index) => {
            SetElement::concat(fields(frontend).into_iter().chain([SetElement::mark(index)]))
        }
        Key::Sticky(frontend, to) => {
            let to = [SetElement::ipv4(*to.ip()), SetElement::port(to.port())];
            SetElement::concat(fields(frontend).into_iter().chain(to))
        }
        Key::ClusterIp(ip) => SetElement::ipv4(ip),
        Key::Hairpin(ip) => SetElement::concat([SetElement::ipv4(ip), SetElement::ipv4(ip)]),
        Key::Allowed(frontend, range) => {
            let clients = SetElement::ipv4_prefix(range.network(), range.prefix_len())?;
            SetElement::concat(fields(frontend).into_iter().chain([clients]))
        }
    };
    Ok(match value {
        Value::Member => element,
        Value::Class(class) => element.verdict(verdict(class)?),
        Value::To(to) => element.value(endpoint(*to)),
    })
}

fn fields(frontend: Frontend) -> [SetElement; 3] {
    let protocol = SetElement::inet_proto(frontend.protocol as u8);
    [SetElement::ipv4(frontend.ip), protocol, SetElement::port(frontend.port)]
}

fn endpoint(to: SocketAddrV4) -> SetElement {
    SetElement::concat([SetElement::ipv4(*to.ip()), SetElement::port(to.port())])
}

fn verdict(class: &Class) -> nlink::Result<Verdict> {
    Ok(match class {
        Class::Drop => Verdict::Drop,
        Class::Reject => Verdict::GotoTo(ChainName::new("reject")?),
        Class::Balance(balance) => Verdict::GotoTo(ChainName::new(chain_name(balance))?),
    })
}

/// Says what the class does: `lb-3-masq-off-cluster`, `lb-5-local-2-node-port-masq-sticky-10800`.
fn chain_name(balance: &Balance) -> String {
    let mut name = format!("lb-{}", balance.all);
    if let Some(local) = balance.local {
        name.push_str(&format!("-local-{local}"));
    }
    if balance.node_port {
        name.push_str("-node-port");
    }
    name.push_str(match balance.masquerade {
        Masquerade::Never => "",
        Masquerade::OffCluster => "-masq-off-cluster",
        Masquerade::Always => "-masq",
    });
    if let Some(seconds) = balance.sticky_seconds {
        name.push_str(&format!("-sticky-{seconds}"));
    }
    name
}

fn frontend_key(more: &[SetKeyType]) -> SetKeyType {
    let mut parts = vec![SetKeyType::Ipv4Addr, SetKeyType::InetProto, SetKeyType::InetService];
    parts.extend_from_slice(more);
    SetKeyType::Concat(parts)
}

fn endpoint_type() -> SetDataType {
    SetDataType::Value(SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::InetService]))
}

fn set(name: &str, key: SetKeyType) -> Set {
    Set::new(TABLE, name).family(Family::Ip).key_type(key)
}

fn services() -> Set {
    set("services", frontend_key(&[])).vmap()
}

fn endpoints() -> Set {
    set("endpoints", frontend_key(&[SetKeyType::Mark])).map(endpoint_type())
}

fn sticky() -> Set {
    set("sticky", frontend_key(&[SetKeyType::Ipv4Addr, SetKeyType::InetService]))
}

/// Client and frontend to endpoint, kept by the packet path itself.
fn affinity() -> Set {
    let key = vec![SetKeyType::Ipv4Addr, SetKeyType::Ipv4Addr, SetKeyType::InetProto, SetKeyType::InetService];
    let map = set("affinity", SetKeyType::Concat(key)).map(endpoint_type());
    map.dynamic().per_element_timeouts().size(STICKY_CLIENTS)
}

fn cluster_ips() -> Set {
    set("cluster-ips", SetKeyType::Ipv4Addr)
}

fn hairpin() -> Set {
    set("hairpin", SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::Ipv4Addr]))
}

fn firewalled() -> Set {
    set("firewalled", frontend_key(&[]))
}

fn allowed() -> Set {
    set("allowed", frontend_key(&[SetKeyType::Ipv4Addr])).interval()
}

/// 0.0.0.0 as a constant, which stands for a node port's address.
const ANY: [u8; 4] = Ipv4Addr::UNSPECIFIED.octets();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_say_what_they_do() {
        let plain =
            Balance { node_port: false, all: 3, local: None, masquerade: Masquerade::OffCluster, sticky_seconds: None };
        assert_eq!(chain_name(&plain), "lb-3-masq-off-cluster");
        let all = Balance {
            node_port: true,
            local: Some(2),
            masquerade: Masquerade::Always,
            sticky_seconds: Some(10_800),
            ..plain
        };
        assert_eq!(chain_name(&all), "lb-3-local-2-node-port-masq-sticky-10800");
    }
}
