//! What a flood by one user costs another. The server is a process of its own, asked over TLS. Who asks has a processor that
//! the server has not, as if it were another machine; there, the flood gives way to the other user, who does next to nothing.
//! What a flood costs is what the server spends on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::request::send;
use super::scratch::Scratch;
use super::standalone::Process;
use super::{Figure, NO_BUDGET, Row, Size, millis};
use crate::cli::Failure;

/// Requests of which the 99th percentile is taken, and the pause between two.
const SAMPLES: usize = 1000;
const PAUSE: Duration = Duration::from_millis(2);
/// The longest that requests are sampled: a server that is slow is not asked all of them.
const SAMPLING: Duration = Duration::from_secs(20);
/// Until a server that has just started has nothing more to do, and until a flood's connections are there.
const RISE: Duration = Duration::from_secs(3);
/// What refusals tell clients to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Requests that the flood has under way.
const FLOOD: usize = 400;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// How somebody's requests fare while somebody else sends as many as he can, and tries again what is refused: once the
/// second that the refusal names has passed, as clients do, and then at once. Prints the rows.
pub(super) async fn costs(size: Size, print: impl Fn(Row)) -> Result<(), Failure> {
    let (scratch, samples) = (Scratch::new()?, size.of(SAMPLES));
    let processors = Processors::apart()?;
    let process = Process::start(scratch.path(), 1, &[], None).await?;
    let role = json!({"metadata": {"name": "bench"}, "rules": [
        {"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]}]});
    send(&process.client, "POST", &format!("{RBAC}/clusterroles"), Some(role)).await?;
    let binding = json!({"metadata": {"name": "bench"}, "subjects": [{"kind": "Group", "name": "bench"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bench"}});
    send(&process.client, "POST", &format!("{RBAC}/clusterrolebindings"), Some(binding)).await?;
    let quiet = process.kubeconfig("quiet", "bench")?;
    tokio::time::sleep(RISE).await;
    let idle = p99(&quiet, "idle", samples, processors.clients).await?;
    print(Row::new("fairness: create, p99, nobody else there", Figure::Millis(NO_BUDGET), idle));
    for (name, pause, how) in
        [("flooded", Some(RETRY_AFTER), "a flood that waits as it is told"), ("crowded", None, "a flood without pause")]
    {
        let flood = Flood::start(process.kubeconfig("flood", "bench")?, name, pause, processors.clients)?;
        tokio::time::sleep(RISE).await;
        let during = p99(&quiet, name, samples, processors.clients).await?;
        flood.stop()?;
        print(Row::new(format!("fairness: create, p99, {how}"), Figure::Millis(NO_BUDGET), during));
        print(Row::new(format!("fairness: what {how} costs others"), Figure::Times(2.0), during / idle));
    }
    Ok(())
}

/// Who runs where: the clients on one processor, the server on all others. One that is alone is everybody's.
struct Processors {
    all: CpuSet,
    clients: CpuSet,
}

impl Processors {
    /// Moves this thread, and with it what it starts, to the server's.
    fn apart() -> Result<Self, Failure> {
        let all = sched_getaffinity(None)?;
        let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| all.is_set(*cpu)).unwrap_or_default();
        let (mut server, mut clients) = (all, CpuSet::new());
        server.unset(last);
        clients.set(last);
        if all.count() < 2 {
            return Ok(Self { all, clients });
        }
        sched_setaffinity(None, &server)?;
        Ok(Self { all, clients })
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(None, &self.all) {
            tracing::warn!(%error, "what is measured next has not all processors");
        }
    }
}

/// Many requests of one user.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

impl Flood {
    fn start(kubeconfig: String, name: &'static str, pause: Option<Duration>, on: CpuSet) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let flood = move || {
            sched_setaffinity(None, &on)?;
            keelson_threads::last()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(flood(&kubeconfig, name, pause, &stopped))
        };
        let thread = std::thread::Builder::new().name("flood".into()).spawn(flood)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it; an error is why there was none.
    fn stop(mut self) -> Result<(), Failure> {
        self.end().unwrap_or(Ok(()))
    }

    fn end(&mut self) -> Option<Result<(), Failure>> {
        self.stop.store(true, Ordering::Relaxed);
        Some(self.thread.take()?.join().unwrap_or_else(|_| Err("the flood broke off".into())))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}

async fn flood(kubeconfig: &str, name: &str, pause: Option<Duration>, stop: &AtomicBool) -> Result<(), Failure> {
    let client = keelson_client::connect::from_kubeconfig_text(kubeconfig).await?;
    let one = async |at: usize| {
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            let object = map(&format!("{name}-{at}-{round}"));
            round += 1;
            if let (Err(_), Some(pause)) = (send(&client, "POST", MAPS, Some(object)).await, pause) {
                tokio::time::sleep(pause).await;
            }
        }
    };
    join_all((0..FLOOD).map(one)).await;
    Ok(())
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "x".repeat(256)}})
}

/// Milliseconds, of so many creates or of those that [`SAMPLING`] leaves time for.
async fn p99(kubeconfig: &str, name: &'static str, samples: usize, on: CpuSet) -> Result<f64, Failure> {
    let (kubeconfig, (sender, result)) = (kubeconfig.to_owned(), oneshot::channel());
    let ask = move || {
        let moved = sched_setaffinity(None, &on);
        if let Err(error) = keelson_threads::at_once() {
            tracing::warn!(%error, "who is flooded waits for this machine's processors, too");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let asked = moved
            .map_err(Failure::from)
            .and(runtime.map_err(Failure::from))
            .and_then(|runtime| runtime.block_on(creates(&kubeconfig, name, samples)));
        // Who waits for it may have been told to stop.
        let _ = sender.send(asked);
    };
    std::thread::Builder::new().name("quiet".into()).spawn(ask)?;
    result.await?
}

async fn creates(kubeconfig: &str, name: &str, samples: usize) -> Result<f64, Failure> {
    let client = keelson_client::connect::from_kubeconfig_text(kubeconfig).await?;
    // Its connection is there before it is measured.
    send(&client, "GET", MAPS, None).await?;
    let (mut times, start) = (Vec::with_capacity(samples), Instant::now());
    for i in 0..samples {
        let begin = Instant::now();
        send(&client, "POST", MAPS, Some(map(&format!("{name}-quiet-{i}")))).await?;
        times.push(millis(begin.elapsed()));
        if start.elapsed() > SAMPLING {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() * 99 / 100).copied().unwrap_or_default())
}
