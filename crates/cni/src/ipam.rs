//! Address management: which pod holds which address of the node's range.
//!
//! A reservation is one *empty file* named `<address>:<container id>:<interface>`; neither part can hold a colon. A
//! single `open(O_CREAT|O_EXCL)` makes it and one `unlink` ends it, so there is no moment at which a killed process leaves
//! half a record, and one directory listing is the whole table. Rejected: upstream's file per address with the owner as
//! its content, which a kill between creating and writing turns into a leak.
//!
//! Files are not synced to disk: reservations must outlive processes, but not a power cut, which ends the pods too.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    conf::{Attachment, IpamConf},
    error::{CniError, Context as _, code},
};

/// The addresses of one network on this node. Holds an exclusive lock between processes for as long as it lives.
#[derive(Debug)]
pub struct Ipam {
    dir: PathBuf,
    // Closing it releases the lock, also when the process is killed.
    _lock: File,
}

/// One address and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The pod's address.
    pub address: Ipv4Addr,
    /// The sandbox's container id.
    pub container_id: String,
    /// The interface's name inside the pod.
    pub ifname: String,
}

impl Reservation {
    fn file_name(&self) -> String {
        format!("{}:{}:{}", self.address, self.container_id, self.ifname)
    }

    fn from_file_name(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, ':');
        let address = parts.next()?.parse().ok()?;
        Some(Self { address, container_id: parts.next()?.to_owned(), ifname: parts.next()?.to_owned() })
    }
}

impl Ipam {
    /// Opens `<data_dir>/<network>`, creating it, and waits for its lock.
    pub fn open(data_dir: &Path, network: &str) -> Result<Self, CniError> {
        let dir = data_dir.join(network);
        let failed = || format!("cannot open the address store {}", dir.display());
        fs::create_dir_all(&dir).context(code::IO, failed)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock"));
        let lock = lock.context(code::IO, failed)?;
        flock(&lock, FlockOperation::LockExclusive).context(code::IO, failed)?;
        Ok(Self { dir, _lock: lock })
    }

    /// Every reservation of the network.
    pub fn list(&self) -> Result<Vec<Reservation>, CniError> {
        let failed = || format!("cannot list the address store {}", self.dir.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).context(code::IO, failed)? {
            let name = entry.context(code::IO, failed)?.file_name();
            found.extend(name.to_str().and_then(Reservation::from_file_name));
        }
        Ok(found)
    }

    /// Reserves an address for `container_id`'s interface `ifname`: the one it holds already, left by an ADD that died
    /// half way, or else the next free one after the last given out, so that addresses are not reused at once.
    pub fn reserve(&self, conf: &IpamConf, container_id: &str, ifname: &str) -> Result<Reservation, CniError> {
        let held = self.list()?;
        if let Some(own) = held.iter().find(|r| r.container_id == container_id && r.ifname == ifname) {
            if conf.subnet.contains(&own.address) {
                return Ok(own.clone());
            }
            // The node was given another range since.
            self.remove(own)?;
        }
        let taken: std::collections::HashSet<Ipv4Addr> = held.iter().map(|r| r.address).collect();
        let Some(address) = next_free(conf, self.last(), &taken) else {
            let details = format!("no IP addresses available in range {}", conf.subnet);
            return Err(CniError::new(code::TRY_AGAIN_LATER, "cannot allocate an address", details));
        };
        let reservation = Reservation { address, container_id: container_id.to_owned(), ifname: ifname.to_owned() };
        let path = self.dir.join(reservation.file_name());
        let failed = || format!("cannot reserve {address} in {}", self.dir.display());
        OpenOptions::new().write(true).create_new(true).open(&path).context(code::IO, failed)?;
        self.set_last(address).context(code::IO, failed)?;
        Ok(reservation)
    }

    /// Whether `reserve` would find an address for a new container.
    pub fn has_free(&self, conf: &IpamConf) -> Result<bool, CniError> {
        let taken = self.list()?.iter().map(|r| r.address).collect();
        Ok(next_free(conf, None, &taken).is_some())
    }

    /// Frees the addresses of `container_id`'s interface `ifname`; none is fine.
    pub fn release(&self, container_id: &str, ifname: &str) -> Result<(), CniError> {
        for r in self.list()?.iter().filter(|r| r.container_id == container_id && r.ifname == ifname) {
            self.remove(r)?;
        }
        Ok(())
    }

    /// The reservations that belong to none of `valid`.
    pub fn stale(&self, valid: &[Attachment]) -> Result<Vec<Reservation>, CniError> {
        let mut all = self.list()?;
        all.retain(|r| !valid.iter().any(|a| a.container_id == r.container_id && a.ifname == r.ifname));
        Ok(all)
    }

    /// Frees one address; one that is free already is fine.
    pub fn remove(&self, reservation: &Reservation) -> Result<(), CniError> {
        match fs::remove_file(self.dir.join(reservation.file_name())) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.context(code::IO, || format!("cannot free {}", reservation.address)),
        }
    }

    /// The address given out last. It only spreads reuse over time, so an unreadable file is no error.
    fn last(&self) -> Option<Ipv4Addr> {
        fs::read_link(self.dir.join("last")).ok()?.to_str()?.parse().ok()
    }

    /// Kept as the target of a dangling symbolic link: replaced atomically, no content to tear.
    fn set_last(&self, address: Ipv4Addr) -> io::Result<()> {
        let new = self.dir.join("last.new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::os::unix::fs::symlink(address.to_string(), &new)?;
        fs::rename(&new, self.dir.join("last"))
    }
}

