//! One watch: a place in a resource's ring, selectors, and the bytes that come of it. Bookmarks tell the client how far the
//! server has looked, so that it can resume there.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keelson_api::status::Status;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep};

use super::resource::EventType;
use super::{Cache, Entry, ResourceCache};
use crate::registry::render::Events;
use crate::registry::select::Filter;

/// How often an idle watch that allows it gets a bookmark.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A last bookmark comes so long before the watch times out, so that the next one starts where this ends.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Changes looked at between two writes to the client.
const BATCH: usize = 256;
/// Bytes of objects put together for one write to the client. What a watcher holds beyond the ring is bounded by this
/// and one object.
const WRITE_BYTES: usize = 64 << 10;

/// How a watch starts.
pub(crate) enum Start {
    /// With the changes of now.
    Now,
    /// With the changes after a revision, which may be one that has not happened yet.
    After(u64),
    /// With every object of now as ADDED; then, for a streaming list, the bookmark that ends them.
    Initial { end_bookmark: bool },
}

/// What a watch was asked for.
pub(crate) struct Options {
    pub(crate) filter: Filter,
    pub(crate) start: Start,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
    pub(crate) events: Events,
    /// Dropped when what it begins with is sent.
    pub(crate) initializing: Option<Arc<oneshot::Sender<()>>>,
}

/// A running watch.
pub(crate) struct Watcher {
    cache: Arc<Cache>,
    resource: Arc<ResourceCache>,
    options: Options,
    changed: watch::Receiver<u64>,
    position: u64,
    /// Changes up to here were not asked for.
    after: u64,
    initial: Option<SnapshotIter>,
    end_bookmark: Option<u64>,
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    deadline: Instant,
    bookmark_at: Option<Instant>,
    /// Wakes for the next bookmark or the end. Made once: a delivery must not cost a timer.
    timer: Pin<Box<Sleep>>,
    over: bool,
}

impl Watcher {
    pub(crate) fn new(cache: Arc<Cache>, resource: Arc<ResourceCache>, options: Options) -> Self {
        let changed = resource.follow();
        // The cache's revision is read before the position: a bookmark may claim less than it could, never more.
        let revision = resource.reached(cache.revision());
        let now = Instant::now();
        let deadline = now + options.timeout;
        let mut watcher = Self {
            cache,
            resource,
            changed,
            position: 0,
            after: 0,
            initial: None,
            end_bookmark: None,
            ready: VecDeque::new(),
            ready_bytes: 0,
            deadline,
            // Spread, so that bookmarks of watches that started together do not come together.
            bookmark_at: next_bookmark(now, deadline, BOOKMARK_EVERY.mul_f64(rand::random_range(0.75..1.0))),
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            over: false,
            options,
        };
        match watcher.options.start {
            Start::Now => watcher.position = watcher.resource.snapshot_and_position().1,
            Start::After(revision) => match watcher.resource.position_after(revision) {
                Ok(position) => (watcher.position, watcher.after) = (position, revision),
                Err(status) => watcher.fail(&status),
            },
            Start::Initial { end_bookmark } => {
                let (snapshot, position) = watcher.resource.snapshot_and_position();
                let revision = revision.max(snapshot.revision);
                watcher.position = position;
                watcher.initial = Some(SnapshotIter::new(snapshot, watcher.options.filter.prefix.clone(), ""));
                watcher.end_bookmark = end_bookmark.then_some(revision);
            }
        }
        if watcher.initial.is_none() {
            watcher.options.initializing = None;
        }
        watcher
    }

    /// A watch that says why it cannot be, and ends: what fails after a watch was accepted is an event.
    pub(crate) fn failed(cache: Arc<Cache>, resource: Arc<ResourceCache>, options: Options, status: &Status) -> Self {
        let mut watcher = Self::new(cache, resource, Options { start: Start::Now, ..options });
        watcher.fail(status);
        watcher
    }

