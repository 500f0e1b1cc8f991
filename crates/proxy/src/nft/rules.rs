//! The rules. They use the registers' 32-bit words thus:
//!
//! ```text
//! 0 client  1 frontend's address  2 protocol  3 port  4 index, or endpoint's address  5 endpoint's port  6 ...
//! ```
//!
//! so that every key that is looked up lies in neighbouring words.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;
use nlink::netlink::{
    nftables::{
        CtStatus, DynsetExpr, DynsetOp, Expr, Family, FibFlags, LookupExpr, MetaKey, NatStatement, NumgenKind,
        PayloadBase, RawExpr, Register, Rule, Verdict,
    },
    types::route::RouteType,
};

use super::{ANY, TABLE};
use crate::model::{Balance, LOCAL, Masquerade};

/// The mark bit upstream uses for packets to be masqueraded.
const MASQUERADE_MARK: u32 = 0x4000;

/// The rules of the chains that always exist.
pub(super) fn fixed(service_cidr: Option<Ipv4Net>) -> nlink::Result<Vec<Rule>> {
    let firewall = load_frontend(rule("services"), false).expr(LookupExpr::new("firewalled", word(1)));
    let firewall = firewall.expr(payload(4, 12, 4)).expr(LookupExpr::new("allowed", word(1)).invert()).drop();
    let dispatch = |rule: Rule| rule.expr(LookupExpr::new("services", word(1)).dreg(Register::Verdict));
    let by_address = dispatch(load_frontend(rule("services"), false));
    let to_node = rule("services").match_fib_type(FibFlags::DADDR, RouteType::Local);
    let to_node = to_node.match_daddr_v4_not(Ipv4Addr::LOCALHOST, 8);
    let by_node_port = dispatch(load_frontend(to_node, true));
    // What is left for an address of a service is for none of its ports.
    let no_service = rule("services").expr(payload(1, 16, 4)).expr(LookupExpr::new("cluster-ips", word(1)));
    let marked = rule("postrouting").match_mark_masked(MASQUERADE_MARK, MASQUERADE_MARK);
    let marked = marked.set_mark_masked(0, MASQUERADE_MARK).nat(NatStatement::masquerade().fully_random());
    let itself = rule("postrouting").match_ct_status(CtStatus::DST_NAT);
    let itself = itself.expr(payload(0, 12, 4)).expr(payload(1, 16, 4)).expr(LookupExpr::new("hairpin", word(0)));
    let nobody = service_cidr.map(|net| rule("services").match_daddr_v4(net.network(), net.prefix_len()).drop());
    let mut rules = vec![
        rule("prerouting").try_jump("services")?,
        rule("output").try_jump("services")?,
        firewall,
        by_address,
        by_node_port,
        no_service.try_goto("reject")?,
        rule("reject").match_l4proto(6).reject_tcp_reset(),
        rule("reject").reject(),
        marked,
        itself.masquerade(),
    ];
    rules.extend(nobody);
    Ok(rules)
}

/// The rules of a class.
pub(super) fn balance(chain: &str, b: &Balance, cluster_cidr: Option<Ipv4Net>) -> nlink::Result<Vec<Rule>> {
    let mut rules = Vec::new();
    let Some(local) = b.local else {
        let mark = |rule: Rule| rule.set_mark_masked(MASQUERADE_MARK, MASQUERADE_MARK);
        match (b.masquerade, cluster_cidr) {
            (Masquerade::Always, _) => rules.push(mark(rule(chain))),
            (Masquerade::OffCluster, Some(net)) => {
                rules.push(mark(rule(chain).match_saddr_v4_not(net.network(), net.prefix_len())));
            }
            (Masquerade::OffCluster, None) | (Masquerade::Never, _) => {}
        }
        spread(&mut rules, &|| rule(chain), b, b.all, 0);
        return Ok(rules);
    };
    // externalTrafficPolicy: Local. Pods and the node itself may use every endpoint, as they could by the cluster IP.
    if let Some(net) = cluster_cidr {
        spread(&mut rules, &|| rule(chain).match_saddr_v4(net.network(), net.prefix_len()), b, b.all, 0);
    }
    let from_node = || rule(chain).match_fib_type(FibFlags::SADDR, RouteType::Local);
    rules.push(from_node().set_mark_masked(MASQUERADE_MARK, MASQUERADE_MARK));
    spread(&mut rules, &from_node, b, b.all, 0);
    if local > 0 {
        spread(&mut rules, &|| rule(chain), b, local, LOCAL);
    } else {
        rules.push(rule(chain).drop());
    }
    Ok(rules)
}

