//! The store in memory: each key's versions since the last compaction, a bounded ring of the last events, and the cursors
//! of the watches. Only durable writes get here. Reads take the persistent map as a snapshot and leave.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Error, Event, KeyValue, Range};

/// What one write did to a key.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) revision: u64,
    pub(super) create_revision: u64,
    /// `None`: the key was deleted here.
    pub(super) value: Option<Bytes>,
}

impl Version {
    pub(super) fn key_value(&self, key: &Arc<str>) -> Option<KeyValue> {
        self.value.as_ref().map(|value| KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.revision,
        })
    }
}

/// A key's versions.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) current: Version,
    /// Superseded but not compacted, oldest first. Shared with the snapshots that readers hold.
    older: Option<Arc<Vec<Version>>>,
}

impl Entry {
    pub(super) fn new(current: Version) -> Entry {
        Entry { current, older: None }
    }

    /// The version that was current at `revision`.
    pub(super) fn at(&self, revision: u64) -> Option<&Version> {
        if self.current.revision <= revision {
            return Some(&self.current);
        }
        let older = self.older.as_ref()?;
        let after = older.partition_point(|v| v.revision <= revision);
        older.get(after.checked_sub(1)?)
    }
}

pub(super) type Map = OrdMap<Arc<str>, Entry>;

/// Where a watch stands.
#[derive(Debug)]
pub(super) struct Cursor {
    /// Everything up to here was looked at.
    pub(super) seen: u64,
    /// No event before this one matches; 0: none does.
    pub(super) first_match: u64,
    pub(super) progress_wanted: bool,
    pub(super) closed: bool,
}

/// One watch, shared between its stream and the state.
pub(super) struct Watcher {
    pub(super) prefix: Box<str>,
    pub(super) cursor: Mutex<Cursor>,
    pub(super) wake: Notify,
}

/// How much the ring may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingLimit {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

/// A watch hears that nothing happened at least every so many revisions, so that its position stays near the newest.
const PROGRESS_EVERY: u64 = 1000;

pub(super) struct State {
    pub(super) map: Map,
    /// The newest durable revision.
    pub(super) revision: u64,
    pub(super) compacted: u64,
    /// Which keys have versions superseded at which revision, in order.
    superseded: VecDeque<(u64, Arc<str>)>,
    /// Bytes of keys and values that compaction could free.
    pub(super) history_bytes: usize,
    /// Bytes of current keys and values.
    pub(super) live_bytes: usize,
    ring: VecDeque<Event>,
    ring_bytes: usize,
    limit: RingLimit,
    watchers: HashMap<u64, Arc<Watcher>>,
    next_watcher: u64,
}

