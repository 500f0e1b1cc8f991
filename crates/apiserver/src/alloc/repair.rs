//! Reservations that are missing are made, those that are nobody's go. Missing ones are those of Services that an earlier
//! version wrote, or that somebody deleted; nobody's are left by a server that ended in the midst of a write. As that write may
//! still be under way elsewhere, a reservation goes only when it was nobody's for a whole interval. Every server does this:
//! what one has repaired, the others find whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use keelson_api::status::Status;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::reservation::{PORTS, Reserved};
use super::{Item, Owner, reservation};
use crate::Error;
use crate::core::Core;
use crate::registry::read::freshen;
use crate::registry::update::store_error;

/// Since when which reservation, at which revision, was seen to be nobody's.
type Suspects = HashMap<Item, (u64, Instant)>;

/// What is there.
#[derive(Default)]
pub(super) struct Observed {
    pub(super) services: HashMap<Item, SmallVec<[Owner; 1]>>,
    pub(super) reserved: HashMap<Item, Reserved>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) make: Vec<(Item, Owner)>,
    /// At which revision.
    pub(super) remove: Vec<(Item, u64)>,
}

/// Judges what is there at `now`, and keeps `suspects`.
pub(super) fn plan(observed: &Observed, suspects: &mut Suspects, now: Instant, grace: Duration) -> Plan {
    let mut plan = Plan::default();
    for (item, owners) in &observed.services {
        if let (false, Some(owner)) = (observed.reserved.contains_key(item), owners.first()) {
            plan.make.push((*item, owner.clone()));
        }
        if let [one, others @ ..] = owners.as_slice()
            && !others.is_empty()
        {
            tracing::warn!(?item, service = %one, ?others, "several Services have the same; please recreate all but one");
        }
    }
    let before = std::mem::take(suspects);
    for (item, reserved) in &observed.reserved {
        let owners = observed.services.get(item);
        if owners.is_some_and(|owners| owners.contains(&reserved.owner)) {
            continue;
        }
        // What somebody else reserved is his, unless a Service has it.
        if !reserved.managed && owners.is_none() {
            continue;
        }
        let since = match before.get(item) {
            Some((revision, since)) if *revision == reserved.revision => *since,
            _ => now,
        };
        if now.duration_since(since) >= grace {
            plan.remove.push((*item, reserved.revision));
        } else {
            suspects.insert(*item, (reserved.revision, since));
        }
    }
    plan
}

/// The loop over the reservations.
pub(crate) struct Repair {
    core: Arc<Core>,
    suspects: Suspects,
}

impl Repair {
    /// Makes what Services of earlier versions lack, before the first new one is made. On a store of the server's own no
    /// write is under way, and what is nobody's goes at once.
    pub(crate) async fn take_over(core: &Arc<Core>) -> Result<Self, Error> {
        let mut repair = Self { core: core.clone(), suspects: Suspects::new() };
        let failed =
            |status: Status| Error::Bootstrap { object: "reservations of Services".into(), why: status.message };
        let grace = if core.store.is_shared() { core.config.repair_services_interval } else { Duration::ZERO };
        repair.pass(grace).await.map_err(failed)?;
        Ok(repair)
    }

    /// Runs until the server stops.
    pub(crate) async fn run(mut self) {
        let every = self.core.config.repair_services_interval;
        loop {
            tokio::select! {
                () = self.core.shutdown.cancelled() => return,
                () = tokio::time::sleep(every) => {}
                () = self.core.allocator.harmed.notified() => {}
            }
            if let Err(error) = self.pass(every).await {
                tracing::warn!(%error, "the reservations of Services could not be repaired");
            }
        }
    }

    async fn pass(&mut self, grace: Duration) -> Result<(), Status> {
        let core = &*self.core;
        // Services are read last: reservations come before them and go after them.
        let ports = core.store.range(PORTS, "", None, 0).await.map_err(store_error)?;
        if core.store.is_shared() {
            freshen(core, None).await?;
        }
        let mut observed = Observed::default();
        for kv in ports.kvs {
            if let Some(port) = kv.key.strip_prefix(PORTS).and_then(|port| port.parse().ok()) {
                observed.reserved.insert(Item::Port(port), reservation::read_port(&kv.value, kv.mod_revision));
            }
        }
        {
            let taken = core.allocator.taken.lock();
            let addresses = taken.addresses.iter().map(|(address, it)| (Item::Address(*address), it.clone()));
            observed.reserved.extend(addresses);
            observed.services.clone_from(&taken.services);
        }
        let Plan { make, remove } = plan(&observed, &mut self.suspects, Instant::now(), grace);
        for (item, outcome) in reservation::make_all(core, &make).await {
            if outcome?.is_some() {
                tracing::info!(?item, "a Service's address or port was not reserved; it is now");
            }
        }
        let mut gone = Vec::new();
        for (item, revision) in remove {
            tracing::info!(?item, "a reserved address or port belongs to no Service; it is freed");
            gone.push((reservation::key(core, item)?, revision));
        }
        reservation::unmake(&core.store, gone).await;
        Ok(())
    }
}
