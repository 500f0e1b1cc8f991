use super::*;

#[tokio::test(start_paused = true)]
async fn a_key_is_queued_once_and_comes_again_when_added_while_worked_on() {
    let queue = WorkQueue::new();
    queue.add("a");
    queue.add("a");
    assert_eq!(queue.len(), 1);
    let item = queue.get().await.unwrap();
    queue.add("a");
    assert_eq!(queue.len(), 0, "not handed out while another worker has it");
    let other = tokio::time::timeout(Duration::from_secs(1), queue.get()).await;
    assert!(other.is_err());
    drop(item);
    assert_eq!(*queue.get().await.unwrap(), "a");
    assert!(queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn the_earliest_delay_counts() {
    let queue = WorkQueue::new();
    let start = Instant::now();
    queue.add_after("a", Duration::from_secs(10));
    queue.add_after("b", Duration::from_secs(7));
    queue.add_after("a", Duration::from_secs(5));
    queue.add_after("a", Duration::from_secs(8));
    let mut seen = Vec::new();
    for _ in 0..2 {
        let item = queue.get().await.unwrap();
        seen.push((*item, start.elapsed().as_secs()));
    }
    assert_eq!(seen, [("a", 5), ("b", 7)]);
    assert!(tokio::time::timeout(Duration::from_secs(60), queue.get()).await.is_err(), "stale entries do not come");
    assert!(queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_shorter_delay_wakes_a_worker_that_already_sleeps() {
    let queue = WorkQueue::new();
    queue.add_after("late", Duration::from_secs(100));
    let start = Instant::now();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { *queue.get().await.unwrap() }
    });
    tokio::task::yield_now().await;
    queue.add_after("soon", Duration::from_secs(1));
    assert_eq!(waiting.await.unwrap(), "soon");
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[test]
fn failures_back_off_from_5_ms_to_1000_s() {
    let delays: Vec<_> = [1, 2, 3, 10, 17, 18, 19, 40, u32::MAX].map(|n| delay_after(n).as_millis()).to_vec();
    assert_eq!(delays, [5, 10, 20, 2560, 327_680, 655_360, 1_000_000, 1_000_000, 1_000_000]);
}

#[tokio::test(start_paused = true)]
async fn workers_retry_until_success_and_then_forget() {
    let queue = WorkQueue::new();
    let shutdown = CancellationToken::new();
    let tries = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    queue.add("a");
    let (seen, stop) = (tries.clone(), shutdown.clone());
    run_workers("test", queue.clone(), 2, shutdown, move |_| {
        let (seen, stop) = (seen.clone(), stop.clone());
        async move {
            seen.lock().push(start.elapsed().as_millis());
            match seen.lock().len() {
                1..=3 => Err("no"),
                4 => Ok(Some(Duration::from_secs(1))),
                _ => {
                    stop.cancel();
                    Ok(None)
                }
            }
        }
    })
    .await;
    assert_eq!(queue.failures(&"a"), 0);
    assert_eq!(*tries.lock(), [0, 5, 15, 35, 1035]);
    queue.add("b");
    assert!(queue.get().await.is_none(), "shut down");
}

#[tokio::test(start_paused = true)]
async fn many_workers_drain_many_keys_and_no_key_is_worked_on_twice_at_once() {
    let queue = WorkQueue::new();
    let shutdown = CancellationToken::new();
    let active = Arc::new(Mutex::new(HashSet::new()));
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for key in 0..1000 {
        queue.add(key % 100);
        queue.add_after(key, Duration::from_millis(key));
    }
    let stop = shutdown.clone();
    let done = count.clone();
    run_workers("test", queue, 8, shutdown, move |key| {
        let (active, done, stop) = (active.clone(), done.clone(), stop.clone());
        async move {
            assert!(active.lock().insert(key), "{key} is being worked on already");
            tokio::time::sleep(Duration::from_millis(3)).await;
            active.lock().remove(&key);
            if done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 >= 1050 {
                stop.cancel();
            }
            Ok::<_, &str>(None)
        }
    })
    .await;
    assert!(count.load(std::sync::atomic::Ordering::Relaxed) >= 1050);
}

/// Each test has a name of its own for its queue: the registry is the process's.
fn told(family: &str, name: &str) -> f64 {
    let families = prometheus::gather();
    let family = families.iter().find(|there| there.name() == family).unwrap();
    let of = |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|label| label.value() == name);
    let metric = family.get_metric().iter().find(of).unwrap();
    let histogram = metric.get_histogram();
    match family.get_field_type() {
        prometheus::proto::MetricType::COUNTER => metric.get_counter().get_value(),
        prometheus::proto::MetricType::GAUGE => metric.get_gauge().get_value(),
        _ => histogram.get_sample_count() as f64 * 1000.0 + histogram.get_sample_sum(),
    }
}

#[tokio::test(start_paused = true)]
async fn queues_are_measured_under_upstreams_names() {
    let (queue, shutdown) = (WorkQueue::new(), CancellationToken::new());
    let told = |family: &str| told(family, "measured");
    queue.add("before");
    let work = tokio::spawn(run_workers("measured-controller", queue.clone(), 1, shutdown.clone(), |key| async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        if key == "fails" { Err("no") } else { Ok(None) }
    }));
    tokio::time::sleep(Duration::from_secs(1)).await;
    queue.add("fails");
    queue.add("fails");
    assert_eq!((told("workqueue_depth"), told("workqueue_adds_total")), (1.0, 2.0));
    assert_eq!(told("workqueue_unfinished_work_seconds"), 1.0);
    assert_eq!(told("workqueue_longest_running_processor_seconds"), 1.0);
    // The second key waits for two seconds, fails after three, and is tried again.
    tokio::time::sleep(Duration::from_millis(5500)).await;
    assert_eq!(told("workqueue_depth"), 0.0);
    assert_eq!((told("workqueue_adds_total"), told("workqueue_retries_total")), (3.0, 1.0));
    assert_eq!(told("workqueue_work_duration_seconds"), 2006.0);
    assert_eq!(told("workqueue_queue_duration_seconds"), 3002.0);
    shutdown.cancel();
    work.await.unwrap();
    assert_eq!(told("workqueue_depth"), 0.0);
}
