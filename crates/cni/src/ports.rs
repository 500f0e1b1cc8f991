//! Host ports (`portMappings`): an nftables table of our own in the node's namespace that sends a port of the node to a
//! pod. Two maps hold all there is to change, `protocol . port` and `address . protocol . port`, both to the pod's
//! `address . port`; the rules never change.
//!
//! Not served: a host port through 127.0.0.1, which would take `route_localnet` (CVE-2020-8558).

use std::net::Ipv4Addr;

use nlink::netlink::{
    Connection, Nftables,
    nftables::{
        BaseChain, Chain, CtStatus, Expr, Family, FibFlags, LookupExpr, MetaKey, NatHook, PayloadBase, Priority,
        RawExpr, Register, Rule, Set, SetDataType, SetElement, SetElementData, SetKeyType, Transaction,
    },
    types::route::RouteType,
};

use crate::{
    conf::PortMapping,
    error::{CniError, Context as _, code},
};

const TABLE: &str = "keelson-hostports";

/// One host port, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HostPort {
    host_ip: Option<Ipv4Addr>,
    protocol: u8,
    host_port: u16,
    pod: (Ipv4Addr, u16),
}

/// Makes `mappings` lead to the pod at `address`.
pub(crate) async fn add(address: Ipv4Addr, mappings: &[PortMapping]) -> Result<(), CniError> {
    let ports = plan(address, mappings)?;
    if ports.is_empty() {
        return Ok(());
    }
    let conn = connect()?;
    // What an earlier life of the address left would be refused as a conflict below.
    remove_elements(&conn, address).await?;
    let failed = || "cannot install host ports".to_owned();
    // Another call may make the table between our two looks at it.
    let mut done = elements(conn.transaction(), address, &ports).commit(&conn).await;
    if done.as_ref().is_err_and(nlink::Error::is_not_found) {
        let with_table = elements(base(conn.transaction()).context(code::NETLINK, failed)?, address, &ports);
        done = with_table.commit(&conn).await;
        if done.as_ref().is_err_and(nlink::Error::is_already_exists) {
            done = elements(conn.transaction(), address, &ports).commit(&conn).await;
        }
    }
    match done {
        Err(e) if e.is_already_exists() => {
            let ports: Vec<String> = ports.iter().map(|p| p.host_port.to_string()).collect();
            let details = format!("one of the host ports {} is taken by another pod", ports.join(", "));
            Err(CniError::new(code::TRY_AGAIN_LATER, failed(), details))
        }
        done => done.context(code::NETLINK, failed),
    }
}

/// The pod's entries of the maps.
fn elements(mut batch: Transaction, address: Ipv4Addr, ports: &[HostPort]) -> Transaction {
    for port in ports {
        let value = SetElement::concat([SetElement::ipv4(port.pod.0), SetElement::port(port.pod.1)]);
        let key = [SetElement::inet_proto(port.protocol), SetElement::port(port.host_port)];
        batch = match port.host_ip {
            None => batch.add_set_elements(&any_map(), &[SetElement::concat(key).value(value)]),
            Some(ip) => {
                let key = SetElement::concat([SetElement::ipv4(ip)].into_iter().chain(key));
                batch.add_set_elements(&bound_map(), &[key.value(value)])
            }
        };
    }
    let own = SetElement::concat([SetElement::ipv4(address), SetElement::ipv4(address)]);
    batch.add_set_elements(&own_set(), &[own])
}

/// Removes every host port that leads to `address`; none is fine.
pub(crate) async fn remove(address: Ipv4Addr) -> Result<(), CniError> {
    remove_elements(&connect()?, address).await
}

fn connect() -> Result<Connection<Nftables>, CniError> {
    Connection::<Nftables>::new().context(code::NETLINK, || "cannot open an nftables socket".to_owned())
}

