//! One resource's part of the watch cache: a persistent ordered map for reads, and a bounded ring of changes for watches.
//! A reader clones the map (a few counters) and then needs no lock; a watcher keeps its place in the ring and is cut off
//! when the ring has moved past it, so a slow one costs no memory.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use imbl::OrdMap;
use keelson_api::crd::Definition;
use keelson_api::kind::{Kind, Scope};
use keelson_api::status::{Details, Status};
use keelson_store::KeyValue;
use parking_lot::RwLock;
use smallvec::SmallVec;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::frames::Frames;
use super::view::View;
use super::{Entry, too_old};

/// Changes kept per resource at most.
const RING_CHANGES: usize = 8192;
/// Bytes that the ring may keep alive beyond the objects themselves, per resource: superseded values, and changes as they
/// went over the wire (once; every other form that is watched in may take as much again).
const RING_BYTES: usize = 16 << 20;
/// Changes younger than this are only dropped for space.
const RING_AGE: Duration = Duration::from_secs(180);
/// A quiet resource keeps this many changes however old they are.
const RING_MIN: usize = 64;

/// Changes taken back at most to show an earlier revision; beyond that the store is read.
const MAX_UNDO: usize = 2048;

/// Objects by key.
pub(crate) type Map = OrdMap<Arc<str>, Arc<Entry>>;

/// A resource's objects at one moment.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) map: Map,
    /// Of the last change to this resource that is in the map.
    pub(crate) revision: u64,
}

impl Snapshot {
    /// Entries whose keys start with `prefix`, from `start` on (inclusive).
    pub(crate) fn range<'a>(&'a self, prefix: &'a str, start: &str) -> impl Iterator<Item = &'a Arc<Entry>> {
        let from = if start > prefix { start } else { prefix };
        let range = self.map.range::<_, str>((Bound::Included(from), Bound::Unbounded));
        range.take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry)
    }
}

/// One change of one object.
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) old: Option<Arc<Entry>>,
    pub(crate) new: Option<Arc<Entry>>,
    at: Instant,
    /// The change on the wire, made once for all watchers: as ADDED, MODIFIED, DELETED.
    lines: [OnceLock<Bytes>; 3],
    /// The same in other forms.
    pub(crate) frames: Frames,
}

/// A watch event's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

impl Change {
    /// What the ring holds on its account: the old version and one encoded event.
    fn cost_bytes(&self) -> usize {
        let len = |entry: &Option<Arc<Entry>>| entry.as_ref().map_or(0, |entry| entry.value.len());
        len(&self.old) + len(&self.new)
    }

    /// What a watcher sees of it, given which of the two versions its selectors match.
    pub(crate) fn seen_by(&self, matches: impl Fn(&Entry) -> bool) -> Option<EventType> {
        let old = self.old.as_deref().is_some_and(&matches);
        let new = self.new.as_deref().is_some_and(&matches);
        match (old, new) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    /// The version that an event of this type carries; a deletion's is the last one, at the deletion's revision.
    pub(crate) fn entry(&self, event: EventType) -> Option<&Arc<Entry>> {
        if event == EventType::Deleted { self.old.as_ref() } else { self.new.as_ref() }
    }

    /// The line of a JSON watch.
    pub(crate) fn line(&self, event: EventType) -> Bytes {
        let [added, modified, deleted] = &self.lines;
        let cell = match event {
            EventType::Added => added,
            EventType::Modified => modified,
            EventType::Deleted => deleted,
        };
        let Some(entry) = self.entry(event) else { return Bytes::new() };
        cell.get_or_init(|| event_line(event, entry, self.revision)).clone()
    }
}

/// `{"type":…,"object":…}` and a line feed.
pub(crate) fn event_line(event: EventType, entry: &Entry, revision: u64) -> Bytes {
    json_frame(event.as_str(), entry.wire_len(), |out| entry.write_object(out, revision))
}

/// As [`event_line`], around an object of about `bytes` that `put` writes.
pub(crate) fn json_frame(event: &str, bytes: usize, put: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(event.as_bytes());
    out.put_slice(b"\",\"object\":");
    put(&mut out);
    out.put_slice(b"}\n");
    out.freeze()
}

/// What the store holds of a resource.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) entries: Vec<Arc<Entry>>,
    /// What cannot be read, with the reason.
    pub(super) unreadable: BTreeMap<Arc<str>, String>,
}

