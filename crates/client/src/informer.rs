//! Shared informers: one list and watch of a kind feeds a store that many read and change notifications that many
//! subscribe to.
//!
//! A subscription begins with [`Change::Resync`], which carries everything there is once the first list is complete;
//! the same comes again should the subscriber ever fall so far behind that changes were dropped. So a subscriber that
//! treats `Resync` as "this is all there is" never loses anything, and runs that code every time it starts.

mod factory;
mod mailbox;
mod store;
mod watch;

use std::sync::Arc;

use kube::runtime::watcher;
use kube::{Api, Resource};
use tokio::sync::watch as latest;
use tokio_util::task::AbortOnDropHandle;

pub use factory::InformerFactory;
pub use mailbox::SUBSCRIBER_CAPACITY;
use mailbox::{Mail, Mailbox, Mailboxes};
use store::Store;

/// What informers can hold. Implemented for all that `kube` can watch.
pub trait Object: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static {}
impl<K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static> Object for K {}

/// Drops from an object what nobody in this process reads.
pub type Transform<K> = fn(&mut K);

/// One change, or the whole state.
#[derive(Debug)]
pub enum Change<K> {
    Added(Arc<K>),
    /// The old and the new object.
    Updated(Arc<K>, Arc<K>),
    /// The last state seen.
    Deleted(Arc<K>),
    /// All objects there are, ordered by key: the first change of every subscription, and what a subscriber gets that
    /// fell behind. Whatever it knew that is not in here is gone.
    Resync(Vec<Arc<K>>),
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(new) => Self::Added(new.clone()),
            Self::Updated(old, new) => Self::Updated(old.clone(), new.clone()),
            Self::Deleted(old) => Self::Deleted(old.clone()),
            Self::Resync(all) => Self::Resync(all.clone()),
        }
    }
}

/// A handle; clones share the watch, which ends with the last of them (and of their subscriptions).
pub struct SharedInformer<K>(Arc<Inner<K>>);

impl<K> Clone for SharedInformer<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<K> {
    shared: Arc<Shared<K>>,
    _task: AbortOnDropHandle<()>,
}

struct Shared<K> {
    store: parking_lot::RwLock<Store<K>>,
    subscribers: Mailboxes<K>,
    synced: latest::Sender<bool>,
}

impl<K: Object> SharedInformer<K>
where
    K::DynamicType: Clone,
{
    /// Starts to list and watch. `managedFields` are always dropped; `transform` may drop more.
    pub fn start(api: Api<K>, config: watcher::Config, transform: Option<Transform<K>>) -> Self {
        let what = api.resource_url().to_owned();
        Self::start_from(what, watcher(api, config), transform)
    }

    /// Starts on any stream of watcher events; `what` names it in the log.
    pub fn start_from(
        what: String,
        events: impl futures::Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
        transform: Option<Transform<K>>,
    ) -> Self {
        let (synced, _) = latest::channel(false);
        let shared =
            Arc::new(Shared { store: parking_lot::RwLock::default(), subscribers: Mailboxes::default(), synced });
        let task = tokio::spawn(watch::follow(what, events, transform, shared.clone()));
        Self(Arc::new(Inner { shared, _task: AbortOnDropHandle::new(task) }))
    }
}

impl<K: Resource> SharedInformer<K> {
    /// Waits for the first complete list.
    pub async fn synced(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.0.shared.synced.borrow()
    }

    /// The object of that name, as last seen. `namespace` is ignored when empty.
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        self.0.shared.store.read().get(crate::Key::new(namespace, name).as_str())
    }

    /// The object of that key, as last seen.
    pub fn get_key(&self, key: &crate::Key) -> Option<Arc<K>> {
        self.0.shared.store.read().get(key.as_str())
    }

    /// All objects, ordered by key.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.0.shared.store.read().list()
    }

    /// The objects of a namespace, ordered by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.0.shared.store.read().list_in(namespace)
    }

    /// The highest `resourceVersion` (as a number) of any object or deletion seen. A write that was answered with a
    /// version up to this one is in the store.
    pub fn latest_version(&self) -> u64 {
        self.0.shared.store.read().latest()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.0.shared.store.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps an index: `value` gives the value (if any) under which an object is to be found with
    /// [`by_index`](Self::by_index). Adding an index of the same name again does nothing.
    pub fn add_index(&self, name: &'static str, value: fn(&K) -> Option<String>) {
        self.0.shared.store.write().add_index(name, value);
    }

    /// The objects with that value in an index, ordered by key; none when there is no such index.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        self.0.shared.store.read().by_index(name, value)
    }

    /// Changes from now on, beginning with a [`Change::Resync`] when the first list is complete.
    pub fn subscribe(&self) -> Subscription<K> {
        let shared = &self.0.shared;
        Subscription {
            mailbox: shared.subscribers.subscribe(),
            synced: shared.synced.subscribe(),
            informer: self.clone(),
        }
    }
}

/// A subscriber's end: see [`SharedInformer::subscribe`].
pub struct Subscription<K> {
    informer: SharedInformer<K>,
    mailbox: Arc<Mailbox<K>>,
    synced: latest::Receiver<bool>,
}

impl<K: Resource> Subscription<K> {
    /// The next change; never ends while the informer runs (which it does as long as `self` is there). Cancel safe.
    pub async fn next(&mut self) -> Change<K> {
        // The sender lives as long as the informer.
        let _ = self.synced.wait_for(|synced| *synced).await;
        loop {
            match self.mailbox.take() {
                Mail::Change(change) => return change,
                Mail::Stale => return self.resync(),
                Mail::Nothing => self.mailbox.changed().await,
            }
        }
    }

    /// The next change if there is one already.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        if !*self.synced.borrow() {
            return None;
        }
        match self.mailbox.take() {
            Mail::Change(change) => Some(change),
            Mail::Stale => Some(self.resync()),
            Mail::Nothing => None,
        }
    }

    fn resync(&self) -> Change<K> {
        // Changes are sent while the store is locked for writing, so the list and what follows it fit together.
        let store = self.informer.0.shared.store.read();
        self.mailbox.restart();
        Change::Resync(store.list())
    }
}

#[cfg(test)]
mod tests;
