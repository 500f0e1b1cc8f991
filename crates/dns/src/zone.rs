//! From a question to an answer: pure, by the index alone.

use std::net::Ipv4Addr;

use hickory_proto::{
    ProtoError,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT},
    },
};

use crate::{
    config::PodMode,
    index::{Entry, Index, Kind, Port},
};

/// Version of the specification, answered at `dns-version`.
const SPEC_VERSION: &str = "1.1.0";

/// Aliases followed within the cluster before giving up.
const MAX_ALIASES: usize = 8;

/// Addresses in one answer: more do not fit a TCP message of 64 KiB.
const MAX_RECORDS: usize = 2_000;

/// What to answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Records that answer.
    pub records: Vec<Record>,
    /// Records that help, the addresses of SRV targets.
    pub additional: Vec<Record>,
    /// The zone's SOA, where there is nothing to answer.
    pub soa: Option<Record>,
    /// Whether the name exists; if not the code is NXDOMAIN.
    pub exists: bool,
    /// A name outside the cluster that an alias leads to.
    pub elsewhere: Option<Name>,
}

/// Whose business a question is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Ours.
    Answer(Box<Answer>),
    /// A name outside the cluster.
    Elsewhere,
}

/// The zone of a cluster.
#[derive(Debug, Clone)]
pub struct Zone {
    domain: Name,
    /// Lower case, first label first.
    labels: Vec<String>,
    ttl: u32,
    pods: PodMode,
    service_ip: Ipv4Addr,
    soa: SOA,
    ns: Name,
}

/// Names below the zone, and what they have.
enum Found {
    /// No such name.
    Nothing,
    /// A name without records of its own, or with other types only.
    Empty,
    Addresses(Vec<Ipv4Addr>),
    Alias(Name),
    Text(String),
    Services(Vec<Target>),
}

/// One SRV record to be.
struct Target {
    port: u16,
    name: Name,
    ips: Vec<Ipv4Addr>,
}

impl Zone {
    /// The zone `domain` (such as `cluster.local`). Errors when that is no domain name.
    pub fn new(domain: &str, ttl: u32, pods: PodMode, service_ip: Ipv4Addr) -> Result<Self, ProtoError> {
        let text = domain.trim_end_matches('.').to_ascii_lowercase();
        let domain = Name::from_ascii(format!("{text}."))?;
        let ns = Name::from_ascii(format!("ns.dns.{text}."))?;
        let contact = Name::from_ascii(format!("hostmaster.{text}."))?;
        // The serial never changes: nobody transfers the zone.
        let soa = SOA::new(ns.clone(), contact, 1, 7200, 1800, 86_400, ttl);
        Ok(Self { domain, labels: text.split('.').map(str::to_owned).collect(), ttl, pods, service_ip, soa, ns })
    }

    /// Answers the question for `name` and `record_type`. `may_forward` says whether questions about foreign addresses
    /// can be asked elsewhere; otherwise they are ours to deny.
    pub fn answer(&self, index: &Index, name: &Name, record_type: RecordType, may_forward: bool) -> Outcome {
        if let Some(ip) = reverse_address(name) {
            return self.reverse(index, name, ip, record_type, may_forward);
        }
        let Some(below) = self.below(name) else { return Outcome::Elsewhere };
        let mut answer = Answer { exists: true, ..Answer::default() };
        let (mut owner, mut below) = (name.clone(), below);
        for _ in 0..MAX_ALIASES {
            let labels: Vec<&str> = below.iter().map(String::as_str).collect();
            let found = self.find(index, &labels, record_type);
            let Found::Alias(target) = &found else {
                self.fill(&mut answer, &owner, found, record_type);
                break;
            };
            let alias = Record::from_rdata(owner.clone(), self.ttl, RData::CNAME(CNAME(target.clone())));
            answer.records.push(alias);
            if record_type == RecordType::CNAME {
                break;
            }
            let Some(next) = self.below(target) else {
                answer.elsewhere = Some(target.clone());
                break;
            };
            (owner, below) = (target.clone(), next);
        }
        if answer.records.is_empty() {
            answer.soa = Some(self.soa(&self.domain));
        }
        Outcome::Answer(Box::new(answer))
    }

    /// The SOA record that goes with a denial below `apex`.
    fn soa(&self, apex: &Name) -> Record {
        Record::from_rdata(apex.clone(), self.ttl, RData::SOA(self.soa.clone()))
    }

