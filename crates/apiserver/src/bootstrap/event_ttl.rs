//! Events live for an hour. A shared store sees to that itself; for others it is done here. One task sleeps until the oldest one is due; it wakes for nothing else.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use keelson_store::Expect;
use serde::Deserialize;

use crate::cache::Entry;
use crate::core::Core;

/// The resource that expires.
pub(crate) const EVENTS: &str = "events";
/// Deletes under way at once.
const CONCURRENCY: usize = 64;
/// Events that fall due within this are removed together.
const SLACK: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct View {
    metadata: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    creation_timestamp: Option<jiff::Timestamp>,
}

/// When an event was last written, as far as the object says: upstream renews the lease with every write.
fn written_at(entry: &Entry) -> Option<jiff::Timestamp> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Times {
        last_timestamp: Option<jiff::Timestamp>,
        series: Option<Series>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Series {
        last_observed_time: Option<jiff::Timestamp>,
    }
    let created = entry.typed::<View>().ok()?.metadata.creation_timestamp;
    let times = entry.typed::<Times>().ok();
    let last = times.as_ref().and_then(|t| t.last_timestamp);
    let observed = times.and_then(|t| t.series).and_then(|s| s.last_observed_time);
    created.into_iter().chain(last).chain(observed).max()
}

/// Removes events when their time has come.
pub(crate) async fn run(core: Arc<Core>) {
    let Some(cache) = core.cache.resource("", EVENTS) else { return };
    let ttl = core.config.event_ttl;
    let mut changed = cache.follow();
    loop {
        changed.borrow_and_update();
        let now = keelson_client::clock::now();
        let mut next: Option<jiff::Timestamp> = None;
        let mut due = Vec::new();
        for entry in cache.snapshot().map.values() {
            let Some(expires) = written_at(entry).and_then(|at| at.checked_add(ttl).ok()) else { continue };
            if expires <= now {
                due.push(entry.clone());
            } else {
                next = Some(next.map_or(expires, |n| n.min(expires)));
            }
        }
        let store = &core.store;
        for batch in due.chunks(CONCURRENCY) {
            let mut removals = futures::stream::FuturesUnordered::new();
            for entry in batch {
                removals.push(store.delete(&entry.key, Expect::Revision(entry.revision)));
            }
            // A conflict is an event that was renewed meanwhile.
            while removals.next().await.is_some() {}
        }
        match next {
            // Nothing to expire: the next event starts the clock.
            None => tokio::select! {
                () = core.shutdown.cancelled() => return,
                more = changed.changed() => if more.is_err() { return },
            },
            Some(next) => {
                let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default() + SLACK;
                tokio::select! {
                    () = core.shutdown.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}
