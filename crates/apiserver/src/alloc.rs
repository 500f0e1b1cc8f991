//! ClusterIPs and NodePorts of Services. What is taken is derived from the watch cache and kept in memory, so that a free one is
//! found without a search in the store; a [`Claim`] then reserves it in the store, so that servers that share one never give
//! out the same one twice.
//!
//! - [`assign`]: the allocated fields of one Service
//! - [`claim`]: what a write was given, from the choice to the reservation
//! - [`reservation`]: what stands for a taken address or port in the store
//! - [`repair`]: reservations that are missing, or are nobody's

mod addresses;
mod assign;
mod claim;
pub(crate) mod repair;
mod reservation;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;
use serde_json::Value;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::cache::feed::Listener;
use crate::cache::{Cache, Change, Entry, ResourceCache};
use crate::registry::Resource;

pub(crate) use self::claim::claim;
use self::reservation::Reserved;
pub(crate) use self::reservation::release;

/// `namespace/name` of a Service.
type Owner = Arc<str>;

/// What is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Item {
    Address(IpAddr),
    /// `nodePort`, or `healthCheckNodePort`
    Port(u16),
}

#[derive(Debug, Default)]
pub(super) struct Taken {
    /// By which Services; more than one only if earlier versions let that happen.
    services: HashMap<Item, SmallVec<[Owner; 1]>>,
    /// By writes that are under way.
    claimed: HashSet<Item>,
    /// IPAddress objects.
    addresses: HashMap<IpAddr, Reserved>,
}

impl Taken {
    fn is_free(&self, item: Item) -> bool {
        let reserved = matches!(item, Item::Address(address) if self.addresses.contains_key(&address));
        !reserved && !self.services.contains_key(&item) && !self.claimed.contains(&item)
    }

    fn add_service(&mut self, entry: &Entry) {
        let by = owner(entry);
        for item in uses(entry) {
            let owners = self.services.entry(item).or_default();
            if !owners.contains(&by) {
                owners.push(by.clone());
            }
        }
    }

    fn remove_service(&mut self, entry: &Entry) {
        let by = owner(entry);
        for item in uses(entry) {
            let Some(owners) = self.services.get_mut(&item) else { continue };
            owners.retain(|owner| *owner != by);
            if owners.is_empty() {
                self.services.remove(&item);
            }
        }
    }

    fn add_address(&mut self, entry: &Entry) {
        if let Ok(address) = entry.name().parse() {
            let object = entry.decode().unwrap_or_default();
            self.addresses.insert(address, reservation::read_address(&object, entry.revision));
        }
    }
}

/// Which addresses and ports there are.
pub(super) struct Ranges {
    cidr: IpNet,
    node_ports: RangeInclusive<u16>,
}

/// What is taken by whom.
pub(crate) struct ServiceAllocator {
    ranges: Ranges,
    taken: Mutex<Taken>,
    /// Somebody took away the IPAddress of a Service.
    harmed: Notify,
}

impl ServiceAllocator {
    pub(crate) fn new(cidr: IpNet, node_ports: RangeInclusive<u16>) -> Self {
        Self { ranges: Ranges { cidr, node_ports }, taken: Mutex::default(), harmed: Notify::new() }
    }
}

/// Whether objects of this resource are given anything.
fn is_service(resource: &Resource) -> bool {
    resource.kind.group.is_empty() && resource.kind.resource == "services"
}

fn owner(entry: &Entry) -> Owner {
    format!("{}/{}", entry.namespace(), entry.name()).into()
}

fn uses(entry: &Entry) -> Vec<Item> {
    entry.decode().as_ref().map(assign::uses).unwrap_or_default()
}

fn owner_of(object: &Value) -> Owner {
    let text = |field| crate::registry::create::text(object, field);
    format!("{}/{}", text("namespace"), text("name")).into()
}

impl Listener for ServiceAllocator {
    fn changed(&self, resource: &ResourceCache, change: &Change) {
        match (resource.group(), resource.resource()) {
            ("", "services") => {
                let mut taken = self.taken.lock();
                change.old.iter().for_each(|old| taken.remove_service(old));
                change.new.iter().for_each(|new| taken.add_service(new));
            }
            (reservation::GROUP, reservation::ADDRESSES) => {
                let mut taken = self.taken.lock();
                match (&change.old, &change.new) {
                    (_, Some(new)) => taken.add_address(new),
                    (Some(old), None) => {
                        let Ok(address) = old.name().parse() else { return };
                        taken.addresses.remove(&address);
                        if taken.services.contains_key(&Item::Address(address)) {
                            self.harmed.notify_one();
                        }
                    }
                    (None, None) => {}
                }
            }
            _ => {}
        }
    }

    fn reloaded(&self, cache: &Cache) {
        let mut fresh = Taken::default();
        let of = |group, resource| cache.resource(group, resource).map(|cache| cache.snapshot().map);
        of("", "services").iter().flat_map(|map| map.values()).for_each(|entry| fresh.add_service(entry));
        let addresses = of(reservation::GROUP, reservation::ADDRESSES);
        addresses.iter().flat_map(|map| map.values()).for_each(|entry| fresh.add_address(entry));
        let mut taken = self.taken.lock();
        fresh.claimed = std::mem::take(&mut taken.claimed);
        *taken = fresh;
    }
}
