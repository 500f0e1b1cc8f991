//! A resource in another version than the one it is stored in: a cache of its own, kept up to date from the stored one by a
//! task that converts what changes. Everything that reads caches (lists, watches, selectors, encodings) works on it as on
//! any other, and each object version is converted once, for all readers. The task starts with the first reader.
//!
//! Rejected: to convert while reading. It would be done again for every reader, and no two watchers could share bytes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keelson_api::status::Status;
use keelson_client::Backoff;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::resource::Stored;
use super::{Change, Entry, ResourceCache};

/// Changes converted at a time.
const BATCH: usize = 256;
/// How long a reader waits for conversions.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pauses after a conversion that failed, unless a reader asks again.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Turns stored versions into the view's.
#[async_trait]
pub(crate) trait Convert: Send + Sync {
    /// As many as went in, in the same order.
    async fn convert(&self, entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, Status>;
}

/// What makes a cache a view.
pub(crate) struct View {
    pub(super) source: Arc<ResourceCache>,
    convert: Arc<dyn Convert>,
    progress: watch::Sender<Progress>,
    /// A reader waits: there is no time for pauses.
    again: Notify,
    started: Mutex<bool>,
}

#[derive(Clone, Default)]
struct Progress {
    /// The place in the source's ring up to which it was followed; none before the first load.
    position: Option<u64>,
    failures: u64,
    error: Option<Status>,
}

impl View {
    pub(crate) fn new(source: Arc<ResourceCache>, convert: Arc<dyn Convert>) -> Self {
        let progress = watch::Sender::new(Progress::default());
        Self { source, convert, progress, again: Notify::new(), started: Mutex::new(false) }
    }

    /// One object of the source as this view would show it.
    pub(super) async fn one(&self, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, Status> {
        let Some(entry) = self.source.get(namespace, name) else { return Ok(None) };
        Ok(self.convert.convert(vec![entry]).await?.pop())
    }

    /// An object that was just written, as this view shows it. A view that nobody has read is not made for its sake.
    pub(super) async fn written(&self, target: &Arc<ResourceCache>, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let started = *self.started.lock();
        if started && self.caught_up(target).await.is_ok() {
            return target.get(namespace, name);
        }
        self.one(namespace, name).await.ok().flatten()
    }

    /// What may be claimed of the view when all caches have reached `revision`.
    pub(super) fn reached(&self, target: &ResourceCache, revision: u64) -> u64 {
        let (_, end) = self.source.snapshot_and_position();
        let followed = self.progress.borrow().position.is_some_and(|position| position >= end);
        if followed { revision } else { target.snapshot().revision }
    }

    /// Waits until everything that is in the source now is in the view; the error of the conversion that failed.
    pub(super) async fn caught_up(&self, target: &Arc<ResourceCache>) -> Result<(), Status> {
        let mut progress = self.progress.subscribe();
        let failures = progress.borrow().failures;
        let (_, end) = self.source.snapshot_and_position();
        if progress.borrow().position.is_some_and(|position| position >= end) {
            return Ok(());
        }
        if !std::mem::replace(&mut *self.started.lock(), true) {
            tokio::spawn(follow(target.clone()));
        }
        self.again.notify_one();
        let settled = progress.wait_for(|now| now.position.is_some_and(|at| at >= end) || now.failures > failures);
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(PATIENCE, settled) => outcome,
            () = target.closed().cancelled() => return Err(Status::unavailable("the resource is being changed")),
        };
        match outcome {
            Ok(Ok(now)) => match &now.error {
                Some(error) if now.position.is_none_or(|at| at < end) => Err(error.clone()),
                _ => Ok(()),
            },
            _ => Err(Status::timeout("the objects could not be converted in time")),
        }
    }
}

async fn follow(target: Arc<ResourceCache>) {
    let Some(view) = target.view() else { return };
    let mut changed = view.source.follow();
    let closed = target.closed().clone();
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        changed.borrow_and_update();
        match step(view, &target).await {
            // There may be more.
            Ok(true) => {}
            Ok(false) => {
                backoff.reset();
                tokio::select! {
                    () = closed.cancelled() => return,
                    more = changed.changed() => if more.is_err() { return },
                }
            }
            Err(status) => {
                tracing::warn!(error = %status, resource = target.resource(), "objects cannot be converted");
                view.progress.send_modify(|now| {
                    now.failures += 1;
                    now.error = Some(status);
                });
                tokio::select! {
                    () = closed.cancelled() => return,
                    () = backoff.wait() => {}
                    () = view.again.notified() => {}
                }
            }
        }
    }
}

/// Converts and applies some changes. Says whether there were any.
async fn step(view: &View, target: &Arc<ResourceCache>) -> Result<bool, Status> {
    let position = view.progress.borrow().position;
    let Some((position, changes)) = position.and_then(|at| Some((at, view.source.changes(at, BATCH).ok()?))) else {
        let (snapshot, position) = view.source.snapshot_and_position();
        let entries = view.convert.convert(snapshot.map.values().cloned().collect()).await?;
        target.load(Stored { entries, ..Stored::default() }, snapshot.revision);
        advance(view, position);
        return Ok(true);
    };
    if changes.is_empty() {
        return Ok(false);
    }
    let new: Vec<Arc<Entry>> = changes.iter().filter_map(|change: &Arc<Change>| change.new.clone()).collect();
    let Ok(converted) = view.convert.convert(new).await else {
        let done = step_over(view, target, position, &changes).await;
        target.announce();
        return done;
    };
    let mut converted = converted.into_iter();
    for change in &changes {
        let new = change.new.as_ref().and_then(|_| converted.next());
        apply(target, change, new);
    }
    advance(view, position + changes.len() as u64);
    target.announce();
    Ok(true)
}

/// Applies changes up to the first that cannot be converted. One of an object that has changed again, or is gone, holds
/// nobody up: it is left out.
async fn step_over(
    view: &View,
    target: &Arc<ResourceCache>,
    position: u64,
    changes: &[Arc<Change>],
) -> Result<bool, Status> {
    for (change, position) in changes.iter().zip(position + 1..) {
        let converted = match &change.new {
            None => Ok(None),
            Some(entry) => view.convert.convert(vec![entry.clone()]).await.map(|mut converted| converted.pop()),
        };
        match (converted, &change.new) {
            (Ok(new), _) => apply(target, change, new),
            (Err(status), Some(entry)) => {
                let now = view.source.snapshot().map.get(&entry.key).cloned();
                if now.is_some_and(|now| Arc::ptr_eq(&now, entry)) {
                    return Err(status);
                }
            }
            (Err(status), None) => return Err(status),
        }
        advance(view, position);
    }
    Ok(true)
}

fn apply(target: &ResourceCache, change: &Change, new: Option<Arc<Entry>>) {
    let Some(entry) = change.new.as_ref().or(change.old.as_ref()) else { return };
    // Gone before it was ever seen here.
    if new.is_none() && !target.snapshot().map.contains_key(&entry.key) {
        return;
    }
    target.apply(&entry.key, new, change.revision);
}

fn advance(view: &View, position: u64) {
    view.progress.send_modify(|now| {
        now.position = Some(position);
        now.error = None;
    });
}
