//! What the packet path is told, as plain values: frontends (where clients send), endpoints (where packets go) and the
//! entries of the kernel's maps made from them.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

/// Transport protocol, by its number in the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

impl Protocol {
    /// The protocol of an API field; absent means TCP. `None` for what no such field may hold.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// Where clients send: an address and port of a service. A node port has the unspecified address, which stands for every
/// address of the node except loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// The service's address, or 0.0.0.0.
    pub ip: Ipv4Addr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The service's port.
    pub port: u16,
}

/// Whose packets get the node's address as source, so that answers come back this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Masquerade {
    /// Nobody's.
    Never,
    /// Those of clients outside the cluster's pod range.
    OffCluster,
    /// Everybody's.
    Always,
}

/// What happens to a new connection at a frontend. Frontends of one class share one chain of rules, so a change of a
/// service changes map entries only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Refused: there are no endpoints anywhere.
    Reject,
    /// Dropped: there are endpoints, but none this node may use.
    Drop,
    /// Sent to one of the endpoints.
    Balance(Balance),
}

/// How a connection is sent to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Balance {
    /// Whether the frontend is a node port.
    pub node_port: bool,
    /// Number of usable endpoints, which are at index 0 and up.
    pub all: u32,
    /// With `externalTrafficPolicy: Local`: number of endpoints on this node, at index [`LOCAL`] and up. Clients outside
    /// the cluster get one of these, or are dropped when there are none.
    pub local: Option<u32>,
    /// Who is masqueraded.
    pub masquerade: Masquerade,
    /// With `sessionAffinity: ClientIP`: how long a client sticks to its endpoint, in seconds.
    pub sticky_seconds: Option<u32>,
}

/// Index of a frontend's first node-local endpoint.
pub const LOCAL: u32 = 0x8000_0000;

/// Key of one entry in one of the kernel's maps and sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// What happens at a frontend.
    Service(Frontend),
    /// An endpoint of a frontend, by index.
    Endpoint(Frontend, u32),
    /// An endpoint to which clients of the frontend may stick.
    Sticky(Frontend, SocketAddrV4),
    /// An address where everything that is no service's port is refused.
    ClusterIp(Ipv4Addr),
    /// An endpoint on this node, which may be its own client.
    Hairpin(Ipv4Addr),
    /// A frontend with `loadBalancerSourceRanges`.
    Firewalled(Frontend),
    /// Clients that may use such a frontend.
    Allowed(Frontend, Ipv4Net),
}

/// What an entry maps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value {
    /// Nothing: the entry is of a set.
    Member,
    /// Of [`Key::Service`].
    Class(Class),
    /// Of [`Key::Endpoint`].
    To(SocketAddrV4),
}

/// One entry.
pub type Entry = (Key, Value);
