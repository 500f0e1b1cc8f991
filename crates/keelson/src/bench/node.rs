//! A node under load: a hundred pods at once, split into the phases of a start, what they need while they idle, and what the
//! runtime takes for one step. Times within a pod's start come from the runtime's own event stream and records.

pub(super) mod alone;
pub(super) mod pull;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use keelson_cri::v1 as cri;
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;

use super::lifecycle::{Cluster, median};
use super::{Figure, NO_BUDGET, Row, Size, millis};
use crate::cli::Failure;

const PODS: usize = 100;
const LINES: usize = 1_000_000;
const EXECS: usize = 50;
const LIMIT: Duration = Duration::from_secs(300);
/// Idle time before and while processor time is counted.
const SETTLE: Duration = Duration::from_secs(10);
/// Static, of Debian's busybox-static; the node sees the machine's.
const BUSYBOX: &str = "/bin/busybox";

/// When a pod came how far, in nanoseconds since the epoch.
#[derive(Clone, Copy, Default)]
struct Course {
    asked: i64,
    made: i64,
    bound: i64,
    sandbox_begun: i64,
    sandbox: i64,
    container: i64,
    started: i64,
    running: i64,
}

/// Prints the rows.
pub(super) async fn loads(cluster: &Cluster, size: Size, print: impl Fn(Row)) -> Result<(), Failure> {
    let clients = keelson_cri::connect(&socket(cluster)?.to_string_lossy())?;
    let before = cluster.memory_mib()?;
    let count = size.of(PODS);
    let begin = Instant::now();
    let courses = start_many(cluster, clients.clone(), count).await?;
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    print(Row::new(format!("{count} pods at once, started a second"), Figure::PerSecond(30.0), rate));
    let phase = |from: fn(&Course) -> i64, to: fn(&Course) -> i64| {
        median(courses.iter().map(|course| (to(course) - from(course)) as f64 / 1e6).collect())
    };
    for (what, took) in [
        ("API (request to answer)", phase(|c| c.asked, |c| c.made)),
        ("schedule (answer to bound)", phase(|c| c.made, |c| c.bound)),
        ("kubelet and volumes (bound to sandbox begun)", phase(|c| c.bound, |c| c.sandbox_begun)),
        ("sandbox and network", phase(|c| c.sandbox_begun, |c| c.sandbox)),
        ("create (image, mounts, container)", phase(|c| c.sandbox, |c| c.container)),
        ("start", phase(|c| c.container, |c| c.started)),
        ("status (started to Running seen)", phase(|c| c.started, |c| c.running)),
        ("all", phase(|c| c.asked, |c| c.running)),
    ] {
        print(Row::new(format!("{count} pods at once, median of {what}"), Figure::Millis(NO_BUDGET), took));
    }
    tokio::time::sleep(SETTLE).await;
    let each = (cluster.memory_mib()? - before) / count as f64;
    print(Row::new(format!("memory of an idle pod beyond its own, of {count} (PSS)"), Figure::Mib(3.0), each));
    let (cpu, since) = (cluster.cpu()?, Instant::now());
    tokio::time::sleep(SETTLE).await;
    let share = (cluster.cpu()?.saturating_sub(cpu)).as_secs_f64() / since.elapsed().as_secs_f64();
    print(Row::new(
        format!("one core's time of a node idle with {count} pods, per cent"),
        Figure::Times(1.0),
        share * 100.0,
    ));
    let begin = Instant::now();
    delete_all(cluster).await?;
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    print(Row::new(format!("{count} pods at once, deleted to gone a second"), Figure::PerSecond(0.0), rate));
    streams(cluster, clients, size, print).await
}

/// The CRI socket of the cluster's node.
fn socket(cluster: &Cluster) -> Result<PathBuf, Failure> {
    Ok(PathBuf::from(format!("/proc/{}/root/run/keelson/runtime.sock", cluster.init_pid()?)))
}

fn now_ns() -> i64 {
    i64::try_from(keelson_client::clock::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::default_namespaced(cluster.client().clone())
}

async fn start_many(
    cluster: &Cluster,
    mut clients: keelson_cri::Clients,
    count: usize,
) -> Result<Vec<Course>, Failure> {
    let api = pods(cluster);
    let mut news = clients.runtime.get_container_events(cri::GetEventsRequest {}).await?.into_inner();
    let mut watch = watcher(api.clone(), watcher::Config::default()).applied_objects().boxed();
    let mut courses: HashMap<String, Course> = HashMap::new();
    let creating = futures::stream::iter(0..count).map(|index| {
        let api = api.clone();
        async move {
            let name = format!("many-{index}");
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
                "terminationGracePeriodSeconds": 2, "containers": [{"name": "c", "image": "keelson.local/hello"}]}});
            let asked = now_ns();
            api.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
            Ok::<_, Failure>((name, asked, now_ns()))
        }
    });
    let creating = creating.buffer_unordered(count).try_collect::<Vec<_>>();
    let watching = async {
        let mut running = 0;
        while running < count {
            tokio::select! {
                event = news.message() => {
                    let event = event?.ok_or("the runtime's events have ended")?;
                    note_event(&mut courses, &event);
                }
                pod = watch.try_next() => {
                    let pod = pod?.ok_or("the watch has ended")?;
                    running += usize::from(note_pod(&mut courses, &pod));
                }
            }
        }
        Ok::<_, Failure>(())
    };
    let both = async { futures::try_join!(creating, watching) };
    let (made, ()) = tokio::time::timeout(LIMIT, both).await.map_err(|_| format!("{count} pods took too long"))??;
    for (name, asked, answered) in made {
        let course = courses.entry(name).or_default();
        (course.asked, course.made) = (asked, answered);
    }
    Ok(courses.into_values().filter(|course| course.started > 0).collect())
}

