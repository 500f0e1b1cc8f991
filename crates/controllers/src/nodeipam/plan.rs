//! Which network is free.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Most networks that one cluster network is cut into, as upstream.
const MAX_NETWORKS: u128 = 1 << 16;

/// The next network of prefix length `mask` in `cluster` that overlaps none in `used`, looking from number `from` on and
/// around; with its number.
pub fn allocate(cluster: &IpNet, mask: u8, used: &[IpNet], from: u128) -> Option<(IpNet, u128)> {
    let bits = mask.checked_sub(cluster.prefix_len())?;
    if mask > cluster.max_prefix_len() {
        return None;
    }
    let count = 1_u128.checked_shl(bits.into()).unwrap_or(u128::MAX).min(MAX_NETWORKS);
    (0..count).map(|offset| (from % count + offset) % count).find_map(|number| {
        let network = nth(cluster, mask, number)?;
        let is_free = !used.iter().any(|other| overlap(other, &network));
        is_free.then_some((network, number))
    })
}

fn nth(cluster: &IpNet, mask: u8, number: u128) -> Option<IpNet> {
    match cluster.network() {
        IpAddr::V4(base) => {
            let step = u32::try_from(number).ok()?.checked_shl(32 - u32::from(mask)).filter(|_| mask > 0)?;
            let address = u32::from(base).checked_add(step)?;
            Some(IpNet::V4(Ipv4Net::new(Ipv4Addr::from(address), mask).ok()?))
        }
        IpAddr::V6(base) => {
            let step = number.checked_shl(128 - u32::from(mask)).filter(|_| mask > 0)?;
            let address = u128::from(base).checked_add(step)?;
            Some(IpNet::V6(Ipv6Net::new(Ipv6Addr::from(address), mask).ok()?))
        }
    }
}

/// Whether two networks share an address.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cluster: &str, mask: u8, used: &[&str], from: u128, expected: Option<&str>) {
        let used: Vec<IpNet> = used.iter().map(|text| text.parse().unwrap()).collect();
        let network = allocate(&cluster.parse().unwrap(), mask, &used, from).map(|(network, _)| network.to_string());
        assert_eq!(network.as_deref(), expected, "{cluster} /{mask} {used:?}");
    }

    #[test]
    fn the_next_free_network_is_taken() {
        check("10.244.0.0/16", 24, &[], 0, Some("10.244.0.0/24"));
        check("10.244.0.0/16", 24, &["10.244.0.0/24", "10.244.1.0/24"], 0, Some("10.244.2.0/24"));
        check("10.244.0.0/16", 24, &["10.244.0.0/25"], 0, Some("10.244.1.0/24"));
        check("10.244.0.0/16", 24, &[], 255, Some("10.244.255.0/24"));
        check("10.244.0.0/16", 24, &["10.244.255.0/24"], 255, Some("10.244.0.0/24"));
        check("10.0.0.0/23", 24, &["10.0.0.0/8"], 0, None);
        check("10.0.0.0/24", 24, &[], 7, Some("10.0.0.0/24"));
        check("10.0.0.0/24", 16, &[], 0, None);
        check("10.0.0.0/24", 40, &[], 0, None);
        check("fd00::/48", 64, &["fd00::/64"], 0, Some("fd00:0:0:1::/64"));
    }
}
