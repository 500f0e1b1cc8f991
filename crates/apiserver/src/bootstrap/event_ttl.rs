//! Events go when they were not written for an hour (`--event-ttl`). A shared store sees to that itself; for others it is done
//! here. What counts is when the server wrote an event, whatever times the event gives, so it goes by revisions: [`times`] knows
//! when they came to be, also those of before a restart. No event is read for it, and nothing wakes without one.

mod times;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use keelson_store::{Error, Expect};
use tokio::time::sleep;

use self::times::Times;
use crate::cache::ResourceCache;
use crate::core::Core;

/// The resource that expires.
pub(crate) const EVENTS: &str = "events";
/// Where the times of revisions are kept.
const KEY: &str = "/registry/eventtimes";
/// Deletes under way at once.
const CONCURRENCY: usize = 64;
/// Until a removal that failed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Removes events when their time has come.
pub(crate) async fn run(core: Arc<Core>) {
    let Some(cache) = core.cache.resource("", EVENTS) else { return };
    let mut times = load(&core).await;
    let mut changed = cache.follow();
    loop {
        changed.borrow_and_update();
        let now = keelson_client::clock::now();
        let snapshot = cache.snapshot();
        if (times.is_counting() || !snapshot.map.is_empty()) && times.note(snapshot.revision, now) {
            save(&core, &times).await;
        }
        let mut next = times.next(now);
        if let Some(revision) = times.due(now) {
            match remove(&core, &cache, revision).await {
                true => times.forget(revision),
                false => next = Some(RETRY),
            }
        }
        let follows = !times.is_counting();
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = sleep(next.unwrap_or_default()), if next.is_some() => {}
            more = changed.changed(), if follows => if more.is_err() { return },
        }
    }
}

/// Removes the events that were written last at `revision` or before; whether all are gone.
async fn remove(core: &Core, cache: &ResourceCache, revision: u64) -> bool {
    let snapshot = cache.snapshot();
    let due: Vec<_> = snapshot.map.values().filter(|entry| entry.revision <= revision).cloned().collect();
    let mut all = true;
    for batch in due.chunks(CONCURRENCY) {
        let mut removals = FuturesUnordered::new();
        for entry in batch {
            removals.push(core.store.delete(&entry.key, Expect::Revision(entry.revision)));
        }
        while let Some(removed) = removals.next().await {
            // A conflict is an event that was written or removed meanwhile.
            if let Err(error) = removed
                && !matches!(error, Error::Conflict { .. })
            {
                tracing::warn!(%error, "an event that is due cannot be removed");
                all = false;
            }
        }
    }
    all
}

async fn load(core: &Core) -> Times {
    let ttl = core.config.event_ttl;
    let kept = core.store.get(KEY).await.inspect_err(|error| tracing::warn!(%error, "{KEY} cannot be read"));
    let kept = kept.ok().flatten().map(|kv| kv.value).unwrap_or_default();
    Times::load(ttl, &kept, keelson_client::clock::now())
}

async fn save(core: &Core, times: &Times) {
    // Without it, events live longer after a restart.
    if let Err(error) = core.store.put(KEY, times.save().into(), Expect::Any).await {
        tracing::warn!(%error, "{KEY} cannot be written");
    }
}
