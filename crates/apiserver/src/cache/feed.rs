//! Fills the caches from the store and follows its one watch. After every batch the listeners (RBAC index, allocators)
//! see the changes, then the watchers wake, then the cache's revision moves: whoever waits for a revision finds all of it.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use keelson_store::{Event, KeyValue, Range, Store, WatchItem};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::resource::Stored;
use super::{Cache, Change, Entry, Install, ROOT, ResourceCache};
use crate::Error;
use crate::encryption::{Encryption, Unreadable};

/// Objects that are worth a thread.
const LEAST_SHARE: usize = 4096;
/// Pause after a load that failed.
const RETRY: Duration = Duration::from_secs(1);

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
    encryption: Arc<Encryption>,
    pub(crate) listeners: Vec<Arc<dyn Listener>>,
    installs: mpsc::Receiver<Install>,
    /// What the store holds for caches that are to be put in, being read beside the loop.
    reads: JoinSet<Result<Read, String>>,
    /// Who waits for those reads.
    reading: HashMap<Id, Reading>,
}

/// A resource at one revision.
struct Read {
    stored: Stored,
    revision: u64,
}

/// A cache that is being read, and what happened to its keys since that began.
struct Reading {
    install: Install,
    since: Vec<Event>,
}

impl Feed {
    pub(crate) fn new(
        cache: Arc<Cache>,
        store: Arc<dyn Store>,
        encryption: Arc<Encryption>,
        listeners: Vec<Arc<dyn Listener>>,
        installs: mpsc::Receiver<Install>,
    ) -> Self {
        Self { cache, store, encryption, listeners, installs, reads: JoinSet::new(), reading: HashMap::new() }
    }

    /// Loads everything; returns the revision loaded.
    pub(crate) async fn load(&self) -> Result<u64, Error> {
        let Range { kvs, revision, .. } = self.store.range(ROOT, "", None, 0).await?;
        let mut all: BTreeMap<String, Stored> = BTreeMap::new();
        for (prefix, mut read) in in_shares(kvs, |share| self.read_share(share)).into_iter().flatten() {
            let stored = all.entry(prefix).or_default();
            stored.entries.append(&mut read.entries);
            stored.unreadable.append(&mut read.unreadable);
        }
        for cache in self.cache.all() {
            cache.load(all.remove(cache.prefix()).unwrap_or_default(), revision);
        }
        for listener in &self.listeners {
            listener.reloaded(&self.cache);
        }
        self.cache.revision.send_replace(revision);
        Ok(revision)
    }

    /// By the prefixes of the caches that they belong to. Custom resources are put in once their definitions are read.
    fn read_share(&self, share: Vec<KeyValue>) -> BTreeMap<String, Stored> {
        let mut all: BTreeMap<String, Stored> = BTreeMap::new();
        for kv in share {
            let Some(cache) = self.cache.of_key(&kv.key) else {
                tracing::debug!(key = %kv.key, "a stored key belongs to no known resource");
                continue;
            };
            if !all.contains_key(cache.prefix()) {
                all.insert(cache.prefix().to_owned(), Stored::default());
            }
            let Some(stored) = all.get_mut(cache.prefix()) else { continue };
            match read(&self.encryption, &cache, kv, false) {
                Ok(entry) => stored.entries.push(entry),
                Err(Unreadable { key, why }) => drop(stored.unreadable.insert(key, why)),
            }
        }
        all
    }

