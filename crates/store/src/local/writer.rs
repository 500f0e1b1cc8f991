//! The one writer: a queue in which every write has its revision already, and a thread that makes what waits there durable
//! together. Conditions are checked on entry, against the writes still in flight; answers that depend on those wait for
//! them, so that nothing is told before it is durable.

use std::{collections::HashMap, io, path::PathBuf, sync::Arc, thread::JoinHandle};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};

use super::{
    Options,
    format::{BatchWriter, SegmentHeader},
    recover::{LogFile, append_seal},
    segment::Segment,
    snapshot,
    state::{State, Version},
};
use crate::{Error, Expect, KeyValue};

/// A batch is closed at this size; what else waits goes into the next one.
const BATCH_BYTES: usize = 4 << 20;
/// How many superseded versions are forgotten under one lock.
const COMPACT_STEP: usize = 1000;

/// What the store's handles, watches and threads share.
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) store_id: u64,
    pub(super) state: RwLock<State>,
    pub(super) queue: Mutex<Queue>,
    wake: Condvar,
    /// KiB that may wait in the queue.
    pub(super) room: Semaphore,
    files: Mutex<Files>,
}

struct Files {
    /// The last one is active.
    logs: Vec<LogFile>,
    snapshot: Option<PathBuf>,
    snapshot_bytes: u64,
}

pub(super) struct Queue {
    items: Vec<Item>,
    /// The newest version of each key with a write in flight.
    in_flight: HashMap<Arc<str>, Version>,
    next_revision: u64,
    pub(super) closed: bool,
}

struct Item {
    op: Op,
    /// Permits of `room` to give back.
    cost: u32,
    reply: Option<oneshot::Sender<Result<(), Error>>>,
}

enum Op {
    Write {
        key: Arc<str>,
        version: Version,
    },
    Compact {
        revision: u64,
    },
    /// Only waits for what is before it.
    Wait,
}

/// What a write comes to, once everything before and including it is durable.
pub(super) struct Ticket {
    done: oneshot::Receiver<Result<(), Error>>,
    outcome: Result<(u64, Option<KeyValue>), Error>,
}

impl Ticket {
    pub(super) async fn wait(self) -> Result<(u64, Option<KeyValue>), Error> {
        self.done.await.map_err(|_| Error::Closed)??;
        self.outcome
    }
}

impl Shared {
    pub(super) fn new(
        dir: PathBuf,
        options: Options,
        store_id: u64,
        state: State,
        logs: Vec<LogFile>,
        snapshot: Option<PathBuf>,
        snapshot_bytes: u64,
    ) -> Shared {
        let next_revision = state.revision + 1;
        Shared {
            dir,
            store_id,
            state: RwLock::new(state),
            queue: Mutex::new(Queue { items: Vec::new(), in_flight: HashMap::new(), next_revision, closed: false }),
            wake: Condvar::new(),
            room: Semaphore::new(options.queue_kib()),
            files: Mutex::new(Files { logs, snapshot, snapshot_bytes }),
            options,
        }
    }

    /// Enters a write (`value` is `None` for a deletion) that costs so many permits of `room`. The result carries the
    /// revision and the version before.
    pub(super) fn enter(&self, key: &str, value: Option<Bytes>, expect: Expect, cost: u32) -> Result<Ticket, Error> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Error::Closed);
        }
        let pending = queue.in_flight.get_key_value(key).map(|(k, v)| (k.clone(), v.clone()));
        let in_flight = pending.is_some();
        let known =
            pending.or_else(|| self.state.read().map.get_key_value(key).map(|(k, e)| (k.clone(), e.current.clone())));
        let current = known.as_ref().and_then(|(key, version)| version.key_value(key));
        let holds = match (expect, &current) {
            (_, None) if value.is_none() => false,
            (Expect::Any, _) => true,
            (Expect::Absent, current) => current.is_none(),
            (Expect::Revision(revision), Some(current)) => current.mod_revision == revision,
            (Expect::Revision(_), None) => false,
        };
        let (reply, done) = oneshot::channel();
        let (op, outcome) = if holds {
            let revision = queue.next_revision;
            queue.next_revision += 1;
            let key = known.map_or_else(|| Arc::from(key), |(key, _)| key);
            let create_revision = current.as_ref().map_or(revision, |c| c.create_revision);
            let version = Version { revision, create_revision, value };
            queue.in_flight.insert(key.clone(), version.clone());
            (Op::Write { key, version }, Ok((revision, current)))
        } else {
            let conflict = Error::Conflict { current };
            if !in_flight {
                self.room.add_permits(cost as usize);
                return Err(conflict);
            }
            (Op::Wait, Err(conflict))
        };
        self.push(&mut queue, Item { op, cost, reply: Some(reply) });
        Ok(Ticket { done, outcome })
    }

    /// Enters a compaction at a revision that is durable.
    pub(super) fn enter_compaction(&self, revision: u64) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let (reply, done) = oneshot::channel();
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Error::Closed);
        }
        self.push(&mut queue, Item { op: Op::Compact { revision }, cost: 0, reply: Some(reply) });
        Ok(done)
    }

    fn push(&self, queue: &mut Queue, item: Item) {
        queue.items.push(item);
        if queue.items.len() == 1 {
            self.wake.notify_one();
        }
    }

    /// Takes no more writes; those in the queue are still done.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_all();
    }
}

