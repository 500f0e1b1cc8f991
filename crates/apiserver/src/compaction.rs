//! Forgetting: in every interval the store drops the history before the last one, and the caches' rings what is older than
//! they promise to keep. Servers that share a store take turns. Continue tokens and watches may be that old, as in upstream.

use std::sync::Arc;

use crate::core::Core;

/// Runs until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    let every = core.config.compaction_interval;
    if every.is_zero() {
        return;
    }
    let mut before = core.cache.revision();
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        for cache in core.cache.all() {
            cache.trim();
        }
        // Views are nobody's but their resources'.
        for view in core.registry.served().all().iter().filter_map(|resource| resource.stored()) {
            view.trim();
        }
        if core.store.is_shared() {
            // The watch is to go on from near the newest revision when it breaks, also when nothing happens under it.
            if let Err(error) = core.store.request_progress().await {
                tracing::warn!(%error, "the store does not tell how far its watch has come");
            }
        }
        let now = core.cache.revision();
        if now == before {
            continue;
        }
        match core.store.compact_in_turn(before).await {
            Ok(()) | Err(keelson_store::Error::Compacted { .. }) => {}
            Err(error) => tracing::warn!(%error, revision = before, "the store could not be compacted"),
        }
        before = now;
    }
}
