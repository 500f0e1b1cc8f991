//! Rows, and the program that runs them: many pods at once on one cluster, their statuses and events followed by watches,
//! so that what passes quickly is seen, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Event, Pod};
use keelson_testbed::cluster::Cluster;
use kube::api::{Api, DeleteParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::render;
use crate::e2e::BUSYBOX;

/// Longest wait for one step, with everything else that a busy machine does.
const DEADLINE: Duration = Duration::from_secs(100);
/// Rows at the same time.
const AT_ONCE: usize = 12;

/// The path of one pod.
pub(super) struct Row {
    name: String,
    pod: Value,
    steps: Vec<Step>,
}

enum Step {
    Reads(String),
    Events(String),
    Delete(Option<u32>),
    Gone,
    Patch(&'static str, Value),
    Shell(String),
    Up(&'static str),
    Within(Duration),
}

impl Row {
    /// A pod of this spec. What the spec does not say: one second of grace, no token.
    pub(super) fn new(name: &str, spec: Value) -> Row {
        let mut full = json!({"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false});
        full.as_object_mut().expect("a map").extend(spec.as_object().expect("a map").clone());
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": full});
        Row { name: name.into(), pod, steps: Vec::new() }
    }

    fn step(mut self, step: Step) -> Row {
        self.steps.push(step);
        self
    }

    /// The status comes to read so (see [`render::status`]); `*` stands for anything.
    pub(super) fn reads(self, lines: &[&str]) -> Row {
        self.step(Step::Reads(lines.join("\n")))
    }

    /// The events come to be these (see [`render::events`]), and no others.
    pub(super) fn events(self, lines: &[&str]) -> Row {
        self.step(Step::Events(lines.join("\n")))
    }

    /// The program of a container has said in its log that it is up (see [`until_told`], [`deaf`]). A container that runs
    /// may not have come to its program yet: what is told to end before that ends as the OCI runtime pleases (runc's own
    /// process, which is a Go program, exits with 2), and a shell that has no trap yet is not told at all.
    pub(super) fn up(self, container: &'static str) -> Row {
        self.step(Step::Up(container))
    }

    /// Deletes the pod.
    pub(super) fn delete(self) -> Row {
        self.step(Step::Delete(None))
    }

    /// Deletes the pod with a grace of its own, in seconds.
    pub(super) fn delete_within(self, grace_seconds: u32) -> Row {
        self.step(Step::Delete(Some(grace_seconds)))
    }

    /// The API object goes.
    pub(super) fn gone(self) -> Row {
        self.step(Step::Gone)
    }

    /// Patches the pod, or a subresource of it, strategically.
    pub(super) fn patch(self, subresource: &'static str, patch: Value) -> Row {
        self.step(Step::Patch(subresource, patch))
    }

    /// A line of shell succeeds; `NAME` is the pod's name.
    pub(super) fn shell(self, line: &str) -> Row {
        let line = line.replace("NAME", &self.name);
        self.step(Step::Shell(line))
    }

    /// The next step takes no longer than this.
    pub(super) fn within(self, seconds: u64) -> Row {
        self.step(Step::Within(Duration::from_secs(seconds)))
    }
}

/// A container of busybox that runs a line of shell.
pub(super) fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": BUSYBOX, "command": ["sh", "-c", script]})
}

/// The same with more fields.
pub(super) fn with(container: Value, more: Value) -> Value {
    let mut container = container;
    container.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    container
}

/// A line of shell that runs until it is told to end, then runs `last` and exits with `code`. It says in its log when it
/// can be told ([`Row::up`]), and makes the file `/up`.
pub(super) fn until_told(last: &str, code: u8) -> String {
    until_sent("TERM", "/up", last, code)
}

/// The same with another signal, and another file.
pub(super) fn until_sent(signal: &str, file: &str, last: &str, code: u8) -> String {
    format!("trap '{last} exit {code}' {signal}; sleep 3600 & echo up | tee {file}; wait")
}

/// A line of shell that takes no notice of being told to end. It says when it is up as [`until_told`] does.
pub(super) fn deaf() -> &'static str {
    "echo up | tee /up; exec sleep 3600"
}

/// A line of shell for probes and hooks: fails, once the container's program is up.
pub(super) fn fails_once_up(code: u8) -> String {
    format!("until [ -e /up ]; do sleep 0.1; done; exit {code}")
}

/// A line of shell that counts the processes of [`until_told`] that it sees, once there are any.
pub(super) fn count_sleepers() -> String {
    let sleepers = "ps | grep '3600[ ]*$'";
    format!("until {sleepers} > /dev/null; do sleep 0.1; done; {sleepers} | wc -l")
}

/// What has been seen of all pods.
#[derive(Default)]
struct Seen {
    /// By name: statuses as they read, each once.
    statuses: HashMap<String, Vec<String>>,
    pods: HashMap<String, Pod>,
    gone: HashMap<String, bool>,
    events: HashMap<String, Vec<Event>>,
    faults: Vec<String>,
}

/// Runs all rows.
///
/// # Panics
/// When a row does not come true, with all that do not.
pub(super) fn check(cluster: Cluster, runtime: &str, rows: Vec<Row>) {
    let cluster = Arc::new(cluster);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let failures: Vec<String> = tokio.block_on(async {
        let kubeconfig = cluster.kubeconfig();
        let client = keelson_client::connect::from_kubeconfig(&kubeconfig, None).await.expect("a client");
        let seen = watch::Sender::new(Seen::default());
        let only = std::env::var("KEELSON_ROWS").unwrap_or_default();
        let rows = rows.into_iter().filter(|row| row.name.contains(&only));
        let running = rows.map(|row| {
            let (cluster, client, seen) = (&cluster, &client, &seen);
            async move {
                let name = row.name.clone();
                run(cluster, client, seen, row).await.map_err(|why| format!("--- {name}: {why}"))
            }
        });
        let running = futures::stream::iter(running).buffer_unordered(AT_ONCE).collect();
        let results: Vec<Result<(), String>> = tokio::select! {
            results = running => results,
            () = follow(&client, runtime, &seen) => vec![Err("the watches ended".into())],
        };
        let faults = seen.borrow().faults.clone();
        results.into_iter().filter_map(Result::err).chain(faults).collect()
    });
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

async fn follow(client: &kube::Client, runtime: &str, seen: &watch::Sender<Seen>) {
    let pods = watcher(Api::<Pod>::default_namespaced(client.clone()), watcher::Config::default()).default_backoff();
    let events =
        watcher(Api::<Event>::default_namespaced(client.clone()), watcher::Config::default()).default_backoff();
    let pods = pods.for_each(|event| async {
        let (pod, gone) = match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => (pod, false),
            Ok(watcher::Event::Delete(pod)) => (pod, true),
            _ => return,
        };
        let name = pod.metadata.name.clone().unwrap_or_default();
        let reads = render::status(&pod);
        let faults = render::faults(&pod, runtime);
        seen.send_modify(|seen| {
            let statuses = seen.statuses.entry(name.clone()).or_default();
            if statuses.last() != Some(&reads) {
                statuses.push(reads);
            }
            seen.faults.extend(faults.into_iter().map(|fault| format!("--- {name}: {fault}")));
            seen.gone.insert(name.clone(), gone);
            seen.pods.insert(name, pod);
        });
    });
    let events = events.for_each(|event| async {
        let Ok(watcher::Event::Apply(event) | watcher::Event::InitApply(event)) = event else { return };
        let by_kubelet = event.source.as_ref().and_then(|source| source.component.as_deref()) == Some("kubelet");
        if !by_kubelet || event.involved_object.kind.as_deref() != Some("Pod") {
            return;
        }
        let about = event.involved_object.name.clone().unwrap_or_default();
        seen.send_modify(|seen| {
            let events = seen.events.entry(about).or_default();
            match events.iter_mut().find(|known| known.metadata.name == event.metadata.name) {
                Some(known) => *known = event,
                None => events.push(event),
            }
        });
    });
    tokio::join!(pods, events);
}

async fn run(
    cluster: &Arc<Cluster>,
    client: &kube::Client,
    seen: &watch::Sender<Seen>,
    row: Row,
) -> Result<(), String> {
    let api = Api::<Pod>::default_namespaced(client.clone());
    let name = row.name.as_str();
    let pod: Pod = serde_json::from_value(row.pod.clone()).map_err(|error| error.to_string())?;
    api.create(&PostParams::default(), &pod).await.map_err(|error| error.to_string())?;
    // Statuses before this one have been read.
    let mut place = 0;
    let mut deadline = DEADLINE;
    for step in &row.steps {
        let limit = std::mem::replace(&mut deadline, DEADLINE);
        match step {
            Step::Within(limit) => deadline = *limit,
            Step::Reads(expected) => {
                let found = wait(seen, limit, |seen| {
                    let statuses = seen.statuses.get(name)?;
                    let new = statuses.iter().enumerate().skip(place);
                    new.filter(|(_, reads)| fits(expected, reads)).map(|(at, _)| at).next()
                });
                place = found.await.ok_or_else(|| {
                    let seen = seen.borrow();
                    let statuses = seen.statuses.get(name).map(Vec::as_slice).unwrap_or_default();
                    let read = statuses.get(place..).unwrap_or_default().join("\n  then:\n");
                    format!("never read:\n{expected}\n  but:\n{read}\n  events:\n{}", told(&seen, name))
                })?;
            }
            Step::Events(expected) => {
                let found = wait(seen, limit, |seen| fits(expected, &told(seen, name)).then_some(()));
                found.await.ok_or_else(|| {
                    format!("the events were never:\n{expected}\n  but:\n{}", told(&seen.borrow(), name))
                })?;
            }
            Step::Gone => {
                let found = wait(seen, limit, |seen| seen.gone.get(name).filter(|gone| **gone).copied());
                found.await.ok_or("never gone")?;
            }
            Step::Delete(grace_seconds) => {
                let parameters = DeleteParams { grace_period_seconds: *grace_seconds, ..DeleteParams::default() };
                api.delete(name, &parameters).await.map_err(|error| error.to_string())?;
            }
            Step::Patch(subresource, patch) => {
                let (parameters, patch) = (PatchParams::default(), Patch::Strategic(patch));
                let patched = match *subresource {
                    "" => api.patch(name, &parameters, &patch).await,
                    other => api.patch_subresource(other, name, &parameters, &patch).await,
                };
                patched.map_err(|error| error.to_string())?;
            }
            Step::Up(container) => {
                let parameters =
                    LogParams { container: Some((*container).into()), follow: true, ..LogParams::default() };
                let said = tokio::time::timeout(limit, async {
                    let mut lines = api.log_stream(name, &parameters).await?.lines();
                    while let Some(line) = lines.try_next().await? {
                        if line == "up" {
                            return Ok(true);
                        }
                    }
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(false)
                });
                match said.await {
                    Ok(Ok(true)) => {}
                    other => return Err(format!("{container} does not say that it is up: {other:?}")),
                }
            }
            Step::Shell(line) => {
                let (cluster, shell) = (cluster.clone(), line.clone());
                let output = tokio::task::spawn_blocking(move || cluster.shell(&shell)).await;
                let output = output.map_err(|error| error.to_string())?;
                if output.contains("[exit ") {
                    return Err(format!("{line}: {output}"));
                }
            }
        }
    }
    let end = api.delete(name, &DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() }).await;
    match end {
        Err(error) if !keelson_client::is_not_found(&error) => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn told(seen: &Seen, name: &str) -> String {
    let events = seen.events.get(name).map(Vec::as_slice).unwrap_or_default();
    seen.pods.get(name).map(|pod| render::events(pod, events)).unwrap_or_default()
}

async fn wait<T>(seen: &watch::Sender<Seen>, limit: Duration, test: impl Fn(&Seen) -> Option<T>) -> Option<T> {
    let mut news = seen.subscribe();
    tokio::time::timeout(limit, async {
        loop {
            let found = test(&news.borrow_and_update());
            if found.is_some() || news.changed().await.is_err() {
                return found;
            }
        }
    })
    .await
    .ok()
    .flatten()
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or_default();
    }
    text.ends_with(end)
}