/// What the thread owns.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) active: Segment,
    pub(super) chain: u32,
    pub(super) batch: BatchWriter,
    pub(super) snapshot: Option<JoinHandle<()>>,
}

impl Writer {
    /// Runs until the store is closed and the queue is empty.
    pub(super) fn run(mut self) {
        let _guard = CloseOnExit(self.shared.clone());
        if let Err(error) = keelson_threads::at_once() {
            tracing::info!(%error, "the store's writer has the processors in turn with others: writes are slower under load");
        }
        let mut items = Vec::new();
        while self.take(&mut items) {
            self.commit(&mut items);
            self.maintain();
        }
        if let Some(snapshot) = self.snapshot.take() {
            // A panic there has been reported by the panic hook; the files are as before.
            let _ = snapshot.join();
        }
    }

    fn take(&self, items: &mut Vec<Item>) -> bool {
        let mut queue = self.shared.queue.lock();
        while queue.items.is_empty() {
            if queue.closed {
                return false;
            }
            self.shared.wake.wait(&mut queue);
        }
        let mut bytes = 0;
        let fits = queue.items.iter().take_while(|item| {
            let first = bytes == 0;
            bytes += item.bytes();
            first || bytes <= BATCH_BYTES
        });
        let count = fits.count();
        if count == queue.items.len() {
            std::mem::swap(items, &mut queue.items);
        } else {
            items.extend(queue.items.drain(..count));
        }
        true
    }

    fn commit(&mut self, items: &mut Vec<Item>) {
        self.batch.clear();
        for item in items.iter() {
            match &item.op {
                Op::Write { key, version } => match &version.value {
                    Some(value) => self.batch.put(key, value),
                    None => self.batch.delete(key),
                },
                Op::Compact { revision } => self.batch.compact(*revision),
                Op::Wait => {}
            }
        }
        // Only this thread changes the revision.
        let before = self.shared.state.read().revision;
        if !self.batch.is_empty() {
            let start = self.active.next_start();
            let (bytes, chain) = self.batch.finish(start, self.shared.store_id, before + 1, self.chain);
            if let Err(error) = self.active.append(bytes) {
                return self.fail(items, error);
            }
            self.chain = chain;
        }
        let mut compaction = None;
        let mut state = self.shared.state.write();
        for item in items.iter() {
            match &item.op {
                Op::Write { key, version } => state.apply(key, version.clone()),
                Op::Compact { revision } => compaction = compaction.max(Some(*revision)),
                Op::Wait => {}
            }
        }
        state.notify(before);
        drop(state);
        if let Some(revision) = compaction {
            while !self.shared.state.write().compact_some(revision, COMPACT_STEP) {}
        }

        let mut queue = self.shared.queue.lock();
        for item in items.iter() {
            if let Op::Write { key, version } = &item.op
                && queue.in_flight.get(key).is_some_and(|v| v.revision == version.revision)
            {
                queue.in_flight.remove(key);
            }
        }
        drop(queue);
        let mut compactions = Vec::new();
        let mut room = 0;
        for item in items.drain(..) {
            room += item.cost as usize;
            match (item.op, item.reply) {
                (Op::Compact { .. }, Some(reply)) => compactions.push(reply),
                // Whoever asked may have gone; the write stands.
                (_, Some(reply)) => drop(reply.send(Ok(()))),
                (_, None) => {}
            }
        }
        self.shared.room.add_permits(room);
        if compaction.is_some() {
            self.start_snapshot(compactions);
        }
    }

    /// The batch did not happen, so neither did whatever was entered on top of it.
    fn fail(&mut self, items: &mut Vec<Item>, error: io::Error) {
        tracing::error!(file = %self.active.path.display(), %error, "cannot write; the store stays as it was");
        let mut queue = self.shared.queue.lock();
        items.append(&mut queue.items);
        queue.in_flight.clear();
        queue.next_revision = self.shared.state.read().revision + 1;
        drop(queue);
        let mut room = 0;
        for item in items.drain(..) {
            room += item.cost as usize;
            if let Some(reply) = item.reply {
                let context = format!("cannot write to {}", self.active.path.display());
                // Whoever asked may have gone.
                let _ = reply.send(Err(Error::io(context, copy(&error))));
            }
        }
        self.shared.room.add_permits(room);
    }

