//! Fills the caches from the store and follows its one watch. After every batch the listeners (RBAC index, allocators)
//! see the changes, then the watchers wake, then the cache's revision moves: whoever waits for a revision finds all of it.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use keelson_store::{Store, WatchItem};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Cache, Change, Entry, Install, ROOT, ResourceCache};
use crate::Error;

/// Somebody inside the server who keeps an index over the cache.
pub(crate) trait Listener: Send + Sync {
    /// A change that is in the cache already.
    fn changed(&self, resource: &ResourceCache, change: &Change);
    /// Everything was loaded anew.
    fn reloaded(&self, cache: &Cache);
}

/// The cache's writer.
pub(crate) struct Feed {
    pub(crate) cache: Arc<Cache>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) listeners: Vec<Arc<dyn Listener>>,
    pub(crate) installs: mpsc::Receiver<Install>,
}

impl Feed {
    /// Loads everything; returns the revision loaded.
    pub(crate) async fn load(&self) -> Result<u64, Error> {
        let range = self.store.range(ROOT, "", None, 0).await?;
        let revision = range.revision;
        let caches = self.cache.all();
        let mut by_cache: HashMap<&str, (&Arc<ResourceCache>, Vec<Arc<Entry>>)> =
            caches.iter().map(|cache| (cache.prefix(), (cache, Vec::new()))).collect();
        for kv in range.kvs {
            let Some(cache) = self.cache.of_key(&kv.key) else {
                // A custom resource's, which is put in once its definition is read.
                tracing::debug!(key = %kv.key, "a stored key belongs to no known resource");
                continue;
            };
            let entry = cache.entry(kv, false).map_err(|why| Error::Bootstrap { object: "watch cache".into(), why })?;
            if let Some((_, entries)) = by_cache.get_mut(cache.prefix()) {
                entries.push(Arc::new(entry));
            }
        }
        for (cache, entries) in by_cache.into_values() {
            cache.load(entries.into_iter(), revision);
        }
        for listener in &self.listeners {
            listener.reloaded(&self.cache);
        }
        self.cache.revision.send_replace(revision);
        Ok(revision)
    }

    /// Follows the store from `revision` until `shutdown` or until the store closes. A watch that breaks is followed by a
    /// reload.
    pub(crate) async fn run(mut self, mut revision: u64, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                error = self.follow(revision) => match error {
                    keelson_store::Error::Closed => return self.cache.set_broken(),
                    error => tracing::warn!(%error, "the store's watch broke; loading the cache again"),
                },
            }
            revision = match self.load().await {
                Ok(revision) => revision,
                Err(error) => {
                    tracing::error!(%error, "the watch cache cannot be loaded; it stays as it is");
                    return self.cache.set_broken();
                }
            };
        }
    }

    async fn follow(&mut self, revision: u64) -> keelson_store::Error {
        let mut stream = match self.store.watch(ROOT, revision).await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        loop {
            let item = tokio::select! {
                item = stream.next() => item,
                Some(install) = self.installs.recv() => {
                    self.install(install).await;
                    continue;
                }
            };
            match item {
                Some(Ok(WatchItem::Events(events))) => self.apply(events),
                Some(Ok(WatchItem::Progress(revision))) => self.advance(revision),
                Some(Err(error)) => return error,
                None => return keelson_store::Error::Closed,
            }
        }
    }

    /// Nothing is applied meanwhile, so the new cache misses no change.
    async fn install(&self, Install { cache, done }: Install) {
        let result = match self.store.range(cache.prefix(), "", None, 0).await {
            Ok(range) => {
                let read = |kv: keelson_store::KeyValue| match cache.entry(kv, false) {
                    Ok(entry) => Some(Arc::new(entry)),
                    Err(why) => {
                        tracing::error!(why, "a stored object cannot be read");
                        None
                    }
                };
                cache.load(range.kvs.into_iter().filter_map(read), range.revision);
                self.cache.insert(&cache);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        // Who asked may have gone.
        let _ = done.send(result);
    }

    fn apply(&self, events: Vec<keelson_store::Event>) {
        let mut touched: Vec<Arc<ResourceCache>> = Vec::new();
        let mut last = 0;
        for event in events {
            last = event.revision;
            let Some(cache) = self.cache.of_key(&event.key) else { continue };
            if cache.knows(event.revision) {
                continue;
            }
            let new = match event.value.map(|kv| cache.entry(kv, true)).transpose() {
                Ok(new) => new.map(Arc::new),
                Err(why) => {
                    tracing::error!(why, "a stored object cannot be read");
                    continue;
                }
            };
            let change = cache.apply(&event.key, new, event.revision);
            for listener in &self.listeners {
                listener.changed(&cache, &change);
            }
            if !touched.iter().any(|c| Arc::ptr_eq(c, &cache)) {
                touched.push(cache);
            }
        }
        self.advance(last);
        for cache in touched {
            cache.announce();
        }
    }

    fn advance(&self, revision: u64) {
        self.cache.revision.send_if_modified(|now| {
            let newer = revision > *now;
            if newer {
                *now = revision;
            }
            newer
        });
    }
}