    /// The labels of `name` below the zone, lower case; `None` outside the zone.
    fn below(&self, name: &Name) -> Option<Vec<String>> {
        let mut labels: Vec<String> =
            name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
        let at = labels.len().checked_sub(self.labels.len())?;
        (labels.split_off(at) == self.labels).then_some(labels)
    }

    fn find(&self, index: &Index, labels: &[&str], record_type: RecordType) -> Found {
        match labels {
            [] => Found::Empty,
            ["dns-version"] => Found::Text(SPEC_VERSION.to_owned()),
            ["ns", "dns"] => Found::Addresses(vec![self.service_ip]),
            ["dns" | "svc"] => Found::Empty,
            ["pod"] if self.pods != PodMode::Disabled => Found::Empty,
            [rest @ .., namespace, "svc"] => self.find_service(index, rest, namespace, record_type),
            [rest @ .., namespace, "pod"] => self.find_pod(index, rest, namespace),
            _ => Found::Nothing,
        }
    }

    fn find_pod(&self, index: &Index, rest: &[&str], namespace: &str) -> Found {
        if self.pods == PodMode::Disabled || !index.has_namespace(namespace) {
            return Found::Nothing;
        }
        match rest {
            [] => Found::Empty,
            [ip] => match ip.replace('-', ".").parse() {
                Ok(ip) if self.pods == PodMode::Insecure || index.has_pod(namespace, ip) => Found::Addresses(vec![ip]),
                _ => Found::Nothing,
            },
            _ => Found::Nothing,
        }
    }

    fn find_service(&self, index: &Index, rest: &[&str], namespace: &str, record_type: RecordType) -> Found {
        let [rest @ .., service] = rest else {
            return if index.has_namespace(namespace) { Found::Empty } else { Found::Nothing };
        };
        let Some((entry, kind)) = index.service(namespace, service).and_then(|e| Some((e, e.kind()?))) else {
            return Found::Nothing;
        };
        let Ok(base) = Name::from_ascii(format!("{service}.{namespace}.svc.{}", self.domain)) else {
            return Found::Nothing;
        };
        match (rest, kind) {
            ([], Kind::External(target)) => match Name::from_ascii(format!("{}.", target.trim_end_matches('.'))) {
                Ok(target) => Found::Alias(target),
                Err(_) => Found::Empty,
            },
            ([], kind) if record_type == RecordType::SRV => srv(targets(entry, &kind, &base, |_| true), Found::Empty),
            ([], Kind::ClusterIps(ips)) => Found::Addresses(ips),
            ([], Kind::Headless) => some_addresses(entry.endpoints().into_iter().map(|e| e.ip)),
            ([port, protocol], kind) if port.starts_with('_') && protocol.starts_with('_') => {
                let wanted = |p: &Port| Some(p.name.as_str()) == port.strip_prefix('_') && is(protocol, p);
                srv(targets(entry, &kind, &base, wanted), Found::Nothing)
            }
            ([protocol], kind) if protocol.starts_with('_') => {
                let any = targets(entry, &kind, &base, |p| !p.name.is_empty() && is(protocol, p));
                if any.is_empty() { Found::Nothing } else { Found::Empty }
            }
            ([label], _) => some_addresses(
                entry.endpoints().into_iter().filter(|e| e.label.eq_ignore_ascii_case(label)).map(|e| e.ip),
            ),
            _ => Found::Nothing,
        }
    }