/// Sends what `start` matches to one of the `n` endpoints from index `base` on.
fn spread(rules: &mut Vec<Rule>, start: &dyn Fn() -> Rule, b: &Balance, n: u32, base: u32) {
    let random = |dreg| Expr::Numgen { dreg, kind: NumgenKind::Random, modulus: n, offset: base };
    let find = |rule: Rule| rule.expr(LookupExpr::new("endpoints", word(1)).dreg(word(5)));
    let frontend = || load_frontend(start(), b.node_port);
    if let Some(seconds) = b.sticky_seconds {
        let timeout = Duration::from_secs(u64::from(seconds));
        let client = || frontend().expr(payload(0, 12, 4));
        let remember =
            |op, endpoint| DynsetExpr::new(op, "affinity", word(0)).sreg_data(word(endpoint)).timeout(timeout);
        // The endpoint remembered, if it still is one.
        let known = client().expr(LookupExpr::new("affinity", word(0)).dreg(word(4)));
        let known = known.expr(LookupExpr::new("sticky", word(1))).expr(remember(DynsetOp::Update, 4));
        rules.push(known.expr(dnat(4, 5)));
        // An entry in the map keeps its value until it is deleted. The kernel wants a value even to delete.
        let nothing = Expr::Immediate { dreg: word(4), data: vec![0; 8] };
        let forget = DynsetExpr::new(DynsetOp::Delete, "affinity", word(0)).sreg_data(word(4));
        rules.push(client().expr(nothing).expr(forget));
        let new = find(client().expr(random(word(4)))).expr(remember(DynsetOp::Update, 5));
        rules.push(new.expr(dnat(5, 6)));
    }
    rules.push(find(frontend().expr(random(word(4)))).expr(dnat(5, 6)));
    // A packet may see the map just after the number of endpoints shrank: the first one is there as long as any is.
    let first = Expr::Immediate { dreg: word(4), data: base.to_ne_bytes().to_vec() };
    rules.push(find(frontend().expr(first)).expr(dnat(5, 6)));
    // Better lost and sent again than past the service.
    rules.push(start().expr(Expr::Verdict(Verdict::Drop)));
}

fn rule(chain: &str) -> Rule {
    Rule::new(TABLE, chain).family(Family::Ip)
}

/// Loads the frontend a packet is for into words 1 to 3.
fn load_frontend(rule: Rule, node_port: bool) -> Rule {
    let address = if node_port { Expr::Immediate { dreg: word(1), data: ANY.to_vec() } } else { payload(1, 16, 4) };
    let port = Expr::Payload { dreg: word(3), base: PayloadBase::Transport, offset: 2, len: 2 };
    rule.expr(address).expr(Expr::Meta { dreg: word(2), key: MetaKey::L4Proto }).expr(port)
}

/// Loads a field of the IP header into word `n`.
fn payload(n: usize, offset: u32, len: u32) -> Expr {
    Expr::Payload { dreg: word(n), base: PayloadBase::Network, offset, len }
}

/// 32-bit word `n` of the registers; there are 16.
fn word(n: usize) -> Register {
    Register::word(n).unwrap_or(Register::R0)
}

/// `dnat ip to` the address and port in words `address` and `port`.
fn dnat(address: usize, port: usize) -> RawExpr {
    const MAP_IPS: u32 = 1;
    const PROTO_SPECIFIED: u32 = 2;
    let (address, port) = (word(address).wire(), word(port).wire());
    // NFTA_NAT_TYPE: dnat, NFTA_NAT_FAMILY: IPv4, first and last address, first and last port, NFTA_NAT_FLAGS.
    let attributes = [(1, 1), (2, 2), (3, address), (4, address), (5, port), (6, port), (7, MAP_IPS | PROTO_SPECIFIED)];
    let mut data = Vec::with_capacity(8 * attributes.len());
    for (kind, value) in attributes {
        data.extend_from_slice(&8_u16.to_ne_bytes());
        data.extend_from_slice(&u16::to_ne_bytes(kind));
        data.extend_from_slice(&u32::to_be_bytes(value));
    }
    RawExpr::new("nat", data)
}
