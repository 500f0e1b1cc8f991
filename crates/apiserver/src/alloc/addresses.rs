//! Picking a free address or port: at random in the upper band of the range, then in the lower one, which is left to those
//! who name theirs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses of a network that can be given out, without the network's own and (IPv4) the broadcast address. Networks of
/// more than 2^16 addresses count as 2^16, like upstream's.
pub(super) fn size(cidr: &IpNet) -> u32 {
    let host_bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len()).min(31);
    let all = (1u32 << host_bits) - 1;
    if cidr.addr().is_ipv4() { all.saturating_sub(1) } else { all.min(65535) }
}

/// The address at an offset; 0 is the first one after the network's own.
pub(super) fn at(cidr: &IpNet, offset: u32) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).wrapping_add(offset + 1)).into(),
        IpAddr::V6(base) => Ipv6Addr::from(u128::from(base).wrapping_add(u128::from(offset) + 1)).into(),
    }
}

/// A free number below `size`, by preference not among the lowest `reserved`.
pub(super) fn pick(size: u32, reserved: u32, mut free: impl FnMut(u32) -> bool) -> Option<u32> {
    let reserved = reserved.min(size);
    let in_band = |from: u32, to: u32, free: &mut dyn FnMut(u32) -> bool| {
        let len = to.checked_sub(from).filter(|len| *len > 0)?;
        let start = rand::random_range(0..len);
        (0..len).map(|i| from + (start + i) % len).find(|n| free(*n))
    };
    in_band(reserved, size, &mut free).or_else(|| in_band(0, reserved, &mut free))
}

/// Size of the lower band of an address range.
pub(super) fn reserved_addresses(size: u32) -> u32 {
    if size < 16 { 0 } else { (size / 16).clamp(16, 256) }
}

/// Size of the lower band of a port range.
pub(super) fn reserved_ports(size: u32) -> u32 {
    if size < 32 { 0 } else { (size / 32).clamp(16, 128) }
}
