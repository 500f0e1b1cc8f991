//! Counters of network interfaces from the kernel's table `net/dev`.

/// An interface's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// Interfaces but loopback in the table at `path`; none when it cannot be read.
pub(crate) fn read(path: &str) -> Vec<Interface> {
    parse(&std::fs::read_to_string(path).unwrap_or_default())
}

/// Name, then eight numbers received, eight sent.
fn parse(table: &str) -> Vec<Interface> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        let traffic = |from: usize| match numbers.get(from..from + 4) {
            Some(&[bytes, packets, errors, dropped]) => Some(Traffic { bytes, packets, errors, dropped }),
            _ => None,
        };
        Some(Interface { name: name.trim().into(), received: traffic(0)?, sent: traffic(8)? })
    };
    table.lines().filter_map(interface).filter(|interface| interface.name != "lo").collect()
}

/// The interface whose numbers stand for all: `eth0`, else the first.
pub(crate) fn default_interface(interfaces: &[Interface]) -> Option<&Interface> {
    interfaces.iter().find(|interface| interface.name == "eth0").or(interfaces.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n    lo: 9 9 9 0 0 0 0 0 9 9 0 0 0 0 0 0\n  \
                    dummy0: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0\n  eth0: 100 1 2 3 0 0 0 0 200 4 5 6 0 0 0 0\n";
        let all = parse(text);
        assert_eq!(all.len(), 2);
        let eth0 = default_interface(&all).unwrap();
        assert_eq!(eth0.received, Traffic { bytes: 100, packets: 1, errors: 2, dropped: 3 });
        assert_eq!(eth0.sent, Traffic { bytes: 200, packets: 4, errors: 5, dropped: 6 });
    }
}