fn note_event(courses: &mut HashMap<String, Course>, event: &cri::ContainerEventResponse) {
    let Some(sandbox) = &event.pod_sandbox_status else { return };
    let name = sandbox.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
    let course = courses.entry(name).or_default();
    course.sandbox_begun = sandbox.created_at;
    match (event.container_event_type(), event.container_id == sandbox.id) {
        (cri::ContainerEventType::ContainerStartedEvent, true) => course.sandbox = event.created_at,
        (cri::ContainerEventType::ContainerCreatedEvent, false) => course.container = event.created_at,
        (cri::ContainerEventType::ContainerStartedEvent, false) => course.started = event.created_at,
        _ => {}
    }
}

/// Whether the pod has just come to run.
fn note_pod(courses: &mut HashMap<String, Course>, pod: &Pod) -> bool {
    let course = courses.entry(pod.metadata.name.clone().unwrap_or_default()).or_default();
    let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    if bound && course.bound == 0 {
        course.bound = now_ns();
    }
    let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let new = runs && course.running == 0;
    if new {
        course.running = now_ns();
    }
    new
}

/// When a line of a log was noted, in nanoseconds since the epoch, and the line.
fn noted(line: &str) -> Option<(i128, &str)> {
    let (at, text) = line.trim_end().split_once(' ')?;
    let at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time = serde_json::from_value(json!(at)).ok()?;
    Some((at.0.as_nanosecond(), text))
}

async fn delete_all(cluster: &Cluster) -> Result<(), Failure> {
    let api = pods(cluster);
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let begin = Instant::now();
    while !api.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
        if begin.elapsed() > LIMIT {
            return Err("pods took too long to go".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Lines of a log, and what a command in a container takes.
async fn streams(
    cluster: &Cluster,
    mut clients: keelson_cri::Clients,
    size: Size,
    print: impl Fn(Row),
) -> Result<(), Failure> {
    let (api, lines) = (pods(cluster), size.of(LINES));
    let script = format!("echo begin; /busybox seq {lines}; echo end; exec /busybox sleep 100000");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "streams"}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "busybox", "hostPath": {"path": BUSYBOX, "type": "File"}}],
        "containers": [{"name": "c", "image": "keelson.local/hello",
            "command": ["/busybox", "sh", "-c", script],
            "volumeMounts": [{"name": "busybox", "mountPath": "/busybox"}]}]}});
    api.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    // The runtime notes when it got each line.
    let last = LogParams { tail_lines: Some(1), timestamps: true, ..LogParams::default() };
    let begin = Instant::now();
    let to = loop {
        if let Some((at, "end")) = api.logs("streams", &last).await.ok().as_deref().and_then(noted) {
            break at;
        }
        if begin.elapsed() > LIMIT {
            return Err(format!("a pod that writes {lines} lines took too long; does the node have {BUSYBOX}?").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let first = LogParams { limit_bytes: Some(64), timestamps: true, ..LogParams::default() };
    let first = api.logs("streams", &first).await?;
    let (from, _) = first.lines().next().and_then(noted).ok_or("no times in the log")?;
    let read = Instant::now();
    let log = api.logs("streams", &LogParams::default()).await?;
    let read = read.elapsed();
    if log.lines().count() != lines + 2 {
        return Err(format!("{} of {lines} lines are in the log", log.lines().count().saturating_sub(2)).into());
    }
    let written = lines as f64 * 1e9 / (to - from).max(1) as f64;
    print(Row::new("log lines a container writes a second, none lost", Figure::PerSecond(0.0), written));
    let rate = lines as f64 / read.as_secs_f64();
    print(Row::new("log lines read a second, through the API", Figure::PerSecond(0.0), rate));
    let all = clients.runtime.list_containers(cri::ListContainersRequest::default()).await?.into_inner().containers;
    let of_pod = |container: &&cri::Container| {
        container.labels.get("io.kubernetes.pod.name").is_some_and(|name| name == "streams")
    };
    let id = all.iter().find(of_pod).map(|container| container.id.clone()).ok_or("no container")?;
    let mut took = Vec::new();
    for _ in 0..size.of(EXECS) {
        let cmd = vec!["/busybox".into(), "true".into()];
        let begin = Instant::now();
        clients.runtime.exec_sync(cri::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 30 }).await?;
        took.push(millis(begin.elapsed()));
    }
    print(Row::new("exec of `true` through CRI (median)", Figure::Millis(NO_BUDGET), median(took)));
    delete_all(cluster).await
}
