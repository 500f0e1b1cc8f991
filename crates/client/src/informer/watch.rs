//! The task behind an informer: watcher events into the store and out to subscribers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::watcher;

use super::{Change, Object, Shared, Transform};
use crate::{Backoff, Key};

/// Runs until aborted.
pub(super) async fn follow<K: Object>(
    what: String,
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    transform: Option<Transform<K>>,
    shared: Arc<Shared<K>>,
) {
    let mut events = std::pin::pin!(events);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30)).jitter(0.5);
    let mut away = false;
    // What the list under way has brought so far.
    let mut listed = BTreeSet::new();
    // Lists are not in order of version, so their versions count as seen only when they are complete.
    let mut newest: Option<Arc<K>> = None;
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                if !std::mem::replace(&mut away, true) && !is_routine(&error) {
                    tracing::warn!(%what, %error, "watch failed, trying again until it works");
                }
                backoff.wait().await;
                continue;
            }
        };
        if !matches!(event, watcher::Event::Init) {
            backoff.reset();
            if std::mem::take(&mut away) {
                tracing::info!(%what, "watching again");
            }
        }
        let strip = |mut object: K| {
            object.meta_mut().managed_fields = None;
            if let Some(transform) = transform {
                transform(&mut object);
            }
            (Key::of(&object), Arc::new(object))
        };
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(object) => {
                let (key, object) = strip(object);
                listed.insert(key.clone());
                if newest.as_ref().is_none_or(|newest| version(&**newest) < version(&*object)) {
                    newest = Some(object.clone());
                }
                apply(&shared, key, object, false);
            }
            watcher::Event::InitDone => {
                let gone: Vec<_> = shared.store.read().keys().filter(|key| !listed.contains(*key)).cloned().collect();
                for key in gone {
                    remove(&shared, &key, None);
                }
                listed = BTreeSet::new();
                if let Some(newest) = newest.take() {
                    shared.store.write().saw(&newest);
                }
                shared.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
            }
            watcher::Event::Apply(object) => {
                let (key, object) = strip(object);
                apply(&shared, key, object, true);
            }
            watcher::Event::Delete(object) => {
                let (key, object) = strip(object);
                remove(&shared, &key, Some(object));
            }
        }
    }
}

/// An expired resource version after a pause is how watches work, not a fault.
fn is_routine(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

/// For comparing only.
fn version<K: Object>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn apply<K: Object>(shared: &Shared<K>, key: Key, object: Arc<K>, in_order: bool) {
    let mut store = shared.store.write();
    if in_order {
        store.saw(&object);
    }
    let version = |object: &K| object.meta().resource_version.clone();
    if store.get(key.as_str()).is_some_and(|old| version(&old).is_some() && version(&old) == version(&object)) {
        return;
    }
    let old = store.insert(key, object.clone());
    match old {
        // Deleted and made again while we were not watching: two objects, so two changes.
        Some(old) if old.meta().uid != object.meta().uid => {
            shared.subscribers.send(&Change::Deleted(old));
            shared.subscribers.send(&Change::Added(object));
        }
        Some(old) => shared.subscribers.send(&Change::Updated(old, object)),
        None => shared.subscribers.send(&Change::Added(object)),
    }
}

fn remove<K: Object>(shared: &Shared<K>, key: &Key, last: Option<Arc<K>>) {
    let mut store = shared.store.write();
    if let Some(last) = &last {
        store.saw(last);
    }
    if let Some(old) = store.remove(key) {
        shared.subscribers.send(&Change::Deleted(last.unwrap_or(old)));
    }
}
