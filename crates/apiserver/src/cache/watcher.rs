//! One watch: a place in a resource's ring, selectors, and the bytes that come of it. Bookmarks tell the client how far the
//! server has looked, so that it can resume there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keelson_api::status::Status;
use tokio::sync::watch;
use tokio::time::Instant;

use super::resource::EventType;
use super::{Cache, Entry, ResourceCache};
use crate::registry::render::Events;
use crate::registry::select::Filter;

/// How often an idle watch that allows it gets a bookmark.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Changes looked at between two writes to the client.
const BATCH: usize = 256;

/// How a watch starts.
pub(crate) enum Start {
    /// With the changes after a position in the ring.
    At(u64),
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
}

/// A running watch.
pub(crate) struct Watcher {
    cache: Arc<Cache>,
    resource: Arc<ResourceCache>,
    options: Options,
    changed: watch::Receiver<u64>,
    position: u64,
    initial: Option<Box<dyn Iterator<Item = Arc<Entry>> + Send>>,
    end_bookmark: Option<u64>,
    ready: VecDeque<Bytes>,
    deadline: Instant,
    bookmark_at: Instant,
    over: bool,
}

impl Watcher {
    pub(crate) fn new(cache: Arc<Cache>, resource: Arc<ResourceCache>, options: Options) -> Self {
        let changed = resource.follow();
        // The cache's revision is read before the position: a bookmark may claim less than it could, never more.
        let revision = cache.revision();
        let (position, initial, end_bookmark) = match options.start {
            Start::At(position) => (position, None, None),
            Start::Initial { end_bookmark } => {
                let (snapshot, position) = resource.snapshot_and_position();
                let revision = revision.max(snapshot.revision);
                let prefix = options.filter.prefix.clone();
                let entries: Box<dyn Iterator<Item = Arc<Entry>> + Send> =
                    Box::new(SnapshotIter::new(snapshot, prefix));
                (position, Some(entries), end_bookmark.then_some(revision))
            }
        };
        let now = Instant::now();
        // Spread, so that bookmarks of watches that started together do not come together.
        let first = BOOKMARK_EVERY.mul_f64(rand::random_range(0.75..1.0));
        let (deadline, bookmark_at) = (now + options.timeout, now + first);
        let ready = VecDeque::new();
        Self {
            cache,
            resource,
            options,
            changed,
            position,
            initial,
            end_bookmark,
            ready,
            deadline,
            bookmark_at,
            over: false,
        }
    }

    /// The next bytes; `None` when the watch is over.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
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
            let before = self.cache.revision();
            let looked = self.fill_changes();
            if !self.ready.is_empty() || looked == BATCH || self.over {
                continue;
            }
            let now = Instant::now();
            if now >= self.deadline {
                return None;
            }
            let bookmarks = self.options.bookmarks;
            if bookmarks && now >= self.bookmark_at {
                self.bookmark_at = now + BOOKMARK_EVERY;
                return Some(self.options.events.bookmark(before, false));
            }
            let wake = if bookmarks { self.bookmark_at.min(self.deadline) } else { self.deadline };
            tokio::select! {
                changed = self.changed.changed() => if changed.is_err() { return None },
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn fill_initial(&mut self) {
        for _ in 0..BATCH {
            let Some(entry) = self.initial.as_mut().and_then(Iterator::next) else {
                self.initial = None;
                if let Some(revision) = self.end_bookmark.take() {
                    let bookmark = self.options.events.bookmark(revision, true);
                    self.ready.push_back(bookmark);
                }
                return;
            };
            if self.options.filter.matches(&entry) {
                self.push(self.options.events.entry(EventType::Added, &entry, entry.revision));
            }
        }
    }

    /// Returns how many changes it looked at.
    fn fill_changes(&mut self) -> usize {
        let changes = match self.resource.changes(self.position, BATCH) {
            Ok(changes) => changes,
            Err(status) => {
                self.fail(&status);
                return 0;
            }
        };
        self.position += changes.len() as u64;
        for change in &changes {
            let Some(event) = change.seen_by(|entry| self.options.filter.matches(entry)) else { continue };
            self.push(self.options.events.change(event, change));
        }
        changes.len()
    }

    fn push(&mut self, event: Result<Bytes, Status>) {
        match event {
            Ok(event) => self.ready.push_back(event),
            Err(status) => self.fail(&status),
        }
    }

    fn fail(&mut self, status: &Status) {
        self.ready.push_back(self.options.events.error(status));
        self.over = true;
    }
}

/// Walks a snapshot without borrowing it: each step looks up the key after the last one.
pub(crate) struct SnapshotIter {
    snapshot: super::resource::Snapshot,
    prefix: String,
    ready: std::vec::IntoIter<Arc<Entry>>,
    last: Option<Arc<str>>,
}

impl SnapshotIter {
    pub(crate) fn new(snapshot: super::resource::Snapshot, prefix: String) -> Self {
        Self { snapshot, prefix, ready: Vec::new().into_iter(), last: None }
    }
}

impl Iterator for SnapshotIter {
    type Item = Arc<Entry>;

    fn next(&mut self) -> Option<Arc<Entry>> {
        if let Some(entry) = self.ready.next() {
            return Some(entry);
        }
        let start = self.last.as_deref().unwrap_or_default();
        let skip = usize::from(self.last.is_some());
        let batch: Vec<_> = self.snapshot.range(&self.prefix, start).skip(skip).take(BATCH).cloned().collect();
        self.last = Some(batch.last()?.key.clone());
        self.ready = batch.into_iter();
        self.ready.next()
    }
}