async fn remove_elements(conn: &Connection<Nftables>, address: Ipv4Addr) -> Result<(), CniError> {
    let failed = || format!("cannot remove the host ports of {address}");
    let mut batch = conn.transaction();
    let mut found = false;
    for map in [any_map(), bound_map(), own_set()] {
        let elements = match conn.list_set_elements(TABLE, map.name(), Family::Ip).await {
            Err(e) if e.is_not_found() => return Ok(()),
            listed => listed.context(code::NETLINK, failed)?,
        };
        let mine = |e: &&SetElement| match e.data() {
            Some(SetElementData::Value(value)) => value.starts_with(&address.octets()),
            _ => e.key().starts_with(&address.octets()),
        };
        let keys: Vec<SetElement> = elements.iter().filter(mine).map(|e| SetElement::new(e.key().to_vec())).collect();
        if !keys.is_empty() {
            found = true;
            batch = batch.del_set_elements(&map, &keys);
        }
    }
    if found { batch.commit(conn).await.context(code::NETLINK, failed) } else { Ok(()) }
}

/// Checks the runtime's mappings. Those without a host port need nothing.
fn plan(address: Ipv4Addr, mappings: &[PortMapping]) -> Result<Vec<HostPort>, CniError> {
    let mut ports = Vec::new();
    for mapping in mappings.iter().filter(|m| m.host_port > 0) {
        let invalid = |what: String| CniError::new(code::INVALID_NETWORK_CONFIG, "invalid portMappings", what);
        let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            other => return Err(invalid(format!("protocol {other:?}"))),
        };
        let port = |n: i32| u16::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| invalid(format!("port {n}")));
        let host_ip = match mapping.host_ip.as_str() {
            "" | "0.0.0.0" | "::" => None,
            text => Some(text.parse().map_err(|_| invalid(format!("hostIP {text:?} is not an IPv4 address")))?),
        };
        let pod = (address, port(mapping.container_port)?);
        ports.push(HostPort { host_ip, protocol, host_port: port(mapping.host_port)?, pod });
    }
    Ok(ports)
}

fn endpoint_type() -> SetDataType {
    SetDataType::Value(SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::InetService]))
}

fn any_map() -> Set {
    let key = SetKeyType::Concat(vec![SetKeyType::InetProto, SetKeyType::InetService]);
    Set::new(TABLE, "ports").family(Family::Ip).key_type(key).map(endpoint_type())
}

fn bound_map() -> Set {
    let key = SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::InetProto, SetKeyType::InetService]);
    Set::new(TABLE, "bound-ports").family(Family::Ip).key_type(key).map(endpoint_type())
}

/// `pod . pod` for pods with host ports: what a pod that reaches itself looks like after translation.
fn own_set() -> Set {
    let key = SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::Ipv4Addr]);
    Set::new(TABLE, "pods").family(Family::Ip).key_type(key)
}

