//! The work queue: which keys are to be worked on. A key is in it once however often it is added, is never handed to
//! two workers at once, and when added while being worked on comes again afterwards.
//!
//! Delays live in a heap beside the queue, so an idle queue costs no wake-ups.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// Delay after a key's first failure; doubles with each.
pub const BASE_DELAY: Duration = Duration::from_millis(5);
/// Longest delay after failures.
pub const MAX_DELAY: Duration = Duration::from_secs(1000);
/// Most keys known to one queue. Keys name objects that an informer already holds, so this is a guard, not a quota.
pub const MAX_KEYS: usize = 1 << 20;

/// A queue of keys; clones share it.
pub struct WorkQueue<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    /// In `ready`, or to be put there when its worker is done.
    dirty: HashSet<T>,
    processing: HashSet<T>,
    /// Earliest time per delayed key; heap entries that disagree with it are stale.
    delayed: HashMap<T, Instant>,
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    heap_keys: HashMap<u64, T>,
    sequence: u64,
    failures: HashMap<T, u32>,
    shut_down: bool,
    /// Once somebody works on the queue under a name.
    measured: Option<Measured<T>>,
}

/// What is told of a queue.
struct Measured<T> {
    series: metrics::Queue,
    /// Since when each key in `ready` waits.
    since: HashMap<T, Instant>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: HashMap::new(),
            heap: BinaryHeap::new(),
            heap_keys: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
            shut_down: false,
            measured: None,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() }))
    }

    /// Asks for `key` to be worked on. A full or shut-down queue drops it; a full one says so in the log.
    pub fn add(&self, key: T) {
        let mut state = self.0.state.lock();
        if state.add(key) {
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// [`add`](Self::add), not before `delay` has passed. The earliest of several delays for a key counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        let mut state = self.0.state.lock();
        if let Some(measured) = &state.measured {
            measured.series.retries.inc();
        }
        if delay.is_zero() {
            drop(state);
            return self.add(key);
        }
        let at = Instant::now() + delay;
        if state.delay(key, at) {
            drop(state);
            // The new entry may be the first to come due.
            self.0.wake.notify_one();
        }
    }

    /// [`add_after`](Self::add_after) the key's own back-off, which grows until [`forget`](Self::forget).
    pub fn add_rate_limited(&self, key: T) {
        let failures = {
            let mut state = self.0.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures = failures.saturating_add(1);
            *failures
        };
        self.add_after(key, delay_after(failures));
    }

    /// Ends the key's back-off.
    pub fn forget(&self, key: &T) {
        self.0.state.lock().failures.remove(key);
    }

    /// How often the key failed since it was last forgotten.
    pub fn failures(&self, key: &T) -> u32 {
        self.0.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Keys that wait for a worker, without delayed ones.
    pub fn len(&self) -> usize {
        self.0.state.lock().ready.len()
    }

    /// Whether no key waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing waits, is delayed or is being worked on.
    pub fn is_idle(&self) -> bool {
        let state = self.0.state.lock();
        state.ready.is_empty() && state.processing.is_empty() && state.delayed.is_empty()
    }

    /// Ends every [`get`](Self::get), now and later.
    pub fn shut_down(&self) {
        let mut state = self.0.state.lock();
        state.shut_down = true;
        if let Some(measured) = state.measured.take() {
            measured.series.depth.sub(i64::try_from(state.ready.len()).unwrap_or(i64::MAX));
        }
        state.ready.clear();
        state.dirty.clear();
        drop(state);
        self.0.wake.notify_waiters();
        self.0.wake.notify_one();
    }

    /// The next key, when there is one; `None` after [`shut_down`](Self::shut_down).
    pub async fn get(&self) -> Option<Item<T>> {
        loop {
            let due = {
                let mut state = self.0.state.lock();
                if state.shut_down {
                    drop(state);
                    self.0.wake.notify_one();
                    return None;
                }
                let due = state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.processing.insert(key.clone());
                    let number = state.begin(&key);
                    let more = !state.ready.is_empty() || due.is_some();
                    drop(state);
                    if more {
                        self.0.wake.notify_one();
                    }
                    return Some(Item { queue: self.clone(), key, number });
                }
                due
            };
            match due {
                Some(at) => tokio::select! {
                    () = self.0.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.0.wake.notified().await,
            }
        }
    }

    /// Tells of the queue in `workqueue_*`, under the name of who works on it.
    fn measure(&self, name: &str) {
        let mut state = self.0.state.lock();
        let Some(series) = metrics::Queue::new(name) else { return };
        let now = Instant::now();
        let since: HashMap<T, Instant> = state.ready.iter().map(|key| (key.clone(), now)).collect();
        series.depth.add(i64::try_from(since.len()).unwrap_or(i64::MAX));
        series.adds.inc_by(since.len() as u64);
        state.measured = Some(Measured { series, since });
    }

    fn done(&self, key: &T, number: u64) {
        let mut state = self.0.state.lock();
        state.processing.remove(key);
        if let Some(measured) = &state.measured {
            measured.series.done(number);
        }
        if state.dirty.contains(key) {
            state.push(key.clone());
            drop(state);
            self.0.wake.notify_one();
        }
    }
}

fn delay_after(failures: u32) -> Duration {
    BASE_DELAY
        .checked_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX))
        .map_or(MAX_DELAY, |d| d.min(MAX_DELAY))
}

