//! Shares the processor out among those who ask. Connections and requests are tasks of flows, a flow for each user, and flows
//! whose tasks are ready have turns: one poll each. However many requests of one user are under way, what another's waits
//! for is the poll that runs on each of the processors, and one poll of each other flow that is ready.
//!
//! Tokio's own queue is first come, first served: behind a flood's tasks, those of everybody else would wait at each of their
//! polls. Here it only holds what runs this executor (a few tasks, as many as there are workers, and none when nothing is
//! ready), and the server's own tasks, which so come before requests.
//!
//! Flows that take little of the processors come before those that take much, and when all workers are busy, a thread of its
//! own that goes before them has their tasks ([`express`]): they do not even wait for the poll that runs.

mod express;
mod ready;
mod used;

use std::cell::Cell;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use async_task::{Builder, FallibleTask, Runnable};
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::{Handle, RuntimeFlavor};

use express::{Express, Lane};
use ready::Ready;
use used::Spent;

/// Polls after which tokio looks at sockets and timers, and runs what else is ready.
const SLICE: usize = 2;

thread_local! {
    /// Where this thread polls a task; nowhere outside of them.
    static POLLING: Cell<Place> = const { Cell::new(Place { executor: 0, express: false }) };
    /// Whether this thread has the lock, and starts one who polls.
    static STARTING: Cell<bool> = const { Cell::new(false) };
}

/// The executor, by its address, whose task is polled, and whether by its express thread.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    executor: usize,
    express: bool,
}

/// Runs tasks in turns.
pub(crate) struct Executor {
    runtime: Handle,
    /// Tasks that are polled at once, by the runtime's workers.
    most: usize,
    hasher: RandomState,
    ready: Mutex<Ready>,
    express: Express,
}

/// Whose a task is. Clones are the same, and may become another's: a connection is nobody's until its first request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow(Arc<Standing>);

#[derive(Debug, Default)]
struct Standing {
    key: AtomicU64,
    begun: AtomicBool,
}

impl Executor {
    /// Of the runtime that this is called in. One of a single thread has no express thread beside it: who takes such a
    /// runtime wants one thing at a time.
    pub(crate) fn new() -> Arc<Self> {
        Self::with(keelson_threads::at_once)
    }

    /// With what lets the express thread go first.
    fn with(goes_first: fn() -> io::Result<()>) -> Arc<Self> {
        let runtime = Handle::current();
        let most = runtime.metrics().num_workers();
        let lane = match runtime.runtime_flavor() {
            RuntimeFlavor::CurrentThread => Lane::Closed,
            _ => Lane::Unused,
        };
        let (hasher, ready) = (RandomState::new(), Mutex::new(Ready::new(lane)));
        Arc::new(Self { runtime, most, hasher, ready, express: Express::new(goes_first) })
    }

    /// What tells a user's flow from others.
    pub(crate) fn key(&self, user: &str) -> u64 {
        self.hasher.hash_one(user)
    }

    /// Starts a task, which ends when what is returned is dropped; awaited, that gives on the task's panic, and nothing when
    /// the runtime has ended.
    pub(crate) fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        flow: Flow,
        future: impl Future<Output = T> + Send + 'static,
    ) -> FallibleTask<T, Flow> {
        let this = self.clone();
        let schedule = move |task| this.schedule(task);
        let (task, outcome) = Builder::new().propagate_panic(true).metadata(flow).spawn(|_| future, schedule);
        task.schedule();
        outcome.fallible()
    }

    fn schedule(self: &Arc<Self>, task: Runnable<Flow>) {
        let here = POLLING.get();
        let express = here == self.place(true);
        let mut ready = self.ready.lock();
        let light = ready.push(task);
        // Whoever polls here takes it next, which is sooner than another thread wakes up.
        if (express && light && ready.has_one_light()) || (here == self.place(false) && ready.has_one()) {
            return;
        }
        if ready.polling < self.most {
            self.poll_soon(ready);
        } else if light && ready.may_express() {
            let lane = std::mem::replace(&mut ready.lane, Lane::Taken);
            drop(ready);
            match lane {
                Lane::Unused => Express::start(self),
                _ => self.express.wake(),
            }
        }
    }

    fn place(self: &Arc<Self>, express: bool) -> Place {
        Place { executor: Arc::as_ptr(self).addr(), express }
    }

    /// Has a worker poll. Whoever comes from now on relies on that, so it is done before others have the lock.
    fn poll_soon(self: &Arc<Self>, mut ready: MutexGuard<'_, Ready>) {
        ready.polling += 1;
        let polling = Polling { executor: self.clone(), left: false };
        STARTING.set(true);
        let started = self.runtime.spawn(polling.run());
        STARTING.set(false);
        // Without the lock it cannot have ended but by a runtime that is over.
        if started.is_finished() {
            ready.polling -= 1;
            let all: Vec<_> = std::iter::from_fn(|| ready.next()).collect();
            drop(ready);
            // Who wakes a task may hold what the task's end needs.
            std::thread::spawn(move || drop(all));
        }
    }
}

impl Flow {
    /// Of a key.
    pub(crate) fn of(key: u64) -> Self {
        Self(Arc::new(Standing { key: AtomicU64::new(key), begun: AtomicBool::new(false) }))
    }

    pub(crate) fn key(&self) -> u64 {
        self.0.key.load(Ordering::Relaxed)
    }

    /// From now on its tasks come before others of the same user's.
    pub(crate) fn begins(&self) {
        self.0.begun.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// Whose it is from now on.
    pub(crate) fn becomes(&self, key: u64) {
        self.0.key.store(key, Ordering::Relaxed);
    }
}

fn poll(task: Runnable<Flow>, place: Place) {
    let outer = POLLING.replace(place);
    task.run();
    POLLING.set(outer);
}

/// One who polls, counted until it leaves.
struct Polling {
    executor: Arc<Executor>,
    left: bool,
}

impl Polling {
    async fn run(mut self) {
        let place = self.executor.place(false);
        let mut last = None;
        loop {
            let mut now = Instant::now();
            for _ in 0..SLICE {
                let Some((flow, task)) = self.next(now, last.take()) else { return };
                let begin = now;
                poll(task, place);
                now = Instant::now();
                last = Some((flow, now - begin));
            }
            tokio::task::yield_now().await;
        }
    }

    /// The next task, once it is noted what the last one took; it leaves when there is none.
    fn next(&mut self, now: Instant, last: Option<Spent>) -> Option<(u64, Runnable<Flow>)> {
        let mut ready = self.executor.ready.lock();
        ready.used.turn(now);
        if let Some(last) = last {
            ready.used.note(last);
        }
        let next = ready.next();
        if next.is_none() {
            ready.polling -= 1;
            self.left = true;
        }
        next
    }
}

/// The runtime is over when it is dropped before it has left: nobody will poll what is ready, so that is dropped, too; by who
/// starts it if it was not even started.
impl Drop for Polling {
    fn drop(&mut self) {
        while !self.left && !STARTING.get() {
            drop(self.next(Instant::now(), None));
        }
    }
}

#[cfg(test)]
mod tests;
