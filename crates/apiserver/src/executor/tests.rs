use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;

/// Polled so many times, each time ready for the next at once.
async fn polls(count: usize, mut each: impl FnMut()) {
    for _ in 0..count {
        each();
        let mut first = true;
        futures::future::poll_fn(|cx| {
            if std::mem::take(&mut first) {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(())
        })
        .await;
    }
}

/// The most polls of `flooders` tasks between two of a task of somebody else, who comes when they are all ready.
async fn between(flooders: usize, quiet: Flow) -> usize {
    let executor = Executor::new();
    let flood = Flow::of(executor.key("flood"));
    let (polled, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let tasks: Vec<_> = (0..flooders)
        .map(|_| {
            let (polled, stop) = (polled.clone(), stop.clone());
            let flooding = async move {
                while polled.load(Ordering::Relaxed) < stop.load(Ordering::Relaxed) {
                    let each = || {
                        polled.fetch_add(1, Ordering::Relaxed);
                    };
                    polls(1, each).await;
                }
            };
            executor.spawn(flood.clone(), flooding)
        })
        .collect();
    while polled.load(Ordering::Relaxed) < flooders {
        tokio::task::yield_now().await;
    }
    let seen = polled.clone();
    let asking = async move {
        let (mut last, mut most) = (seen.load(Ordering::Relaxed), 0);
        polls(100, || {
            let now = seen.load(Ordering::Relaxed);
            most = most.max(now - std::mem::replace(&mut last, now));
        })
        .await;
        most
    };
    let most = executor.spawn(quiet, asking).await.unwrap();
    stop.store(0, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    most
}

#[tokio::test]
async fn a_flood_is_one_among_those_who_have_turns() {
    let quiet = |name| Flow::of(Executor::new().key(name));
    assert_eq!(between(1000, quiet("quiet")).await, 1);
    assert_eq!(between(1, quiet("quiet")).await, 1);
}

#[tokio::test]
async fn tasks_of_one_flow_stand_in_line() {
    let executor = Executor::new();
    let (order, flow) = (Arc::new(Mutex::new(Vec::new())), Flow::default());
    let spawn = |name: &'static str, flow: &Flow| {
        let order = order.clone();
        executor.spawn(flow.clone(), polls(3, move || order.lock().push(name)))
    };
    let tasks = [spawn("a", &flow), spawn("b", &flow), spawn("c", &Flow::of(1)), spawn("d", &flow)];
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.lock().clone();
    assert_eq!(order, ["a", "c", "b", "c", "d", "c", "a", "b", "d", "a", "b", "d"]);
}

#[tokio::test]
async fn what_has_begun_comes_before_the_rest_of_its_flow() {
    let executor = Executor::new();
    let (order, begun) = (Arc::new(Mutex::new(Vec::new())), Flow::of(1));
    let spawn = |name: &'static str, flow: Flow| {
        let order = order.clone();
        executor.spawn(flow, polls(3, move || order.lock().push(name)))
    };
    let tasks =
        [spawn("a", Flow::of(1)), spawn("b", begun.clone()), spawn("c", begun.clone()), spawn("d", Flow::of(2))];
    // The first time, they stand in line as they were when they became ready.
    begun.begins();
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.lock().clone();
    let of_one: Vec<_> = order.iter().copied().filter(|name| *name != "d").collect();
    assert_eq!(of_one, ["a", "b", "b", "b", "c", "c", "c", "a", "a"], "{order:?}");
}

#[tokio::test]
async fn a_task_goes_with_its_flow() {
    let executor = Executor::new();
    let (order, nobody, ann) = (Arc::new(Mutex::new(Vec::new())), Flow::default(), Flow::default());
    let spawn = |name: &'static str, flow: &Flow| {
        let order = order.clone();
        executor.spawn(flow.clone(), polls(2, move || order.lock().push(name)))
    };
    let tasks = [spawn("a", &nobody), spawn("b", &nobody), spawn("ann", &ann)];
    ann.becomes(7);
    let mut first = tasks.into_iter();
    for task in first.by_ref() {
        task.await.unwrap();
    }
    // Ready as nobody's, it is polled in the line; from then on it has turns of its own.
    assert_eq!(order.lock().clone(), ["a", "b", "ann", "a", "ann", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn threads_share_the_work_and_wake_each_other() {
    let executor = Executor::new();
    let done = Arc::new(AtomicUsize::new(0));
    for round in 0..200_usize {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let answering = executor.spawn(Flow::of(1), async move { receiver.await.unwrap() });
        let (executor, done) = (executor.clone(), done.clone());
        let asking = executor.clone().spawn(Flow::of(2), async move {
            // From inside, as a request's task starts another.
            let inner = executor.spawn(Flow::of(round as u64), async move { sender.send(round).unwrap() });
            inner.await.unwrap();
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(answering.await, Some(round));
        asking.await.unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), 200);
    // A handle may be ready before who polled has left.
    while executor.ready.lock().polling > 0 {
        tokio::task::yield_now().await;
    }
    assert!(executor.ready.lock().is_empty());
}

#[tokio::test]
async fn tasks_end_with_their_handle_and_give_on_their_panic() {
    let executor = Executor::new();
    let held = Arc::new(());
    let inside = held.clone();
    let task = executor.spawn(Flow::default(), async move {
        let _inside = inside;
        std::future::pending::<()>().await;
    });
    tokio::task::yield_now().await;
    drop(task);
    while Arc::strong_count(&held) > 1 {
        tokio::task::yield_now().await;
    }
    let panics = executor.spawn(Flow::default(), async { panic!("as told") });
    let panic = std::panic::AssertUnwindSafe(panics);
    let outcome: Result<Option<()>, _> = futures::FutureExt::catch_unwind(panic).await;
    assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"as told"));
    assert_eq!(executor.spawn(Flow::default(), async { 1 }).await, Some(1));
}

#[test]
fn nothing_is_left_of_a_runtime_that_ends() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let held = Arc::new(());
    let first = runtime();
    let executor = first.block_on(async { Executor::new() });
    let task = |flow: u64| {
        let held = held.clone();
        executor.spawn(Flow::of(flow), async move {
            let _held = held;
            std::future::pending::<()>().await;
        })
    };
    task(1).detach();
    let waits = task(2);
    drop(first);
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(runtime().block_on(waits), None);
    // Who wakes a task may hold what its end needs.
    let lock = Arc::new(Mutex::new(()));
    let locked = lock.lock();
    let ends = Arc::new(EndsWith(lock.clone()));
    let last = Arc::downgrade(&ends);
    executor
        .spawn(Flow::of(3), async move {
            let _ends = ends;
            std::future::pending::<()>().await;
        })
        .detach();
    drop(locked);
    let begin = Instant::now();
    while last.strong_count() > 0 && begin.elapsed() < DEADLINE {
        std::thread::yield_now();
    }
    assert_eq!(last.strong_count(), 0);
}

/// Takes a lock as it ends.
struct EndsWith(Arc<Mutex<()>>);

impl Drop for EndsWith {
    fn drop(&mut self) {
        drop(self.0.lock());
    }
}

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);
/// After which what does not happen is taken never to: one test waits for it in vain.
const PATIENCE: Duration = Duration::from_secs(5);