/// The table, its maps, chains and rules; refused as a whole when they exist.
fn base(batch: Transaction) -> nlink::Result<Transaction> {
    let chain = |name: &str| Chain::new(TABLE, name).map(|c| c.family(Family::Ip));
    // Before the services' own chains: a host port is more specific than a node port.
    let nat = |hook| BaseChain::nat(hook, Priority::Custom(-110));
    let rule = |chain: &str| Rule::new(TABLE, chain).family(Family::Ip);
    let mut batch = batch
        .add_table(TABLE, Family::Ip)
        .add_set(any_map())
        .add_set(bound_map())
        .add_set(own_set())
        .add_chain(chain("ports")?)
        .add_chain(chain("prerouting")?.base(nat(NatHook::Prerouting)))
        .add_chain(chain("output")?.base(nat(NatHook::Output)))
        .add_chain(chain("postrouting")?.base(BaseChain::nat(NatHook::Postrouting, Priority::SrcNat)));
    for hook in ["prerouting", "output"] {
        let to_node = rule(hook).match_fib_type(FibFlags::DADDR, RouteType::Local);
        batch = batch.add_rule(to_node.try_jump("ports")?);
    }
    let loopback = rule("ports")
        .match_daddr_v4(Ipv4Addr::LOCALHOST, 8)
        .expr(Expr::Verdict(nlink::netlink::nftables::Verdict::Return));
    let word = |n| Register::word(n).unwrap_or(Register::R0);
    let l4proto = |n| Expr::Meta { dreg: word(n), key: MetaKey::L4Proto };
    let dport = |n| Expr::Payload { dreg: word(n), base: PayloadBase::Transport, offset: 2, len: 2 };
    let daddr = |n| Expr::Payload { dreg: word(n), base: PayloadBase::Network, offset: 16, len: 4 };
    let saddr = |n| Expr::Payload { dreg: word(n), base: PayloadBase::Network, offset: 12, len: 4 };
    let find = |map: &str| LookupExpr::new(map, word(0)).dreg(word(4));
    let bound = rule("ports").expr(daddr(0)).expr(l4proto(1)).expr(dport(2)).expr(find("bound-ports")).expr(dnat(4, 5));
    let any = rule("ports").expr(l4proto(0)).expr(dport(1)).expr(find("ports")).expr(dnat(4, 5));
    let own = rule("postrouting").match_ct_status(CtStatus::DST_NAT).expr(saddr(0)).expr(daddr(1));
    let own = own.expr(LookupExpr::new("pods", word(0))).masquerade();
    Ok(batch.add_rule(loopback).add_rule(bound).add_rule(any).add_rule(own))
}

/// `dnat ip to` the address and port in 32-bit words `address` and `port` of the registers. nlink models only constants.
fn dnat(address: usize, port: usize) -> RawExpr {
    const NF_NAT_RANGE_MAP_IPS: u32 = 1;
    const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 2;
    let reg = |n| Register::word(n).map_or(0, Register::wire);
    let attributes = [
        (1, 1), // NFTA_NAT_TYPE: NFT_NAT_DNAT
        (2, 2), // NFTA_NAT_FAMILY: NFPROTO_IPV4
        (3, reg(address)),
        (4, reg(address)),
        (5, reg(port)),
        (6, reg(port)),
        (7, NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED),
    ];
    let mut data = Vec::with_capacity(8 * attributes.len());
    for (kind, value) in attributes {
        data.extend_from_slice(&8_u16.to_ne_bytes());
        data.extend_from_slice(&u16::to_ne_bytes(kind));
        data.extend_from_slice(&u32::to_be_bytes(value));
    }
    RawExpr::new("nat", data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mapping: serde_json::Value, expected: Result<Option<HostPort>, &str>) {
        let address = Ipv4Addr::new(10, 0, 0, 2);
        let mapping: PortMapping = serde_json::from_value(mapping).unwrap();
        match (plan(address, std::slice::from_ref(&mapping)), expected) {
            (Ok(got), Ok(port)) => assert_eq!(got.first().copied(), port),
            (Err(e), Err(text)) => assert!(e.to_string().contains(text), "{e}"),
            (got, expected) => panic!("{mapping:?}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn mappings() {
        let json = |host: i32, protocol: &str, ip: &str| serde_json::json!({"hostPort": host, "containerPort": 80, "protocol": protocol, "hostIP": ip});
        let pod = (Ipv4Addr::new(10, 0, 0, 2), 80);
        let port = |host_ip, protocol| Ok(Some(HostPort { host_ip, protocol, host_port: 8080, pod }));
        check(json(8080, "tcp", ""), port(None, 6));
        check(json(8080, "UDP", "0.0.0.0"), port(None, 17));
        check(json(8080, "sctp", "10.1.1.1"), port(Some(Ipv4Addr::new(10, 1, 1, 1)), 132));
        check(json(0, "tcp", ""), Ok(None));
        check(json(-1, "tcp", ""), Ok(None));
        check(json(70000, "tcp", ""), Err("port 70000"));
        check(json(80, "icmp", ""), Err("protocol \"icmp\""));
        check(json(80, "tcp", "fe80::1"), Err("not an IPv4 address"));
        check(serde_json::json!({"hostPort": 80, "containerPort": 0}), Err("port 0"));
    }
}