    /// What need not be done before the answers go out.
    fn maintain(&mut self) {
        if self.active.position >= self.shared.options.segment_bytes
            && let Err(error) = self.rotate()
        {
            tracing::warn!(dir = %self.shared.dir.display(), %error, "cannot start a new segment; going on in the old one");
        }
        let state = self.shared.state.read();
        if state.history_bytes > self.shared.options.history_bytes {
            let before_ring = state.ring_start() - 1;
            let revision = if before_ring > state.compacted { before_ring } else { state.revision };
            drop(state);
            let mut queue = self.shared.queue.lock();
            queue.items.push(Item { op: Op::Compact { revision }, cost: 0, reply: None });
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let first_revision = self.shared.state.read().revision + 1;
        let header = SegmentHeader {
            store_id: self.shared.store_id,
            sequence: self.active.header.sequence + 1,
            first_revision,
            chain: self.chain,
            chunk: self.shared.options.chunk(),
        };
        let next = Segment::create(&self.shared.dir, header)?;
        if let Err(error) = append_seal(&mut self.active, self.shared.store_id, first_revision, self.chain) {
            // Without the seal the new one must not be: the old one goes on.
            std::fs::remove_file(&next.path)?;
            return Err(error);
        }
        let mut files = self.shared.files.lock();
        if let Some(old) = files.logs.last_mut() {
            old.bytes = self.active.position;
        }
        files.logs.push(LogFile { path: next.path.clone(), sequence: header.sequence, first_revision, bytes: 0 });
        drop(files);
        self.active = next;
        Ok(())
    }

    /// Writes a snapshot at the compacted revision if the log has grown enough to be worth it, then drops the segments
    /// that it replaces. `waiting` hear when that is done.
    fn start_snapshot(&mut self, waiting: Vec<oneshot::Sender<Result<(), Error>>>) {
        let busy = self.snapshot.as_ref().is_some_and(|s| !s.is_finished());
        let plan = if busy { None } else { self.plan_snapshot() };
        let Some((header, map)) = plan else {
            return answer(waiting, Ok(()));
        };
        let shared = self.shared.clone();
        let work = move || answer(waiting, shared.write_snapshot(header, &map));
        match std::thread::Builder::new().name("store-snapshot".into()).spawn(work) {
            Ok(handle) => self.snapshot = Some(handle),
            // Those that wait went with the closure and hear `Closed`; the next compaction tries again.
            Err(error) => tracing::warn!(%error, "cannot start a thread to write a snapshot"),
        }
    }

    fn plan_snapshot(&self) -> Option<(snapshot::Header, super::state::Map)> {
        let files = self.shared.files.lock();
        let state = self.shared.state.read();
        let revision = state.compacted;
        let sealed: u64 = files.logs.iter().rev().skip(1).map(|l| l.bytes).sum();
        let worth = self.shared.options.snapshot_log_bytes.max(files.snapshot_bytes);
        if sealed + self.active.position < worth {
            return None;
        }
        let first = files.logs.iter().rev().find(|l| l.first_revision <= revision + 1)?;
        let header = snapshot::Header { store_id: self.shared.store_id, revision, log_sequence: first.sequence };
        Some((header, state.map.clone()))
    }
}

impl Shared {
    fn write_snapshot(&self, header: snapshot::Header, map: &super::state::Map) -> Result<(), Error> {
        let path = self.dir.join(snapshot::name(header.revision));
        let written = snapshot::write(&path, header, map);
        let bytes = written.map_err(|e| Error::io(format!("cannot write {}", path.display()), e))?;
        let mut files = self.files.lock();
        let old = files.snapshot.replace(path.clone()).filter(|old| *old != path);
        files.snapshot_bytes = bytes;
        let (keep, drop): (Vec<_>, Vec<_>) = files.logs.drain(..).partition(|l| l.sequence >= header.log_sequence);
        files.logs = keep;
        for path in drop.into_iter().map(|l| l.path).chain(old) {
            // What stays behind is removed at the next start.
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "cannot remove a file that is no longer needed");
            }
        }
        Ok(())
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match &self.op {
            Op::Write { key, version } => 9 + key.len() + version.value.as_ref().map_or(0, Bytes::len),
            Op::Compact { .. } => 9,
            Op::Wait => 1,
        }
    }
}

/// However the thread ends, nobody waits for it for ever.
struct CloseOnExit(Arc<Shared>);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.closed = true;
        queue.items.clear();
        drop(queue);
        self.0.room.close();
        for watcher in self.0.state.read().watchers() {
            watcher.cursor.lock().closed = true;
            watcher.wake.notify_one();
        }
    }
}

fn answer(waiting: Vec<oneshot::Sender<Result<(), Error>>>, result: Result<(), Error>) {
    if let (Err(error), true) = (&result, waiting.is_empty()) {
        tracing::warn!(%error, "compaction could not write its snapshot; the log stays as it is");
    }
    for reply in waiting {
        let copied = match &result {
            Err(Error::Io { context, source }) => Err(Error::io(context.clone(), copy(source))),
            Err(_) => Err(Error::Closed),
            Ok(()) => Ok(()),
        };
        // Whoever asked may have gone.
        let _ = reply.send(copied);
    }
}

/// `io::Error` cannot be cloned.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