    /// Puts what was found into the answer, if it is of the type asked for.
    fn fill(&self, answer: &mut Answer, owner: &Name, found: Found, record_type: RecordType) {
        let record = |name: &Name, data| Record::from_rdata(name.clone(), self.ttl, data);
        let wants = |t| record_type == t || record_type == RecordType::ANY;
        match found {
            Found::Nothing => answer.exists = false,
            Found::Empty if *owner == self.domain => {
                if wants(RecordType::SOA) {
                    answer.records.push(record(owner, RData::SOA(self.soa.clone())));
                }
                if wants(RecordType::NS) {
                    answer.records.push(record(owner, RData::NS(NS(self.ns.clone()))));
                    answer.additional.push(record(&self.ns, RData::A(A(self.service_ip))));
                }
            }
            Found::Empty | Found::Alias(_) => {}
            Found::Addresses(ips) if wants(RecordType::A) => {
                answer.records.extend(ips.into_iter().take(MAX_RECORDS).map(|ip| record(owner, RData::A(A(ip)))));
            }
            Found::Addresses(_) => {}
            Found::Text(text) if wants(RecordType::TXT) => {
                answer.records.push(record(owner, RData::TXT(TXT::new(vec![text]))));
            }
            Found::Text(_) => {}
            Found::Services(targets) if wants(RecordType::SRV) => {
                // Equal weights that add up to about 100, as CoreDNS gives.
                let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
                for target in targets.into_iter().take(MAX_RECORDS) {
                    let data = SRV::new(0, weight, target.port, target.name.clone());
                    answer.records.push(record(owner, RData::SRV(data)));
                    for ip in target.ips {
                        let help = record(&target.name, RData::A(A(ip)));
                        if !answer.additional.contains(&help) {
                            answer.additional.push(help);
                        }
                    }
                }
            }
            Found::Services(_) => {}
        }
    }

    fn reverse(&self, index: &Index, name: &Name, ip: Ipv4Addr, record_type: RecordType, may_forward: bool) -> Outcome {
        let mut names: Vec<String> = Vec::new();
        if let Some((namespace, service)) = index.by_cluster_ip(ip) {
            names.push(format!("{service}.{namespace}.svc.{}", self.domain));
        } else {
            let endpoints = index.by_endpoint_ip(ip).into_iter();
            names.extend(endpoints.map(|((ns, svc), label)| format!("{label}.{svc}.{ns}.svc.{}", self.domain)));
        }
        if names.is_empty() && may_forward {
            return Outcome::Elsewhere;
        }
        let mut answer = Answer { exists: !names.is_empty(), ..Answer::default() };
        if matches!(record_type, RecordType::PTR | RecordType::ANY) {
            let targets = names.iter().take(MAX_RECORDS).filter_map(|n| Name::from_ascii(n).ok());
            let record = |target| Record::from_rdata(name.clone(), self.ttl, RData::PTR(PTR(target)));
            answer.records.extend(targets.map(record));
        }
        if answer.records.is_empty() {
            answer.soa = Name::from_ascii("in-addr.arpa.").ok().map(|apex| self.soa(&apex));
        }
        Outcome::Answer(Box::new(answer))
    }
}

fn is(label: &str, port: &Port) -> bool {
    label.strip_prefix('_') == Some(port.protocol.as_str())
}

fn some_addresses(ips: impl Iterator<Item = Ipv4Addr>) -> Found {
    let mut ips: Vec<Ipv4Addr> = ips.collect();
    ips.sort_unstable();
    ips.dedup();
    if ips.is_empty() { Found::Nothing } else { Found::Addresses(ips) }
}

fn srv(targets: Vec<Target>, none: Found) -> Found {
    if targets.is_empty() { none } else { Found::Services(targets) }
}

/// A service's ports as SRV records: one each by cluster IP, one per endpoint without.
fn targets(entry: &Entry, kind: &Kind, base: &Name, wanted: impl Fn(&Port) -> bool) -> Vec<Target> {
    match kind {
        Kind::External(_) => Vec::new(),
        Kind::ClusterIps(ips) => {
            let ports = entry.ports().into_iter().filter(wanted);
            ports.map(|p| Target { port: p.number, name: base.clone(), ips: ips.clone() }).collect()
        }
        Kind::Headless => {
            let mut targets = Vec::new();
            for endpoint in entry.endpoints() {
                let Ok(name) = Name::from_ascii(format!("{}.{base}", endpoint.label)) else { continue };
                let ports = endpoint.ports.iter().filter(|p| wanted(p));
                targets.extend(ports.map(|p| Target { port: p.number, name: name.clone(), ips: vec![endpoint.ip] }));
            }
            targets
        }
    }
}

/// The address of a complete `d.c.b.a.in-addr.arpa`.
fn reverse_address(name: &Name) -> Option<Ipv4Addr> {
    let labels: Vec<&[u8]> = name.iter().collect();
    let [d, c, b, a, in_addr, arpa] = labels.as_slice() else { return None };
    if !in_addr.eq_ignore_ascii_case(b"in-addr") || !arpa.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    let octet = |label: &[u8]| std::str::from_utf8(label).ok()?.parse::<u8>().ok();
    Some(Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?))
}

#[cfg(test)]
mod tests;