impl State {
    /// As it was at `revision`, with nothing older known.
    pub(super) fn new(map: Map, revision: u64, limit: RingLimit) -> Self {
        let live_bytes = map.iter().map(|(k, e)| size(k, &e.current)).sum();
        State {
            map,
            revision,
            compacted: revision,
            superseded: VecDeque::new(),
            history_bytes: 0,
            live_bytes,
            ring: VecDeque::new(),
            ring_bytes: 0,
            limit,
            watchers: HashMap::new(),
            next_watcher: 0,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<KeyValue> {
        let (key, entry) = self.map.get_key_value(key)?;
        entry.current.key_value(key)
    }

    /// Takes over the write that made `version`, which must be the next revision.
    pub(super) fn apply(&mut self, key: &Arc<str>, version: Version) {
        debug_assert_eq!(version.revision, self.revision + 1, "revisions are contiguous");
        let revision = version.revision;
        self.revision = revision;
        let (key, previous) = match self.map.get_key_value_mut(&**key) {
            None => {
                let value = version.key_value(key);
                self.live_bytes += size(key, &version);
                self.map.insert(key.clone(), Entry::new(version));
                return self.publish(Event { key: key.clone(), revision, value, previous: None });
            }
            Some((key, entry)) => {
                let key = key.clone();
                self.live_bytes += size(&key, &version);
                let old = std::mem::replace(&mut entry.current, version);
                let old_size = size(&key, &old);
                self.live_bytes -= old_size;
                self.history_bytes += old_size;
                let previous = old.key_value(&key);
                Arc::make_mut(entry.older.get_or_insert_default()).push(old);
                (key, previous)
            }
        };
        self.superseded.push_back((revision, key.clone()));
        let value = self.map.get(&*key).and_then(|e| e.current.key_value(&key));
        self.publish(Event { key, revision, value, previous });
    }

    fn publish(&mut self, event: Event) {
        self.ring_bytes += event_size(&event);
        self.ring.push_back(event);
        while self.ring.len() > self.limit.events || (self.ring_bytes > self.limit.bytes && self.ring.len() > 1) {
            if let Some(old) = self.ring.pop_front() {
                self.ring_bytes -= event_size(&old);
            }
        }
    }

    /// Tells the watches about the events after `from`, which have just been applied.
    pub(super) fn notify(&self, from: u64) {
        for watcher in self.watchers.values() {
            let first = self.events_from(from + 1).find(|e| e.key.starts_with(&*watcher.prefix)).map(|e| e.revision);
            let mut cursor = watcher.cursor.lock();
            if let Some(first) = first
                && cursor.first_match == 0
            {
                cursor.first_match = first;
            }
            let stale = cursor.first_match == 0 && self.revision - cursor.seen >= PROGRESS_EVERY;
            cursor.progress_wanted |= stale;
            if first.is_some() || stale {
                watcher.wake.notify_one();
            }
        }
    }

    /// The ring's events from `revision` on (or from its oldest, if that is newer).
    pub(super) fn events_from(&self, revision: u64) -> impl Iterator<Item = &Event> {
        let skip = revision.saturating_sub(self.ring_start()).min(self.ring.len() as u64);
        self.ring.range(skip as usize..)
    }

    /// The oldest revision in the ring; the next one to come when it is empty.
    pub(super) fn ring_start(&self) -> u64 {
        self.ring.front().map_or(self.revision + 1, |e| e.revision)
    }

    pub(super) fn add_watcher(&mut self, prefix: &str, revision: u64) -> Result<(u64, Arc<Watcher>), Error> {
        if revision > self.revision {
            return Err(Error::Future { requested: revision, newest: self.revision });
        }
        let oldest = self.compacted.max(self.ring_start() - 1);
        if revision < oldest {
            return Err(Error::Compacted { requested: revision, oldest });
        }
        let first = self.events_from(revision + 1).find(|e| e.key.starts_with(prefix)).map_or(0, |e| e.revision);
        let watcher = Arc::new(Watcher {
            prefix: prefix.into(),
            cursor: Mutex::new(Cursor { seen: revision, first_match: first, progress_wanted: true, closed: false }),
            wake: Notify::new(),
        });
        self.next_watcher += 1;
        self.watchers.insert(self.next_watcher, watcher.clone());
        Ok((self.next_watcher, watcher))
    }

    pub(super) fn remove_watcher(&mut self, id: u64) {
        self.watchers.remove(&id);
    }

    pub(super) fn watchers(&self) -> impl Iterator<Item = &Arc<Watcher>> {
        self.watchers.values()
    }

    /// Forgets what was superseded at or before `revision`.
    pub(super) fn compact(&mut self, revision: u64) {
        while !self.compact_some(revision, usize::MAX) {}
    }

    /// The same for at most so many superseded versions, so that nobody waits long for the lock. Returns whether all is
    /// done; that ranges before `revision` are refused holds at once.
    pub(super) fn compact_some(&mut self, revision: u64, max: usize) -> bool {
        self.compacted = self.compacted.max(revision);
        for _ in 0..max {
            let Some((_, key)) = self.superseded.pop_front_if(|(at, _)| *at <= revision) else {
                return true;
            };
            let mut freed = 0;
            let mut gone = false;
            if let Some(entry) = self.map.get_mut(&*key) {
                if let Some(older) = entry.older.as_mut() {
                    // A version goes when the one after it is at or before the revision.
                    let mut drop = older.partition_point(|v| v.revision <= revision);
                    if entry.current.revision > revision {
                        drop = drop.saturating_sub(1);
                    }
                    if drop > 0 {
                        freed += older.iter().take(drop).map(|v| size(&key, v)).sum::<usize>();
                        Arc::make_mut(older).drain(..drop);
                    }
                }
                if entry.older.as_ref().is_some_and(|o| o.is_empty()) {
                    entry.older = None;
                }
                gone = entry.current.value.is_none() && entry.current.revision <= revision;
            }
            self.history_bytes -= freed;
            if gone && let Some(entry) = self.map.remove(&*key) {
                self.live_bytes -= size(&key, &entry.current);
            }
        }
        false
    }
}

/// What a version costs, roughly: its bytes and its place.
fn size(key: &str, version: &Version) -> usize {
    key.len() + version.value.as_ref().map_or(0, Bytes::len) + size_of::<Version>()
}

/// What an event keeps alive that the index may not.
fn event_size(event: &Event) -> usize {
    size_of::<Event>() + event.previous.as_ref().map_or(0, |p| p.value.len())
}

/// Reads a range of a snapshot.
pub(super) fn range(map: &Map, prefix: &str, start: &str, revision: u64, limit: usize) -> Range {
    let from = if start > prefix { start } else { prefix };
    let mut out = Range { revision, ..Range::default() };
    let bounds = (std::ops::Bound::Included(from), std::ops::Bound::Unbounded);
    for (key, entry) in map.range::<_, str>(bounds).take_while(|(k, _)| k.starts_with(prefix)) {
        if let Some(kv) = entry.at(revision).and_then(|v| v.key_value(key)) {
            out.count += 1;
            if limit == 0 || out.kvs.len() < limit {
                out.kvs.push(kv);
            } else {
                out.more = true;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(state: &mut State, key: &str, value: Option<&'static str>) {
        let revision = state.revision + 1;
        let version =
            Version { revision, create_revision: revision, value: value.map(|v| Bytes::from_static(v.as_bytes())) };
        state.apply(&Arc::from(key), version);
    }

    fn read(state: &State, revision: u64) -> Vec<(String, String)> {
        let text = |kv: &KeyValue| (kv.key.to_string(), String::from_utf8_lossy(&kv.value).into_owned());
        range(&state.map, "", "", revision, 0).kvs.iter().map(text).collect()
    }

    #[test]
    fn compaction_keeps_what_later_revisions_need_and_accounts_for_the_rest() {
        let mut state = State::new(Map::new(), 0, RingLimit { events: 2, bytes: 1 << 20 });
        write(&mut state, "a", Some("1"));
        write(&mut state, "a", Some("2"));
        write(&mut state, "b", Some("3"));
        write(&mut state, "a", None);
        write(&mut state, "a", Some("5"));
        write(&mut state, "b", None);
        let before: Vec<_> = (0..=6).map(|r| read(&state, r)).collect();
        for at in 1..=6 {
            state.compact(at);
            for r in at..=6 {
                assert_eq!(read(&state, r), before[r as usize], "compacted at {at}, read at {r}");
            }
        }
        assert_eq!(state.history_bytes, 0, "nothing is superseded after the newest revision");
        assert_eq!(state.map.len(), 1, "the tombstone is gone");
        assert_eq!(state.live_bytes, 1 + 1 + size_of::<Version>());
        assert_eq!(state.ring.len(), 2);
    }
}