    /// The next bytes; `None` when the watch is over.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.ready_bytes -= bytes.len();
                return Some(bytes);
            }
            if self.over {
                return None;
            }
            if self.initial.is_some() {
                self.fill_initial();
                continue;
            }
            self.changed.borrow_and_update();
            let ends = self.resource.is_over();
            let before = self.resource.reached(self.cache.revision()).max(self.after);
            let all = self.fill_changes();
            if !self.ready.is_empty() || !all || self.over {
                continue;
            }
            let now = Instant::now();
            if ends || now >= self.deadline {
                return None;
            }
            let bookmark_at = self.bookmark_at.filter(|_| self.options.bookmarks);
            if bookmark_at.is_some_and(|at| now >= at) {
                self.bookmark_at = next_bookmark(now, self.deadline, BOOKMARK_EVERY);
                self.push(self.options.events.bookmark(before, false));
                continue;
            }
            let wake = bookmark_at.map_or(self.deadline, |at| at.min(self.deadline));
            if self.timer.deadline() != wake {
                self.timer.as_mut().reset(wake);
            }
            tokio::select! {
                changed = self.changed.changed() => if changed.is_err() { return None },
                () = &mut self.timer => {}
            }
        }
    }

    fn fill_initial(&mut self) {
        while self.ready_bytes < WRITE_BYTES && !self.over {
            let Some(entry) = self.initial.as_mut().and_then(Iterator::next) else {
                self.initial = None;
                self.options.initializing = None;
                if let Some(revision) = self.end_bookmark.take() {
                    let bookmark = self.options.events.bookmark(revision, true);
                    self.push(bookmark);
                }
                return;
            };
            if self.options.filter.matches(&entry) {
                self.push(self.options.events.entry(EventType::Added, &entry, entry.revision));
            }
        }
    }

    /// Returns whether it looked at all changes there are.
    fn fill_changes(&mut self) -> bool {
        let changes = match self.resource.changes(self.position, BATCH) {
            Ok(changes) => changes,
            Err(status) => {
                self.fail(&status);
                return true;
            }
        };
        for change in &changes {
            if self.ready_bytes >= WRITE_BYTES {
                return false;
            }
            self.position += 1;
            if change.revision <= self.after {
                continue;
            }
            let Some(event) = change.seen_by(|entry| self.options.filter.matches(entry)) else { continue };
            self.push(self.options.events.change(event, change));
            if self.over {
                return true;
            }
        }
        changes.len() < BATCH
    }

    fn push(&mut self, event: Result<Bytes, Status>) {
        match event {
            Ok(bytes) => {
                self.ready_bytes += bytes.len();
                self.ready.push_back(bytes);
            }
            Err(status) => self.fail(&status),
        }
    }

    fn fail(&mut self, status: &Status) {
        let error = self.options.events.error(status);
        self.push(Ok(error));
        self.over = true;
    }
}

/// When the bookmark after one at `now` comes; `None` when the watch ends before there is a use for it.
fn next_bookmark(now: Instant, deadline: Instant, every: Duration) -> Option<Instant> {
    let last = deadline.checked_sub(BOOKMARK_BEFORE_END).filter(|last| *last > now);
    last.map(|last| last.min(now + every))
}

/// Walks a snapshot without borrowing it: each step looks up the key after the last one.
pub(crate) struct SnapshotIter {
    snapshot: super::resource::Snapshot,
    prefix: String,
    ready: std::vec::IntoIter<Arc<Entry>>,
    last: Option<Arc<str>>,
}

impl SnapshotIter {
    /// Entries under `prefix`, from the key `from` on.
    pub(crate) fn new(snapshot: super::resource::Snapshot, prefix: String, from: &str) -> Self {
        let ready: Vec<_> = snapshot.range(&prefix, from).take(BATCH).cloned().collect();
        let last = ready.last().map(|entry| entry.key.clone());
        Self { snapshot, prefix, ready: ready.into_iter(), last }
    }
}

impl Iterator for SnapshotIter {
    type Item = Arc<Entry>;

    fn next(&mut self) -> Option<Arc<Entry>> {
        if let Some(entry) = self.ready.next() {
            return Some(entry);
        }
        let start = self.last.take()?;
        let batch: Vec<_> = self.snapshot.range(&self.prefix, &start).skip(1).take(BATCH).cloned().collect();
        self.last = Some(batch.last()?.key.clone());
        self.ready = batch.into_iter();
        self.ready.next()
    }
}