    /// Follows the store from `revision` until `shutdown` or until the store closes. A watch that breaks is followed by a
    /// reload.
    pub(crate) async fn run(mut self, mut revision: u64, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                error = self.follow(revision) => match error {
                    None => tracing::info!("loading the cache again"),
                    Some(keelson_store::Error::Closed) => return self.cache.set_broken(true),
                    Some(error) => tracing::warn!(%error, "the store's watch broke; loading the cache again"),
                },
            }
            revision = tokio::select! {
                () = shutdown.cancelled() => return,
                revision = self.load_again() => match revision {
                    Some(revision) => revision,
                    None => return,
                },
            };
            // What happened in between is unknown: those are read again too.
            self.reads = JoinSet::new();
            for Reading { install, .. } in std::mem::take(&mut self.reading).into_values() {
                self.read(install);
            }
        }
    }

    /// Loads everything, however often it takes; `None` when the store is closed.
    async fn load_again(&self) -> Option<u64> {
        loop {
            match self.load().await {
                Ok(revision) => {
                    self.cache.set_broken(false);
                    return Some(revision);
                }
                Err(error) => {
                    tracing::error!(%error, "the watch cache cannot be loaded; it stays as it is");
                    self.cache.set_broken(true);
                    if matches!(error, Error::Store(keelson_store::Error::Closed)) {
                        return None;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Ends with what broke the watch, or when everything is to be loaded again.
    async fn follow(&mut self, revision: u64) -> Option<keelson_store::Error> {
        let mut stream = match self.store.watch(ROOT, revision).await {
            Ok(stream) => stream,
            Err(error) => return Some(error),
        };
        let cache = self.cache.clone();
        loop {
            let item = tokio::select! {
                item = stream.next() => item,
                () = cache.reload.notified() => return None,
                Some(install) = self.installs.recv() => {
                    self.read(install);
                    continue;
                }
                Some(read) = self.reads.join_next_with_id() => {
                    self.install(read);
                    continue;
                }
            };
            match item {
                Some(Ok(WatchItem::Events(events))) => self.apply(events),
                Some(Ok(WatchItem::Progress(revision))) => self.advance(revision),
                Some(Err(error)) => return Some(error),
                None => return Some(keelson_store::Error::Closed),
            }
        }
    }

    /// Starts to read what a cache is to hold. The loop goes on meanwhile, and keeps what happens to those keys.
    fn read(&mut self, install: Install) {
        let (cache, store, encryption) = (install.cache.clone(), self.store.clone(), self.encryption.clone());
        let task = self.reads.spawn(async move {
            let range = store.range(cache.prefix(), "", None, 0).await.map_err(|error| error.to_string())?;
            let read = move || {
                let mut stored = Stored::default();
                for kv in range.kvs {
                    match read(&encryption, &cache, kv, false) {
                        Ok(entry) => stored.entries.push(entry),
                        Err(Unreadable { key, why }) => drop(stored.unreadable.insert(key, why)),
                    }
                }
                Read { stored, revision: range.revision }
            };
            tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())
        });
        self.reading.insert(task.id(), Reading { install, since: Vec::new() });
    }

    /// Puts a cache in that has been read: it gets what happened since, and takes the place of the one that was there, which
    /// is over before the next change is applied.
    fn install(&mut self, read: Result<(Id, Result<Read, String>), JoinError>) {
        let (id, read) = match read {
            Ok(read) => read,
            Err(error) => (error.id(), Err(error.to_string())),
        };
        let Some(Reading { install: Install { cache, done }, since }) = self.reading.remove(&id) else { return };
        let result = read.map(|Read { stored, revision }| {
            cache.load(stored, revision);
            for event in since.into_iter().filter(|event| event.revision > revision) {
                let new = match event.value {
                    None => None,
                    Some(kv) => match readable(&self.encryption, &cache, kv, false) {
                        None => continue,
                        new => new,
                    },
                };
                cache.apply(&event.key, new, event.revision);
            }
            self.cache.insert(&cache);
        });
        // Who asked may have gone.
        let _ = done.send(result);
    }

    fn apply(&mut self, events: Vec<Event>) {
        let mut touched: Vec<Arc<ResourceCache>> = Vec::new();
        let mut last = 0;
        for event in events {
            last = event.revision;
            for reading in self.reading.values_mut() {
                if event.key.starts_with(reading.install.cache.prefix()) {
                    reading.since.push(event.clone());
                }
            }
            let Some(cache) = self.cache.of_key(&event.key) else { continue };
            if cache.knows(event.revision) {
                continue;
            }
            let new = match event.value {
                None => None,
                Some(kv) => match readable(&self.encryption, &cache, kv, true) {
                    None => continue,
                    new => new,
                },
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

/// What `read` makes of each share of `all`, in order; as many shares at once as there are processors.
fn in_shares<T: Send>(mut all: Vec<KeyValue>, read: impl Fn(Vec<KeyValue>) -> T + Sync) -> Vec<T> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let size = all.len().div_ceil(processors).max(LEAST_SHARE);
    let read = &read;
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        while all.len() > size {
            let share = all.split_off(all.len() - size);
            others.push(scope.spawn(move || read(share)));
        }
        let mut parts = vec![read(all)];
        parts.extend(others.into_iter().rev().map(|other| match other.join() {
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        parts
    })
}

/// A stored version as the cache holds it, or why it cannot be had.
fn read(encryption: &Encryption, cache: &ResourceCache, kv: KeyValue, trusted: bool) -> Result<Arc<Entry>, Unreadable> {
    let entry = encryption.entry(cache, kv, trusted);
    entry.map(Arc::new).inspect_err(|Unreadable { why, .. }| tracing::error!(why, "a stored object cannot be read"))
}

/// As [`read`]; what cannot be read is noted, and the version before it stays.
fn readable(encryption: &Encryption, cache: &ResourceCache, kv: KeyValue, trusted: bool) -> Option<Arc<Entry>> {
    let Unreadable { key, why } = match read(encryption, cache, kv, trusted) {
        Ok(entry) => return Some(entry),
        Err(unreadable) => unreadable,
    };
    cache.set_unreadable(key, why);
    None
}