struct Inner {
    snapshot: Snapshot,
    ring: VecDeque<Arc<Change>>,
    ring_bytes: usize,
    /// Sequence number of the ring's first change.
    first: u64,
    /// Changes up to this revision are not in the ring.
    forgotten: u64,
    /// The revision of the last load: what happened up to then is in.
    loaded: u64,
    /// What the store holds but cannot be read, with the reason.
    unreadable: BTreeMap<Arc<str>, String>,
}

/// Start of a resource's keys.
pub(super) fn prefix(group: &str, resource: &str) -> String {
    if group.is_empty() { format!("{}{resource}/", super::ROOT) } else { format!("{}{group}/{resource}/", super::ROOT) }
}

/// One stored resource.
pub(crate) struct ResourceCache {
    /// The kind that objects are stored as.
    kind: Arc<Kind>,
    prefix: String,
    inner: RwLock<Inner>,
    /// Bumped with every change.
    changed: watch::Sender<u64>,
    /// The definition of a custom resource, which says how what is stored is read.
    definition: Option<Arc<Definition>>,
    view: Option<View>,
    /// Nobody will keep this up to date any more: watches end.
    over: AtomicBool,
    /// Ends who keeps it up to date.
    closed: CancellationToken,
}

impl ResourceCache {
    pub(crate) fn new(kind: Arc<Kind>) -> Self {
        let prefix = prefix(&kind.group, &kind.resource);
        let snapshot = Snapshot { map: Map::new(), revision: 0 };
        let inner = Inner {
            snapshot,
            ring: VecDeque::new(),
            ring_bytes: 0,
            first: 0,
            forgotten: 0,
            loaded: 0,
            unreadable: BTreeMap::new(),
        };
        let (changed, closed) = (watch::Sender::new(0), CancellationToken::new());
        Self {
            kind,
            prefix,
            inner: RwLock::new(inner),
            changed,
            definition: None,
            view: None,
            over: AtomicBool::new(false),
            closed,
        }
    }

    /// The cache of a custom resource, until `closed`.
    pub(crate) fn of_definition(self, definition: Arc<Definition>, closed: CancellationToken) -> Self {
        Self { definition: Some(definition), closed, ..self }
    }

    /// A cache that is kept up to date from another one.
    pub(crate) fn with_view(self, view: View) -> Self {
        Self { view: Some(view), ..self }
    }