impl<T: Clone + Eq + Hash> State<T> {
    /// Whether a worker is to be woken.
    fn add(&mut self, key: T) -> bool {
        if self.shut_down || self.dirty.contains(&key) {
            return false;
        }
        if self.dirty.len() >= MAX_KEYS {
            tracing::error!(limit = MAX_KEYS, "work queue is full, dropping a key");
            return false;
        }
        self.dirty.insert(key.clone());
        if let Some(measured) = &self.measured {
            measured.series.adds.inc();
        }
        if self.processing.contains(&key) {
            return false;
        }
        self.push(key);
        true
    }

    /// Puts a key where workers take theirs from.
    fn push(&mut self, key: T) {
        if let Some(measured) = &mut self.measured {
            measured.series.depth.inc();
            measured.since.insert(key.clone(), Instant::now());
        }
        self.ready.push_back(key);
    }

    /// A worker has the key; the number of what it does.
    fn begin(&mut self, key: &T) -> u64 {
        self.sequence += 1;
        if let Some(measured) = &mut self.measured {
            measured.series.depth.dec();
            if let Some(since) = measured.since.remove(key) {
                measured.series.waits.observe(since.elapsed().as_secs_f64());
            }
            measured.series.begin(self.sequence);
        }
        self.sequence
    }

    /// Whether the entry is new or earlier than the one there.
    fn delay(&mut self, key: T, at: Instant) -> bool {
        if self.shut_down || self.delayed.get(&key).is_some_and(|known| *known <= at) {
            return false;
        }
        if self.heap.len() >= MAX_KEYS {
            tracing::error!(limit = MAX_KEYS, "work queue holds too many delayed keys, adding one at once");
            return self.add(key);
        }
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence)));
        self.heap_keys.insert(self.sequence, key.clone());
        self.delayed.insert(key, at);
        true
    }

    /// Moves what is due into `ready`; returns when the next one is.
    fn promote(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, sequence))) = self.heap.peek().copied() {
            let current = self.heap_keys.get(&sequence).is_some_and(|key| self.delayed.get(key) == Some(&at));
            if current && at > now {
                return Some(at);
            }
            self.heap.pop();
            if let Some(key) = self.heap_keys.remove(&sequence)
                && current
            {
                self.delayed.remove(&key);
                self.add(key);
            }
        }
        None
    }
}

/// A key in a worker's hands. Dropping it says that the work is done (well or not).
pub struct Item<T: Clone + Eq + Hash> {
    queue: WorkQueue<T>,
    key: T,
    number: u64,
}

impl<T: Clone + Eq + Hash> Deref for Item<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.key
    }
}

impl<T: Clone + Eq + Hash> Drop for Item<T> {
    fn drop(&mut self) {
        self.queue.done(&self.key, self.number);
    }
}

/// Works on the queue of the controller `name`, which `workqueue_*` tells of as upstream calls it, with up to `concurrency` keys at once until `shutdown`, then shuts it down. `reconcile` returns
/// when it wants to see the key again, if at all; after an error the key comes back with its back-off.
pub async fn run_workers<T, F, R, E>(
    name: &'static str,
    queue: WorkQueue<T>,
    concurrency: usize,
    shutdown: CancellationToken,
    reconcile: F,
) where
    T: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    F: Fn(T) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Option<Duration>, E>> + Send + 'static,
    E: Display + Send + 'static,
{
    queue.measure(name);
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..concurrency.max(1) {
        let (queue, reconcile) = (queue.clone(), reconcile.clone());
        workers.spawn(async move {
            while let Some(item) = queue.get().await {
                match reconcile(item.clone()).await {
                    Ok(again) => {
                        queue.forget(&item);
                        if let Some(delay) = again {
                            queue.add_after(item.clone(), delay);
                        }
                    }
                    Err(error) => {
                        let failures = queue.failures(&item) + 1;
                        // The first failures are mostly conflicts that the retry settles.
                        if failures > 3 {
                            tracing::warn!(controller = name, key = ?*item, failures, %error, "reconcile failed");
                        } else {
                            tracing::debug!(controller = name, key = ?*item, failures, %error, "reconcile failed");
                        }
                        queue.add_rate_limited(item.clone());
                    }
                }
            }
        });
    }
    shutdown.cancelled().await;
    queue.shut_down();
    while workers.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests;
