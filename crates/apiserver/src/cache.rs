//! The watch cache: everything in the store, in memory, once. One store watch feeds it; GET, LIST and WATCH are answered
//! from it with the stored bytes.
//!
//! - [`entry`]: one object version: its bytes, and what selectors need of it
//! - [`frames`]: a change in other forms than stored JSON
//! - [`resource`]: the ordered map and the ring of changes of one resource
//! - [`feed`]: loads the cache and keeps it up to date
//! - [`view`]: a resource in another version
//! - [`watcher`]: a reader of the ring

pub(crate) mod entry;
pub(crate) mod feed;
pub(crate) mod frames;
pub(crate) mod resource;
mod shallow;
pub(crate) mod view;
pub(crate) mod watcher;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use keelson_api::status::Status;
use tokio::sync::{Notify, mpsc, oneshot, watch};

pub(crate) use entry::Entry;
pub(crate) use resource::{Change, ResourceCache};

/// How long a read waits for the cache to catch up with a revision before it answers 504.
const CATCH_UP: Duration = Duration::from_secs(3);

/// All resources' caches. Which there are changes with the custom resources; readers take no lock.
pub(crate) struct Cache {
    /// By key prefix without its last slash: `/registry/pods`, `/registry/apps/deployments`.
    by_prefix: ArcSwap<HashMap<String, Arc<ResourceCache>>>,
    /// Caches for the feed to fill.
    installs: mpsc::Sender<Install>,
    /// The feed is to load everything again.
    reload: Notify,
    /// Every change up to here is in the caches.
    revision: watch::Sender<u64>,
    /// The store is closed or cannot be read now: the caches do not change.
    broken: AtomicBool,
}

/// A cache to be filled from the store and followed from then on.
pub(crate) struct Install {
    cache: Arc<ResourceCache>,
    done: oneshot::Sender<Result<(), String>>,
}

impl Cache {
    /// Empty caches for these resources.
    pub(crate) fn new(caches: Vec<Arc<ResourceCache>>) -> (Self, mpsc::Receiver<Install>) {
        let (installs, receiver) = mpsc::channel(16);
        let by_prefix = caches.into_iter().map(|c| (c.prefix().trim_end_matches('/').to_owned(), c)).collect();
        let (revision, broken) = (watch::Sender::new(0), AtomicBool::new(false));
        (
            Self { by_prefix: ArcSwap::from_pointee(by_prefix), installs, reload: Notify::new(), revision, broken },
            receiver,
        )
    }

    /// Puts a cache in, filled from the store, in place of the one that held the same keys.
    pub(crate) async fn install(&self, cache: Arc<ResourceCache>) -> Result<(), Status> {
        let (done, answer) = oneshot::channel();
        let closed = || Status::unavailable("the watch cache is closed");
        self.installs.send(Install { cache, done }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?.map_err(Status::internal)
    }

    /// Who still has the cache that was there finds it to be over before it misses a change.
    fn insert(&self, cache: &Arc<ResourceCache>) {
        let key = cache.prefix().trim_end_matches('/');
        if let Some(replaced) = self.by_prefix.load().get(key) {
            replaced.end();
        }
        self.by_prefix.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.insert(key.to_owned(), cache.clone());
            map
        });
    }

    /// Takes a cache out, which is over then.
    pub(crate) fn remove(&self, cache: &Arc<ResourceCache>) {
        cache.end();
        let key = cache.prefix().trim_end_matches('/');
        self.by_prefix.rcu(|map| {
            let mut map = HashMap::clone(map);
            if map.get(key).is_some_and(|there| Arc::ptr_eq(there, cache)) {
                map.remove(key);
            }
            map
        });
    }

    /// The cache of a stored resource.
    pub(crate) fn resource(&self, group: &str, resource: &str) -> Option<Arc<ResourceCache>> {
        self.by_prefix.load().get(resource::prefix(group, resource).trim_end_matches('/')).cloned()
    }

    /// Every cache.
    pub(crate) fn all(&self) -> Vec<Arc<ResourceCache>> {
        self.by_prefix.load().values().cloned().collect()
    }

    /// The cache that a key belongs to: `/registry/<resource>/…` or `/registry/<group>/<resource>/…`.
    fn of_key(&self, key: &str) -> Option<Arc<ResourceCache>> {
        let by_prefix = self.by_prefix.load();
        let tail = key.strip_prefix(ROOT)?;
        let first = tail.find('/')?;
        if let Some(cache) = by_prefix.get(key.get(..ROOT.len() + first)?) {
            return Some(cache.clone());
        }
        let second = tail.get(first + 1..)?.find('/')?;
        by_prefix.get(key.get(..ROOT.len() + first + 1 + second)?).cloned()
    }

    /// What a key is about, as metrics say it: `pods`, `deployments.apps`; `other` for what belongs to no resource.
    pub(crate) fn type_of_key(&self, key: &str) -> (String, String) {
        match self.of_key(key) {
            None => (String::new(), "other".into()),
            Some(cache) => (cache.group().into(), cache.resource().into()),
        }
    }

    /// The revision that every cache has reached.
    pub(crate) fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Has everything read from the store again; watches end.
    pub(crate) fn reload(&self) {
        self.reload.notify_one();
    }

    /// Whether the caches stopped following the store.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    /// Waits until the caches hold everything up to `revision`; says whether they do after a while.
    pub(crate) async fn reaches(&self, revision: u64, patience: Duration) -> bool {
        if self.revision() >= revision {
            return true;
        }
        let mut receiver = self.revision.subscribe();
        matches!(tokio::time::timeout(patience, receiver.wait_for(|now| *now >= revision)).await, Ok(Ok(_)))
    }

    /// Waits until the caches hold a write, within limits: it is done, whether they show it or not.
    pub(crate) async fn follow_write(&self, revision: u64) {
        if !self.reaches(revision, CATCH_UP).await {
            tracing::warn!(
                revision,
                current = self.revision(),
                "the caches do not follow the store; a write is answered without them"
            );
        }
    }

    /// Waits until the caches hold everything up to `revision`; 504 when that takes too long.
    pub(crate) async fn wait_for(&self, revision: u64) -> Result<(), Status> {
        match self.reaches(revision, CATCH_UP).await {
            true => Ok(()),
            false => Err(too_large(revision, self.revision())),
        }
    }
}

/// Where all keys start.
pub(crate) const ROOT: &str = "/registry/";

/// 504 for a revision that has not happened yet.
pub(crate) fn too_large(requested: u64, current: u64) -> Status {
    let mut status = Status::timeout(format!("Too large resource version: {requested}, current: {current}"));
    status.details = Some(Box::new(keelson_api::status::Details {
        retry_after_seconds: 1,
        causes: vec![keelson_api::status::Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }],
        ..Default::default()
    }));
    status
}

/// 410 for a revision that is not in memory any more.
pub(crate) fn too_old(requested: u64, oldest: u64) -> Status {
    Status::expired(format!("too old resource version: {requested} ({oldest})"))
}
