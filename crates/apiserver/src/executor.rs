//! Shares the processor out among those who ask. Connections and requests are tasks of flows, a flow for each user, and flows
//! whose tasks are ready have turns: one poll each. However many requests of one user are under way, what another's waits
//! for is the poll that runs on each of the processors, and one poll of each other flow that is ready.
//!
//! Tokio's own queue is first come, first served: behind a flood's tasks, those of everybody else would wait at each of their
//! polls. Here it only holds what runs this executor (a few tasks, as many as there are workers, and none when nothing is
//! ready), and the server's own tasks, which so come before requests.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_task::{Builder, FallibleTask, Runnable};
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Polls after which tokio looks at sockets and timers, and runs what else is ready.
const SLICE: usize = 4;

thread_local! {
    /// The address of the executor whose task this thread polls; 0 outside of them.
    static POLLING: Cell<usize> = const { Cell::new(0) };
}

/// Runs tasks in turns.
pub(crate) struct Executor {
    runtime: Handle,
    /// Tasks that are polled at once.
    most: usize,
    hasher: RandomState,
    ready: Mutex<Ready>,
}

/// Whose a task is. Clones are the same, and may become another's: a connection is nobody's until its first request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow(Arc<Standing>);

#[derive(Debug, Default)]
struct Standing {
    key: AtomicU64,
    begun: AtomicBool,
}

/// Tasks of one flow. What has begun comes first: a request that is under way holds a seat and memory, and were all to go
/// on in step, the first would be done when the last is.
#[derive(Default)]
struct Line {
    begun: VecDeque<Runnable<Flow>>,
    rest: VecDeque<Runnable<Flow>>,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.rest.is_empty()
    }

    fn len(&self) -> usize {
        self.begun.len() + self.rest.len()
    }
}

/// Tasks that are to be polled.
#[derive(Default)]
struct Ready {
    /// By flow. None is empty.
    tasks: BTreeMap<u64, Line>,
    /// The flows, each once, in the order in which they have their turns.
    turns: VecDeque<u64>,
    /// How many poll, or are about to.
    polling: usize,
}

impl Executor {
    /// Of the runtime that this is called in.
    pub(crate) fn new() -> Arc<Self> {
        let runtime = Handle::current();
        let most = runtime.metrics().num_workers();
        Arc::new(Self { runtime, most, hasher: RandomState::new(), ready: Mutex::default() })
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
        let mut ready = self.ready.lock();
        let only = ready.push(task);
        // Whoever polls here takes it next, which is sooner than another thread wakes up.
        let soon = only && POLLING.get() == Arc::as_ptr(self).addr();
        if soon || ready.polling >= self.most {
            return;
        }
        ready.polling += 1;
        drop(ready);
        let polling = Polling { executor: self.clone(), left: false };
        self.runtime.spawn(polling.run());
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

impl Ready {
    /// Whether no other is ready.
    fn push(&mut self, task: Runnable<Flow>) -> bool {
        let (flow, begun) = (task.metadata().key(), task.metadata().has_begun());
        let line = self.tasks.entry(flow).or_default();
        if line.is_empty() {
            self.turns.push_back(flow);
        }
        let tasks = if begun { &mut line.begun } else { &mut line.rest };
        tasks.push_back(task);
        line.len() == 1 && self.turns.len() == 1
    }

    fn next(&mut self) -> Option<Runnable<Flow>> {
        let flow = self.turns.pop_front()?;
        let line = self.tasks.get_mut(&flow)?;
        let task = line.begun.pop_front().or_else(|| line.rest.pop_front());
        match line.is_empty() {
            true => drop(self.tasks.remove(&flow)),
            false => self.turns.push_back(flow),
        }
        task
    }
}

/// One who polls, counted until it leaves.
struct Polling {
    executor: Arc<Executor>,
    left: bool,
}

impl Polling {
    async fn run(mut self) {
        let here = Arc::as_ptr(&self.executor).addr();
        loop {
            for _ in 0..SLICE {
                let Some(task) = self.next() else { return };
                let outer = POLLING.replace(here);
                task.run();
                POLLING.set(outer);
            }
            tokio::task::yield_now().await;
        }
    }

    /// The next task; it leaves when there is none.
    fn next(&mut self) -> Option<Runnable<Flow>> {
        let mut ready = self.executor.ready.lock();
        let task = ready.next();
        if task.is_none() {
            ready.polling -= 1;
            self.left = true;
        }
        task
    }
}

/// The runtime is over when it is dropped before it has left: nobody will poll what is ready, so that is dropped, too.
impl Drop for Polling {
    fn drop(&mut self) {
        while !self.left {
            drop(self.next());
        }
    }
}

#[cfg(test)]
mod tests;