/// Uses the processor until its flow is one that takes much.
async fn heavy(executor: &Arc<Executor>, flow: &Flow) {
    let begin = Instant::now();
    let spin = move || while begin.elapsed() < Duration::from_millis(20) {};
    executor.spawn(flow.clone(), polls(1, spin)).await.unwrap();
}

/// Keeps its thread busy until somebody sets it; says whether somebody does.
fn becomes_true(flag: &AtomicBool) -> bool {
    let begin = Instant::now();
    while !flag.load(Ordering::Relaxed) && begin.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    flag.load(Ordering::Relaxed)
}

/// Whether a flow that takes little is polled while the only worker is busy with another flow.
async fn passes(executor: Arc<Executor>) -> bool {
    let flood = Flow::of(1);
    heavy(&executor, &flood).await;
    let inner = executor.clone();
    // While this is polled, the worker does nothing else.
    let busy = async move {
        let passed = Arc::new(AtomicBool::new(false));
        let seen = passed.clone();
        inner.spawn(Flow::of(1), async {}).detach();
        inner.spawn(Flow::of(2), async move { seen.store(true, Ordering::Relaxed) }).detach();
        becomes_true(&passed)
    };
    executor.spawn(flood, busy).await.unwrap()
}

fn one_worker() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Ends a runtime, and with it what polls.
fn end(runtime: tokio::runtime::Runtime) {
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        sender.send(()).unwrap();
    });
    ended.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn who_takes_little_does_not_wait_for_the_poll_that_runs() {
    let runtime = one_worker();
    assert!(runtime.block_on(async { passes(Executor::with(|| Ok(()))).await }));
    end(runtime);
}

#[test]
fn what_is_always_ready_gives_way_on_the_express_thread() {
    let runtime = one_worker();
    let passed = runtime.block_on(async {
        let executor = Executor::with(|| Ok(()));
        heavy(&executor, &Flow::of(1)).await;
        let inner = executor.clone();
        let busy = async move {
            let passed = Arc::new(AtomicBool::new(false));
            let (stop, seen) = (passed.clone(), passed.clone());
            let always_ready = async move {
                let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
                let begin = Instant::now();
                while !stop.load(Ordering::Relaxed) && begin.elapsed() < DEADLINE {
                    sender.send(()).unwrap();
                    receiver.recv().await.unwrap();
                }
            };
            let first = inner.spawn(Flow::of(2), always_ready);
            inner.spawn(Flow::of(3), async move { seen.store(true, Ordering::Relaxed) }).detach();
            (becomes_true(&passed), first)
        };
        let (passed, first) = executor.spawn(Flow::of(1), busy).await.unwrap();
        drop(first);
        passed
    });
    assert!(passed);
}

#[test]
fn where_no_thread_may_go_first_the_workers_have_it_all() {
    let runtime = one_worker();
    let refused = || Executor::with(|| Err(io::ErrorKind::PermissionDenied.into()));
    assert!(!runtime.block_on(async { passes(refused()).await }));
    end(runtime);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_express_thread_ends_with_its_executor() {
    let executor = Executor::with(|| Ok(()));
    assert!(passes(executor.clone()).await);
    let (weak, signals) = (Arc::downgrade(&executor), executor.express.signals.clone());
    drop(executor);
    let ended = async {
        while weak.strong_count() > 0 || Arc::strong_count(&signals) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
}