    pub(super) fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Ends the watches, once they have sent what there is.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.announce();
    }

    /// Whether what it holds may be out of date. While it is not, it shows every change that the caches have reached.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.view.as_ref().is_some_and(|view| view.source.is_over())
    }

    /// 503 when the cache is over: the resource is gone, or there is another cache to ask.
    pub(crate) fn check_current(&self) -> Result<(), Status> {
        if !self.is_over() {
            return Ok(());
        }
        let details = Details { retry_after_seconds: 1, ..Details::default() };
        Err(Status { details: Some(Box::new(details)), ..Status::unavailable("the resource is being changed") })
    }

    /// Ends when the cache does.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Waits until the cache shows all that the caches have; only views have to be waited for. 503 when it is over.
    pub(crate) async fn caught_up(self: &Arc<Self>) -> Result<(), Status> {
        if let Some(view) = &self.view {
            self.check_current()?;
            let outcome = view.caught_up(self).await;
            self.check_current()?;
            return outcome;
        }
        self.check_current()
    }

    /// One object as it is in the caches now. One that cannot be converted is in the way of nothing but its own reads.
    pub(crate) async fn newest(self: &Arc<Self>, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, Status> {
        let caught_up = self.caught_up().await;
        self.check_one_readable(namespace, name)?;
        match (caught_up, &self.view) {
            (Ok(()), _) => Ok(self.get(namespace, name)),
            (Err(_), Some(view)) => view.one(namespace, name).await,
            (Err(status), None) => Err(status),
        }
    }

    /// What is shown of an object that was just written, if nobody has written it again since. `None` also when it cannot be
    /// converted.
    pub(crate) async fn written(self: &Arc<Self>, namespace: &str, name: &str, revision: u64) -> Option<Arc<Entry>> {
        let entry = match &self.view {
            Some(view) => view.written(self, namespace, name).await,
            None => self.get(namespace, name),
        };
        entry.filter(|entry| entry.revision == revision)
    }

    /// 500 when the object cannot be read.
    fn check_one_readable(&self, namespace: &str, name: &str) -> Result<(), Status> {
        let inner = self.stored().inner.read();
        if inner.unreadable.is_empty() {
            return Ok(());
        }
        inner.unreadable.get(&*self.key(namespace, name)).map_or(Ok(()), |why| Err(Status::internal(why)))
    }

    /// 500 when an object whose key starts with `prefix` cannot be read.
    pub(crate) fn check_readable(&self, prefix: &str) -> Result<(), Status> {
        let inner = self.stored().inner.read();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        match inner.unreadable.range::<str, _>(from).next().filter(|(key, _)| key.starts_with(prefix)) {
            Some((_, why)) => Err(Status::internal(why)),
            None => Ok(()),
        }
    }

    pub(crate) fn has_unreadable(&self) -> bool {
        !self.inner.read().unreadable.is_empty()
    }

    /// The cache of what is stored.
    fn stored(&self) -> &ResourceCache {
        self.view.as_ref().map_or(self, |view| &view.source)
    }

    /// Notes that what is stored under a key now cannot be read.
    pub(super) fn set_unreadable(&self, key: Arc<str>, why: String) {
        self.inner.write().unreadable.insert(key, why);
    }

    /// The revision that this cache shows when all have reached `revision`, which was read before.
    pub(crate) fn reached(&self, revision: u64) -> u64 {
        if self.is_over() {
            return self.snapshot().revision;
        }
        self.view.as_ref().map_or(revision, |view| view.reached(self, revision))
    }

    /// A stored version as this cache holds it. `trusted` ones were written under the schema of now.
    pub(crate) fn entry(&self, kv: KeyValue, trusted: bool) -> Result<Entry, String> {
        match &self.definition {
            Some(definition) => crate::crd::stored::entry(definition, &self.kind, kv, trusted),
            None => Entry::new(&self.kind, kv),
        }
    }

    /// Whether stored versions become this cache's by asking somebody.
    pub(crate) fn converts_remotely(&self) -> bool {
        self.view.is_some() && self.definition.as_ref().is_some_and(|definition| definition.webhook.is_some())
    }

    /// Whether a change that the store tells of is in already.
    pub(super) fn knows(&self, revision: u64) -> bool {
        revision <= self.inner.read().loaded
    }

    pub(crate) fn kind(&self) -> &Arc<Kind> {
        &self.kind
    }

    pub(crate) fn group(&self) -> &str {
        &self.kind.group
    }

    pub(crate) fn resource(&self) -> &str {
        &self.kind.resource
    }

    /// Start of all keys, with a slash at the end.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Key of an object.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        match self.kind.scope {
            Scope::Namespaced => format!("{}{namespace}/{name}", self.prefix),
            Scope::Cluster => format!("{}{name}", self.prefix),
        }
    }

    /// Start of the keys of a namespace (empty for all).
    pub(crate) fn namespace_prefix(&self, namespace: &str) -> String {
        if namespace.is_empty() || self.kind.scope == Scope::Cluster {
            self.prefix.clone()
        } else {
            format!("{}{namespace}/", self.prefix)
        }
    }

    /// The objects now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.inner.read().snapshot.clone()
    }

    /// One object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.inner.read().snapshot.map.get(self.key(namespace, name).as_str()).cloned()
    }

    /// Wakes with every change.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many follow it.
    pub(crate) fn watchers(&self) -> usize {
        self.changed.receiver_count()
    }

    /// A place in the ring: after `revision`. 410 when changes after it have been forgotten.
    pub(crate) fn position_after(&self, revision: u64) -> Result<u64, Status> {
        let inner = self.inner.read();
        if revision < inner.forgotten {
            return Err(too_old(revision, inner.forgotten));
        }
        Ok(inner.first + inner.ring.partition_point(|change| change.revision <= revision) as u64)
    }

    /// The objects now, and the place in the ring right after them.
    pub(crate) fn snapshot_and_position(&self) -> (Snapshot, u64) {
        let inner = self.inner.read();
        (inner.snapshot.clone(), inner.first + inner.ring.len() as u64)
    }

    /// Changes from `position` on, at most `limit`; 410 when the ring has moved past it.
    pub(crate) fn changes(&self, position: u64, limit: usize) -> Result<SmallVec<[Arc<Change>; 4]>, Status> {
        let inner = self.inner.read();
        let Some(skip) = position.checked_sub(inner.first) else {
            return Err(too_old(position, inner.forgotten));
        };
        Ok(inner.ring.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(limit).cloned().collect())
    }

    /// The objects as they were at `revision`, which is not in the future: the objects now, with the ring's changes taken
    /// back. `None` when that would be more than [`MAX_UNDO`] changes or the ring does not reach back so far.
    pub(crate) fn snapshot_at(&self, revision: u64) -> Option<Snapshot> {
        let (mut snapshot, changes) = {
            let inner = self.inner.read();
            if revision < inner.forgotten {
                return None;
            }
            let from = inner.ring.partition_point(|change| change.revision <= revision);
            if inner.ring.len() - from > MAX_UNDO {
                return None;
            }
            (inner.snapshot.clone(), inner.ring.iter().skip(from).cloned().collect::<Vec<_>>())
        };
        for change in changes.iter().rev() {
            match (&change.old, &change.new) {
                (Some(old), _) => drop(snapshot.map.insert(old.key.clone(), old.clone())),
                (None, Some(new)) => drop(snapshot.map.remove(&new.key)),
                (None, None) => {}
            }
        }
        snapshot.revision = snapshot.revision.min(revision);
        Some(snapshot)
    }

    /// Puts in what the store held at `revision`; watches from before it are 410.
    pub(super) fn load(&self, stored: Stored, revision: u64) {
        let map: Map = stored.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let mut inner = self.inner.write();
        inner.first += inner.ring.len() as u64 + 1;
        inner.ring.clear();
        inner.ring_bytes = 0;
        inner.forgotten = revision;
        inner.loaded = revision;
        inner.snapshot = Snapshot { map, revision };
        inner.unreadable = stored.unreadable;
        drop(inner);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Applies one change and returns it.
    pub(super) fn apply(&self, key: &Arc<str>, new: Option<Arc<Entry>>, revision: u64) -> Arc<Change> {
        let mut inner = self.inner.write();
        let old = match &new {
            Some(entry) => inner.snapshot.map.insert(key.clone(), entry.clone()),
            None => inner.snapshot.map.remove(key),
        };
        inner.snapshot.revision = revision;
        if !inner.unreadable.is_empty() {
            inner.unreadable.remove(key);
        }
        let (lines, frames) = Default::default();
        let change = Arc::new(Change { revision, old, new, at: Instant::now(), lines, frames });
        inner.ring_bytes += change.cost_bytes();
        inner.ring.push_back(change.clone());
        inner.trim();
        drop(inner);
        change
    }

    /// Drops changes that are older than the ring promises to keep.
    pub(crate) fn trim(&self) {
        self.inner.write().trim();
    }

    /// Wakes the watchers, after a batch of changes.
    pub(super) fn announce(&self) {
        self.changed.send_modify(|n| *n += 1);
    }
}

impl Inner {
    fn trim(&mut self) {
        let now = Instant::now();
        while let Some(oldest) = self.ring.front() {
            let full = self.ring.len() > RING_CHANGES || self.ring_bytes > RING_BYTES;
            let old = self.ring.len() > RING_MIN && now.duration_since(oldest.at) > RING_AGE;
            if !(full || old) {
                break;
            }
            self.ring_bytes -= oldest.cost_bytes();
            self.forgotten = oldest.revision;
            self.first += 1;
            self.ring.pop_front();
        }
    }
}
