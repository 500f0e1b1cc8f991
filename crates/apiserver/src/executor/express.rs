//! A thread that goes before the workers when all of them are busy, and polls for flows that take little: the kernel would let
//! a worker go on for a tick (4 ms) while an ordinary thread waits. It takes half of the time at most.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::ready::Ready;
use super::{Executor, poll};

/// What becomes of tasks that the express thread could poll.
pub(super) enum Lane {
    /// The thread has not been needed yet.
    Unused,
    /// It waits.
    Free,
    /// It polls, or is about to.
    Taken,
    /// There is none.
    Closed,
}

/// How the thread is started, woken and ended.
pub(super) struct Express {
    goes_first: fn() -> io::Result<()>,
    pub(super) signals: Arc<Signals>,
    /// Dropped with the executor.
    alive: Mutex<Option<oneshot::Sender<()>>>,
}

#[derive(Default)]
pub(super) struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    wanted: bool,
    polling: bool,
    over: bool,
}

impl Express {
    pub(super) fn new(goes_first: fn() -> io::Result<()>) -> Self {
        Self { goes_first, signals: Arc::default(), alive: Mutex::default() }
    }

    /// Starts the thread, which has something to do at once.
    pub(super) fn start(executor: &Arc<Executor>) {
        let signals = executor.express.signals.clone();
        signals.state.lock().wanted = true;
        let (alive, ended) = oneshot::channel();
        *executor.express.alive.lock() = Some(alive);
        let end = End(signals.clone());
        executor.runtime.spawn(async move {
            let _end = end;
            // It is only ever dropped.
            let _ = ended.await;
        });
        let weak = Arc::downgrade(executor);
        let goes_first = executor.express.goes_first;
        let work = move || run(&weak, &signals, goes_first());
        if let Err(error) = std::thread::Builder::new().name("express".into()).spawn(work) {
            tracing::warn!(%error, "no thread for those who ask for little");
            executor.leave(executor.ready.lock(), Lane::Closed);
        }
    }

    pub(super) fn wake(&self) {
        self.signals.state.lock().wanted = true;
        self.signals.changed.notify_all();
    }
}

fn run(executor: &Weak<Executor>, signals: &Signals, first: io::Result<()>) {
    if let Err(error) = first {
        tracing::info!(%error, "who asks for little has the processors in turn with those who ask for much");
        if let Some(executor) = executor.upgrade() {
            executor.leave(executor.ready.lock(), Lane::Closed);
        }
        return;
    }
    while signals.wanted() {
        if let Some(executor) = executor.upgrade() {
            executor.express(signals);
        }
        signals.rests();
    }
}

impl Signals {
    /// Waits until there is something to do; not when it is over.
    fn wanted(&self) -> bool {
        let mut state = self.state.lock();
        while !state.wanted && !state.over {
            self.changed.wait(&mut state);
        }
        state.wanted = false;
        state.polling = !state.over;
        state.polling
    }

    fn rests(&self) {
        self.state.lock().polling = false;
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        self.state.lock().over
    }
}

/// Ends the thread. What it polls may need the runtime, so that waits for it.
struct End(Arc<Signals>);

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.over = true;
        self.0.changed.notify_all();
        while state.polling {
            self.0.changed.wait(&mut state);
        }
    }
}

impl Executor {
    /// Polls what is ready of flows that take little.
    fn express(self: &Arc<Self>, signals: &Signals) {
        let place = self.place(true);
        let (mut now, mut last) = (Instant::now(), None);
        loop {
            let mut ready = self.ready.lock();
            ready.used.turn(now);
            if let Some(last) = last.take() {
                ready.used.note_express(last);
            }
            let lane = if signals.is_over() { Lane::Closed } else { Lane::Free };
            let goes_on = matches!(lane, Lane::Free) && ready.used.express_has_left();
            let next = if goes_on { ready.next_light() } else { None };
            let Some((flow, task)) = next else { return self.leave(ready, lane) };
            drop(ready);
            let begin = now;
            // Within a runtime, what is always ready is told to give way after a while.
            self.runtime.block_on(async { poll(task, place) });
            now = Instant::now();
            last = Some((flow, now - begin));
        }
    }

    /// The express thread is done; what it leaves is the workers'.
    fn leave(self: &Arc<Self>, mut ready: MutexGuard<'_, Ready>, lane: Lane) {
        ready.lane = lane;
        if !ready.is_empty() && ready.polling < self.most {
            self.poll_soon(ready);
        }
    }
}
