//! What a write of a Service was given. Chosen from memory before the Service is checked, reserved in the store before the
//! last judges see it, given back when the write does not happen. When nobody knows whether it happened, reservations stay and
//! are the repair loop's.

use std::sync::Arc;

use keelson_api::status::Status;
use keelson_store::Store;
use serde_json::Value;
use tokio::runtime::Handle;

use super::{Item, Owner, ServiceAllocator, assign, is_service, owner_of, reservation};
use crate::core::Core;
use crate::registry::Resource;
use crate::registry::create::text;
use crate::registry::read::freshen;

/// Choices tried against other servers'.
const ROUNDS: usize = 16;

/// What a write was given; goes back unless the write happened. Empty for other kinds than Services.
pub(crate) struct Claim(Option<Box<Given>>);

struct Given {
    allocator: Arc<ServiceAllocator>,
    store: Arc<dyn Store>,
    owner: Owner,
    /// The Service's `spec` before anything was filled in.
    asked: Value,
    /// What the version before has.
    held: Vec<Item>,
    items: Vec<Item>,
    /// What turned out to be taken.
    avoid: Vec<Item>,
    /// Keys and revisions.
    reserved: Vec<(String, u64)>,
    /// The Service may have been written.
    written: bool,
}

/// Fills in the allocated fields of a Service that is about to be written; other kinds pass through. 422 when an address or
/// port that the Service names is taken or out of range.
pub(crate) async fn claim(
    core: &Core,
    resource: &Resource,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<Claim, Status> {
    match is_service(resource) {
        true => Box::pin(of_service(core, object, old)).await,
        false => Ok(Claim(None)),
    }
}

async fn of_service(core: &Core, object: &mut Value, old: Option<&Value>) -> Result<Claim, Status> {
    let mut given = Box::new(Given {
        allocator: core.allocator.clone(),
        store: core.store.clone(),
        owner: owner_of(object),
        asked: object.get("spec").cloned().unwrap_or_default(),
        held: old.map(assign::uses).unwrap_or_default(),
        items: Vec::new(),
        avoid: Vec::new(),
        reserved: Vec::new(),
        written: false,
    });
    let mut outcome = given.choose(object, old);
    if outcome.is_err() && core.store.is_shared() {
        // A refusal must not rest on what was before.
        freshen(core, None).await?;
        outcome = given.choose(object, old);
    }
    if outcome.is_err() && old.is_none() {
        let (namespace, name) = (text(object, "namespace"), text(object, "name"));
        let there = core.cache.resource("", "services").and_then(|services| services.get(namespace, name));
        if there.is_some() {
            return Err(Status::already_exists("", "services", name));
        }
    }
    outcome.map(|()| Claim(Some(given)))
}

impl Claim {
    /// Makes sure that nobody else has what was chosen: what another server was faster to take is chosen anew, or refused if
    /// the Service names it.
    pub(crate) async fn reserve(&mut self, core: &Core, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        match &mut self.0 {
            Some(given) if !given.items.is_empty() => Box::pin(given.reserve(core, object, old)).await,
            _ => Ok(()),
        }
    }

    /// From now on nobody knows whether the Service is written, until one of the other two says so.
    pub(crate) fn writing(&mut self) {
        if let Some(given) = &mut self.0 {
            given.written = true;
        }
    }

    /// The Service was not, and will not be, written.
    pub(crate) async fn give_back(&mut self, core: &Core) {
        if let Some(given) = &mut self.0
            && !given.reserved.is_empty()
        {
            Box::pin(given.give_back(core)).await;
        }
    }
}

impl Given {
    fn choose(&mut self, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        let mut taken = self.allocator.taken.lock();
        for item in self.items.drain(..) {
            taken.claimed.remove(&item);
        }
        if let Some(spec) = object.get_mut("spec") {
            spec.clone_from(&self.asked);
        }
        let limits = assign::Limits { ranges: &self.allocator.ranges, held: &self.held, avoid: &self.avoid };
        let outcome = assign::assign(&limits, &mut taken, &mut self.items, object, old);
        outcome.map_err(|error| Status::invalid("", "Service", text(object, "name"), &[error]))
    }

    async fn reserve(&mut self, core: &Core, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        for _ in 0..ROUNDS {
            let wanted: Vec<_> = self.items.iter().map(|item| (*item, self.owner.clone())).collect();
            let outcomes = reservation::make_all(core, &wanted).await;
            let mut failed = None;
            let before = self.avoid.len();
            for (item, outcome) in outcomes {
                match outcome {
                    Ok(Some(reserved)) => self.reserved.push(reserved),
                    Ok(None) => self.avoid.push(item),
                    Err(status) => failed = Some(status),
                }
            }
            if let Some(status) = failed {
                self.give_back(core).await;
                return Err(status);
            }
            if self.avoid.len() == before {
                return Ok(());
            }
            self.give_back(core).await;
            if core.store.is_shared() {
                freshen(core, None).await?;
            }
            self.choose(object, old)?;
        }
        Err(Status::internal("other API servers took every address or port that was chosen"))
    }

    async fn give_back(&mut self, core: &Core) {
        self.written = false;
        if let Some(revision) = reservation::unmake(&self.store, std::mem::take(&mut self.reserved)).await {
            // The next attempt is not to find its own.
            let _ = core.cache.wait_for(revision).await;
        }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let mut taken = self.allocator.taken.lock();
        for item in &self.items {
            taken.claimed.remove(item);
        }
        drop(taken);
        if self.written || self.reserved.is_empty() {
            return;
        }
        // The request was broken off; without a runtime the process ends, and the next one repairs.
        if let Ok(runtime) = Handle::try_current() {
            let (store, reserved) = (self.store.clone(), std::mem::take(&mut self.reserved));
            runtime.spawn(async move { reservation::unmake(&store, reserved).await });
        }
    }
}