/// The first free address after `last` in ring order, never the network's own, its broadcast or its gateway.
fn next_free(conf: &IpamConf, last: Option<Ipv4Addr>, taken: &std::collections::HashSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let network = u32::from(conf.subnet.network());
    let broadcast = u32::from(conf.subnet.broadcast());
    let first = conf.range_start.map_or(network.checked_add(1)?, u32::from).max(network.checked_add(1)?);
    let end = conf.range_end.map_or(broadcast.checked_sub(1)?, u32::from).min(broadcast.checked_sub(1)?);
    let gateway = conf.gateway();
    let from = last.map(u32::from).filter(|l| (first..end).contains(l)).map_or(first, |l| l + 1);
    (from..=end).chain(first..from).map(Ipv4Addr::from).find(|address| *address != gateway && !taken.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(subnet: &str) -> IpamConf {
        serde_json::from_value(serde_json::json!({ "subnet": subnet })).unwrap()
    }

    fn last_octets(ipam: &Ipam, conf: &IpamConf, ids: &[&str]) -> Vec<u8> {
        ids.iter().map(|id| ipam.reserve(conf, id, "eth0").unwrap().address.octets()[3]).collect()
    }

    #[test]
    fn goes_round_robin_and_skips_gateway_and_taken() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = Ipam::open(dir.path(), "net").unwrap();
        let conf = conf("10.0.0.0/29");
        assert_eq!(last_octets(&ipam, &conf, &["a", "b", "c"]), [2, 3, 4]);
        ipam.release("a", "eth0").unwrap();
        assert_eq!(last_octets(&ipam, &conf, &["d", "e", "f"]), [5, 6, 2], "a freed address is reused last");
        let full = ipam.reserve(&conf, "g", "eth0").unwrap_err();
        assert_eq!((full.code, full.details.as_str()), (11, "no IP addresses available in range 10.0.0.0/29"));
        assert!(!ipam.has_free(&conf).unwrap());
    }

    #[test]
    fn a_repeated_reservation_is_the_same_and_release_is_idempotent() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = Ipam::open(dir.path(), "net").unwrap();
        let conf = conf("10.0.0.0/24");
        let first = ipam.reserve(&conf, "a", "eth0").unwrap();
        assert_eq!(ipam.reserve(&conf, "a", "eth0").unwrap(), first);
        assert_ne!(ipam.reserve(&conf, "a", "eth1").unwrap(), first);
        ipam.release("a", "eth0").unwrap();
        ipam.release("a", "eth0").unwrap();
        assert_eq!(ipam.list().unwrap().len(), 1);
    }

    #[test]
    fn survives_a_reopen_and_a_kill_before_the_last_address_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let conf = conf("10.0.0.0/24");
        let first = Ipam::open(dir.path(), "net").unwrap().reserve(&conf, "a", "eth0").unwrap();
        fs::remove_file(dir.path().join("net/last")).unwrap();
        let ipam = Ipam::open(dir.path(), "net").unwrap();
        assert_eq!(ipam.list().unwrap(), [first]);
        assert_eq!(last_octets(&ipam, &conf, &["b"]), [3]);
    }

    #[test]
    fn a_new_range_replaces_an_old_reservation() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = Ipam::open(dir.path(), "net").unwrap();
        ipam.reserve(&conf("10.0.0.0/24"), "a", "eth0").unwrap();
        let moved = ipam.reserve(&conf("10.0.1.0/24"), "a", "eth0").unwrap();
        assert_eq!(moved.address, Ipv4Addr::new(10, 0, 1, 2));
        assert_eq!(ipam.list().unwrap(), [moved]);
    }

    #[test]
    fn the_range_bounds_what_is_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = Ipam::open(dir.path(), "net").unwrap();
        let mut conf = conf("10.0.0.0/24");
        (conf.range_start, conf.range_end) = (Some(Ipv4Addr::new(10, 0, 0, 7)), Some(Ipv4Addr::new(10, 0, 0, 8)));
        assert_eq!(last_octets(&ipam, &conf, &["a", "b"]), [7, 8]);
        assert!(ipam.reserve(&conf, "c", "eth0").is_err());
    }

    #[test]
    fn concurrent_processes_never_share_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let conf = conf("10.0.0.0/24");
        let workers: Vec<_> = (0..8)
            .map(|n| {
                let (path, conf) = (dir.path().to_owned(), conf.clone());
                std::thread::spawn(move || {
                    let reserve = |i| Ipam::open(&path, "net").unwrap().reserve(&conf, &format!("c{n}-{i}"), "eth0");
                    (0..20).map(|i| reserve(i).unwrap().address).collect::<Vec<_>>()
                })
            })
            .collect();
        let all: Vec<_> = workers.into_iter().flat_map(|w| w.join().unwrap()).collect();
        let unique: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!((all.len(), unique.len()), (160, 160));
    }
}
