//! Forgetting: every five minutes the store drops the history before the last five minutes, and the caches' rings what is
//! older than they promise to keep. Continue tokens and watches may be that old, as in upstream.

use std::sync::Arc;
use std::time::Duration;

use crate::core::Core;

const EVERY: Duration = Duration::from_secs(300);

/// Runs until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut before = core.cache.revision();
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        for cache in core.cache.all() {
            cache.trim();
        }
        // Views are nobody's but their resources'.
        for view in core.registry.served().all().iter().filter_map(|resource| resource.stored()) {
            view.trim();
        }
        let now = core.cache.revision();
        if now == before {
            continue;
        }
        match core.store.compact(before).await {
            Ok(()) | Err(keelson_store::Error::Compacted { .. }) => {}
            Err(error) => tracing::warn!(%error, revision = before, "the store could not be compacted"),
        }
        before = now;
    }
}
