//! Which of a controller's own writes its informer has not shown yet. Acting on a store that lacks them would create or
//! delete too many, so a key waits until they are seen.
//!
//! Upstream counts events; this compares with the store instead, so a lost or merged event cannot unbalance it: a create
//! has been seen when the informer is past the version the server answered with, a delete when the object of that uid is
//! gone or marked.

use std::collections::HashMap;
use std::time::Duration;

use keelson_client::{Key, SharedInformer};
use kube::Resource;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::objects::{is_deleting, uid};

/// After this long the writes are assumed to have been seen, as upstream does.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Writes under way, per key of the owner.
#[derive(Default)]
pub(crate) struct Expectations(Mutex<HashMap<Key, Expected>>);

struct Expected {
    /// Highest version that a create was answered with.
    created: u64,
    /// Object and uid.
    deleted: Vec<(Key, String)>,
    since: Instant,
}

impl Expectations {
    /// A create was answered with `version`.
    pub(crate) fn created(&self, owner: &Key, version: Option<&str>) {
        let version = version.and_then(|version| version.parse().ok()).unwrap_or(0);
        self.change(owner, |expected| expected.created = expected.created.max(version));
    }

    /// A delete of `object` was accepted.
    pub(crate) fn deleted(&self, owner: &Key, object: Key, uid: &str) {
        self.change(owner, |expected| expected.deleted.push((object, uid.to_owned())));
    }

    fn change(&self, owner: &Key, change: impl FnOnce(&mut Expected)) {
        let mut all = self.0.lock();
        let new = || Expected { created: 0, deleted: Vec::new(), since: Instant::now() };
        let expected = all.entry(owner.clone()).or_insert_with(new);
        expected.since = Instant::now();
        change(expected);
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, owner: &Key) {
        self.0.lock().remove(owner);
    }

    /// Whether the informer shows all that this owner's writes have done.
    pub(crate) fn fulfilled<K: Resource>(&self, owner: &Key, informer: &SharedInformer<K>) -> bool {
        let mut all = self.0.lock();
        let Some(expected) = all.get_mut(owner) else { return true };
        expected.deleted.retain(|(key, deleted)| {
            informer.get_key(key).is_some_and(|object| uid(object.meta()) == deleted && !is_deleting(object.meta()))
        });
        let seen = expected.deleted.is_empty() && informer.latest_version() >= expected.created;
        if seen || expected.since.elapsed() > TIMEOUT {
            all.remove(owner);
            return true;
        }
        false
    }
}
