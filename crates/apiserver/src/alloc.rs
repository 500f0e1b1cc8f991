//! ClusterIPs and NodePorts of Services. Which are taken is derived from the watch cache and kept in memory; a write that is
//! under way holds a [`Claim`] on what it was given.

mod addresses;
mod assign;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use keelson_api::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::feed::Listener;
use crate::cache::{Cache, Change, Entry, ResourceCache};
use crate::registry::Resource;

/// `namespace/name` of a Service.
type Owner = Arc<str>;

#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) addresses: HashMap<IpAddr, Owner>,
    pub(super) ports: HashMap<u16, Owner>,
}

/// What is taken by whom.
pub(crate) struct ServiceAllocator {
    cidr: IpNet,
    node_ports: RangeInclusive<u16>,
    taken: Mutex<Taken>,
}

/// What a write was given; goes back unless the write happened.
pub(crate) struct Claim {
    allocator: Option<Arc<ServiceAllocator>>,
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Claim {
    fn none() -> Self {
        Self { allocator: None, addresses: Vec::new(), ports: Vec::new() }
    }

    /// The write happened: from now on the cache says that it is taken.
    pub(crate) fn keep(mut self) {
        self.allocator = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(allocator) = &self.allocator else { return };
        let mut taken = allocator.taken.lock();
        for address in &self.addresses {
            taken.addresses.remove(address);
        }
        for port in &self.ports {
            taken.ports.remove(port);
        }
    }
}

impl ServiceAllocator {
    pub(crate) fn new(cidr: IpNet, node_ports: RangeInclusive<u16>) -> Self {
        Self { cidr, node_ports, taken: Mutex::default() }
    }

    /// Fills in the allocated fields of a Service that is about to be written; other kinds pass through. 422 when an
    /// address or port that the Service names is taken or out of range.
    pub(crate) fn assign(
        self: &Arc<Self>,
        resource: &Resource,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Claim, Status> {
        if !(resource.kind.group.is_empty() && resource.kind.resource == "services") {
            return Ok(Claim::none());
        }
        let mut claim = Claim { allocator: Some(self.clone()), addresses: Vec::new(), ports: Vec::new() };
        let mut taken = self.taken.lock();
        let result = assign::assign(&self.cidr, &self.node_ports, &mut taken, object, old);
        drop(taken);
        match result {
            Ok((addresses, ports)) => {
                claim.addresses = addresses;
                claim.ports = ports;
                Ok(claim)
            }
            Err((addresses, ports, error)) => {
                // Dropping the claim gives back what came before the error.
                claim.addresses = addresses;
                claim.ports = ports;
                let name = crate::registry::create::text(object, "name");
                Err(Status::invalid("", "Service", name, &[error]))
            }
        }
    }
}

fn owner(entry: &Entry) -> Owner {
    format!("{}/{}", entry.namespace(), entry.name()).into()
}

fn uses(entry: &Entry) -> (Vec<IpAddr>, Vec<u16>) {
    match entry.decode() {
        Ok(object) => assign::uses(&object),
        Err(_) => (Vec::new(), Vec::new()),
    }
}

impl Listener for ServiceAllocator {
    fn changed(&self, resource: &ResourceCache, change: &Change) {
        if !(resource.group().is_empty() && resource.resource() == "services") {
            return;
        }
        let mut taken = self.taken.lock();
        if let Some(old) = &change.old {
            let by = owner(old);
            let (addresses, ports) = uses(old);
            for address in addresses {
                if taken.addresses.get(&address) == Some(&by) {
                    taken.addresses.remove(&address);
                }
            }
            for port in ports {
                if taken.ports.get(&port) == Some(&by) {
                    taken.ports.remove(&port);
                }
            }
        }
        if let Some(new) = &change.new {
            let by = owner(new);
            let (addresses, ports) = uses(new);
            taken.addresses.extend(addresses.into_iter().map(|a| (a, by.clone())));
            taken.ports.extend(ports.into_iter().map(|p| (p, by.clone())));
        }
    }

    fn reloaded(&self, cache: &Cache) {
        let mut fresh = Taken::default();
        let Some(services) = cache.resource("", "services") else { return };
        for entry in services.snapshot().map.values() {
            let by = owner(entry);
            let (addresses, ports) = uses(entry);
            fresh.addresses.extend(addresses.into_iter().map(|a| (a, by.clone())));
            fresh.ports.extend(ports.into_iter().map(|p| (p, by.clone())));
        }
        *self.taken.lock() = fresh;
    }
}
