//! The task of one pod. It alone decides for its pod: it takes in the API server's word, the runtime's, the probes' and
//! the time, plans, starts the steps, and tells the API server. Steps run beside it, so it always listens.

mod probing;
mod resizing;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use keelson_cri::steps;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::end;
use super::observed::{Observed, State, observe};
use super::plan::{self, Action, Busy, Plan, Probed, SANDBOX_RETRY, Stop};
use super::resize;
use super::start::{self, Start};
use super::status::{self, Ended};
use super::view;
use crate::context::{Context, Latest, PodHandle};
use crate::downward::Addresses;
use crate::error::Error;
use crate::images::Problem;
use crate::probe;
use crate::volumes::{Failed, Mounted};

/// ErrImagePull is shown this long before it becomes ImagePullBackOff.
const SHOW_PULL_ERROR: SignedDuration = SignedDuration::from_secs(3);
/// Wait after a failed start that is not about images.
const START_RETRY: SignedDuration = SignedDuration::from_secs(10);
/// Waits after a failed setup of volumes grow between these.
const SETUP_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(122));
/// Waits after a refused or lost write to the API server, or an unanswered call to the runtime.
const WRITE_RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How long a write to the API server may take.
const WRITE: Duration = Duration::from_secs(30);

/// Between two events that say the network is not ready.
const NETWORK_EVENTS: SignedDuration = SignedDuration::from_secs(10);

/// Events make every other look; one without a cause comes after this many `sync_frequency`.
const RESYNC_FACTOR: u32 = 5;

/// Where the pod is in its life.
#[derive(Clone, Debug)]
enum Stage {
    /// Volumes and cgroup are not there yet.
    Setup,
    /// Its containers are kept as they should be, or ended when it is to end.
    Living(Arc<Mounted>),
    /// Nothing runs; what it used is being taken away (`true`: everything, for it is to vanish).
    Ended,
    /// Everything it used but its logs is gone; it waits to be deleted.
    Released,
    /// Nothing is left but the API object.
    Removed,
    /// The API object is gone, too.
    Gone,
}

/// A finished step.
enum Done {
    Prepared(Result<Mounted, Failed>),
    /// The node has not what the pod needs.
    Refused(Ended),
    Sandbox(Result<String, Error>),
    SandboxStopped(String, Result<(), Error>),
    Removed(String, Result<(), Error>),
    Started(String, Result<(), Problem>),
    Killed(String, Result<(), Error>),
    /// And of which version the object is now.
    Patched(Box<PodStatus>, Result<Option<u64>, kube::Error>),
    TornDown(bool, Result<(), Error>),
    Deleted(Result<(), kube::Error>),
    Resized(Arc<Pod>, Result<(), Error>),
}

/// Failed starts of one container.
struct FailedStart {
    problem: Problem,
    at: Timestamp,
    retry_at: Timestamp,
    /// For image pulls: how long the current wait is.
    backoff: Option<Backoff>,
    /// As the spec named it then.
    image: Option<String>,
    told: bool,
}

pub(crate) struct Worker {
    ctx: Arc<Context>,
    uid: String,
    /// As allocated: with the resources it has been given.
    pod: Arc<Pod>,
    /// As the API server wants it.
    desired: Arc<Pod>,
    resize: resize::Progress,
    resizing: bool,
    resize_at: Option<Timestamp>,
    /// Another pod may have gone.
    judge_again: bool,
    removed: bool,
    mirror: Option<Arc<Pod>>,
    handle: Arc<PodHandle>,
    latest: watch::Receiver<Latest>,
    changed: Arc<Notify>,
    stage: Stage,
    ops: JoinSet<Done>,
    busy: Busy,
    preparing: bool,
    tearing_down: bool,
    deleting: bool,
    patching: bool,
    cancel_starts: CancellationToken,
    observed: Arc<Observed>,
    look: bool,
    looked: bool,
    probes: BTreeMap<String, probing::Prober>,
    probed: BTreeMap<String, Probed>,
    probe_news: (mpsc::Sender<probe::News>, mpsc::Receiver<probe::News>),
    failed: BTreeMap<String, FailedStart>,
    crashes: BTreeMap<String, Backoff>,
    stopped: BTreeSet<String>,
    stop: Option<Stop>,
    ended: Option<Ended>,
    /// An eviction's own grace.
    urgent_grace_seconds: Option<i64>,
    setup_backoff: keelson_client::Backoff,
    write_backoff: keelson_client::Backoff,
    retry_at: Option<Timestamp>,
    setup_at: Option<Timestamp>,
    network_told_at: Option<Timestamp>,
    write_at: Option<Timestamp>,
    refresh: bool,
    status: PodStatus,
    /// The status as the API server has it, as far as it is this kubelet's to say.
    sent: PodStatus,
    /// The newest version of the object that `sent` is of.
    told_at: Option<u64>,
    final_status: bool,
}

impl Worker {
    /// A worker for the pod behind `handle`; with `refused`, one that only says so.
    pub(crate) fn new(ctx: Arc<Context>, handle: Arc<PodHandle>, refused: Option<Ended>) -> Worker {
        let latest = handle.pod.subscribe();
        let Latest { pod, removed, mirror, .. } = latest.borrow().clone();
        let status = pod.status.clone().unwrap_or_default();
        let mirror_status = mirror.as_ref().map(|mirror| mirror.status.clone().unwrap_or_default());
        Worker {
            uid: view::uid(&pod).to_string(),
            desired: pod,
            resize: resize::Progress::default(),
            resizing: false,
            resize_at: None,
            judge_again: false,
            removed,
            mirror,
            latest,
            changed: Arc::default(),
            stage: Stage::Setup,
            ops: JoinSet::new(),
            busy: Busy::default(),
            preparing: false,
            tearing_down: false,
            deleting: false,
            patching: false,
            cancel_starts: CancellationToken::new(),
            observed: Arc::default(),
            look: true,
            looked: false,
            probes: BTreeMap::new(),
            probed: BTreeMap::new(),
            probe_news: mpsc::channel(16),
            failed: BTreeMap::new(),
            crashes: BTreeMap::new(),
            stopped: BTreeSet::new(),
            stop: None,
            ended: refused,
            urgent_grace_seconds: None,
            setup_backoff: keelson_client::Backoff::new(SETUP_RETRY.0, SETUP_RETRY.1).jitter(0.0),
            write_backoff: keelson_client::Backoff::new(WRITE_RETRY.0, WRITE_RETRY.1),
            retry_at: None,
            setup_at: None,
            network_told_at: None,
            write_at: None,
            refresh: false,
            sent: mirror_status.unwrap_or_else(|| status.clone()),
            told_at: None,
            status,
            final_status: false,
            pod: handle.as_allocated(),
            handle,
            ctx,
        }
    }

    /// Runs until the pod is gone, or `shutdown`: then its containers go on.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut health = self.ctx.health.subscribe();
        loop {
            self.look |= self.retry_at.is_some_and(|at| at <= keelson_client::clock::now());
            if self.look {
                self.observe().await;
            }
            let wake_at = if self.looked { self.step() } else { self.retry_at };
            if matches!(self.stage, Stage::Gone) && self.ops.is_empty() {
                return;
            }
            let now = keelson_client::clock::now();
            // The safety net for an event that never came.
            let resync = self.ctx.config.sync_frequency * RESYNC_FACTOR;
            let pause = wake_at.map_or(resync, |at| {
                Duration::try_from(at.duration_since(now)).unwrap_or_default() + Duration::from_millis(1)
            });
            let idle = pause >= resync;
            tokio::select! {
                changed = self.latest.changed() => {
                    if changed.is_ok() {
                        self.take_latest();
                    }
                }
                () = self.handle.look.notified() => (self.look, self.judge_again) = (true, true),
                Some(done) = self.ops.join_next() => match done {
                    Ok(done) => self.take(done),
                    Err(error) => tracing::error!(pod = view::format(&self.pod), %error, "a step of the pod's task failed"),
                },
                Some(news) = self.probe_news.1.recv() => self.take_probe(news),
                () = self.changed.notified() => self.refresh = true,
                _ = health.changed() => {}
                () = tokio::time::sleep(pause.min(resync)) => self.look |= idle,
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn take_latest(&mut self) {
        let latest = self.latest.borrow_and_update().clone();
        if let Some(evicted) = latest.evicted.as_ref().filter(|_| !self.final_status) {
            self.ended.get_or_insert_with(|| evicted.ended.clone());
            let (before, now) = (self.urgent_grace_seconds, evicted.grace_seconds);
            self.urgent_grace_seconds = Some(before.map_or(now, |before| before.min(now)));
        }
        let labels_changed = latest.pod.metadata.labels != self.pod.metadata.labels
            || latest.pod.metadata.annotations != self.pod.metadata.annotations;
        self.refresh |= labels_changed && !latest.removed;
        let mirror_of = |mirror: &Option<Arc<Pod>>| mirror.as_deref().map(|mirror| view::uid(mirror).to_string());
        if mirror_of(&latest.mirror) != mirror_of(&self.mirror) {
            // What a new mirror says counts as said.
            self.sent = latest.mirror.as_ref().and_then(|mirror| mirror.status.clone()).unwrap_or_default();
            self.told_at = None;
        }
        self.mirror = latest.mirror;
        if !resize::is_same(&latest.pod, &self.desired) {
            self.resize_at = None;
        }
        self.pod = resize::with_resources_of(&latest.pod, &self.pod);
        // Another image does not wait for what was wrong with the one before.
        let pod = &self.pod;
        self.failed.retain(|name, failed| {
            view::find_container(pod, name).is_none_or(|container| container.image == failed.image)
        });
        self.desired = latest.pod;
        self.removed |= latest.removed;
        self.reconcile();
    }

    async fn observe(&mut self) {
        match observe(&self.ctx.runtime, &self.uid, &self.observed).await {
            Ok(observed) => {
                self.look = false;
                self.looked = true;
                self.retry_at = None;
                self.observed = Arc::new(observed);
                self.handle.observed.send_replace(self.observed.clone());
                self.keep_probes();
            }
            Err(error) => {
                tracing::debug!(pod = view::format(&self.pod), %error, "the runtime does not tell about the pod");
                self.ctx.check_health.notify_one();
                self.look = false;
                self.retry_at = Some(after(keelson_client::clock::now(), Duration::from_secs(1)));
            }
        }
    }

    /// One round of deciding. Gives when to do it again.
    fn step(&mut self) -> Option<Timestamp> {
        let now = keelson_client::clock::now();
        let mut wake = Wake(self.retry_at);
        self.judge_end(now, &mut wake);
        let over = self.stop.is_some() || plan::outcome(&self.pod, &self.observed).is_some();
        match self.stage.clone() {
            Stage::Setup if over => {
                if !self.preparing {
                    self.stage = Stage::Living(Arc::default());
                    return Some(now);
                }
            }
            Stage::Setup => self.set_up(now, &mut wake),
            Stage::Living(mounted) => {
                self.live(&mounted, now, &mut wake);
                if !over {
                    self.resize(now, &mut wake);
                    self.keep_fresh(&mounted, now, &mut wake);
                }
            }
            Stage::Ended | Stage::Gone => {}
            Stage::Released | Stage::Removed => self.leave(now, &mut wake),
        }
        self.tell(now, &mut wake);
        wake.0
    }

    /// Whether the pod is to end for a reason of its own or of the API server's.
    fn judge_end(&mut self, now: Timestamp, wake: &mut Wake) {
        if self.ended.is_none()
            && let Some(limit) = view::spec(&self.pod).and_then(|spec| spec.active_deadline_seconds)
            && let Some(started) = &self.status.start_time
            && plan::outcome(&self.pod, &self.observed).is_none()
        {
            let at = started.0.saturating_add(SignedDuration::from_secs(limit)).unwrap_or(Timestamp::MAX);
            if at <= now {
                let message = "Pod was active on the node longer than the specified deadline".to_string();
                self.ctx.events.normal(
                    &keelson_client::reference(self.pod.as_ref()),
                    "DeadlineExceeded",
                    message.clone(),
                );
                self.ended =
                    Some(Ended { reason: "DeadlineExceeded".into(), message, rejected: false, disrupted: false });
            } else {
                wake.at(at);
            }
        }
        if self.removed || self.pod.metadata.deletion_timestamp.is_some() || self.ended.is_some() {
            let grace = match self.urgent_grace_seconds {
                None => view::grace_seconds(&self.pod),
                Some(urgent) if self.pod.metadata.deletion_timestamp.is_none() => urgent,
                Some(urgent) => urgent.min(view::grace_seconds(&self.pod)),
            };
            let deadline = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
            match &mut self.stop {
                Some(stop) => stop.deadline = stop.deadline.min(deadline),
                None => {
                    self.stop = Some(Stop { deadline });
                    self.cancel_starts.cancel();
                }
            }
        }
    }

    fn set_up(&mut self, now: Timestamp, wake: &mut Wake) {
        if self.preparing {
            return;
        }
        if let Some(at) = self.setup_at.filter(|at| *at > now) {
            return wake.at(at);
        }
        let health = self.ctx.health.borrow().clone();
        if let (Some(error), false) = (&health.network_error, view::host_network(&self.pod)) {
            // Woken by the change of health.
            // Told now and then, not with every change of the pod.
            let due = self.network_told_at.is_none_or(|told| now.duration_since(told) >= NETWORK_EVENTS);
            if due {
                self.network_told_at = Some(now);
                let message = format!("network is not ready: container runtime network not ready: {error}");
                self.ctx.events.warning(&keelson_client::reference(self.pod.as_ref()), "NetworkNotReady", message);
            }
            return;
        }
        self.prepare();
    }

    fn prepare(&mut self) {
        self.preparing = true;
        let ctx = self.ctx.clone();
        let pod = self.pod.clone();
        let (changed, cancelled) = (self.changed.clone(), self.cancel_starts.clone());
        let ips = self.observed.sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
        let fresh = self.observed.containers.is_empty();
        self.ops.spawn(async move {
            match ctx.managers.admit(&pod).await {
                Err(refused) if fresh => {
                    ctx.managers.release(view::uid(&pod)).await;
                    return Done::Refused(refused);
                }
                // A pod that runs has had what it needs.
                Err(refused) => tracing::warn!(pod = view::format(&pod), why = refused.message, "its share is unknown"),
                Ok(()) => {}
            }
            let made = {
                let (ctx, pod) = (ctx.clone(), pod.clone());
                tokio::task::spawn_blocking(move || start::prepare(&ctx, &pod)).await
            };
            let failed = |error| Failed { volume: String::new(), error };
            match made {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Done::Prepared(Err(failed(error))),
                Err(error) => return Done::Prepared(Err(failed(Error::message(error.to_string())))),
            }
            let addresses = start::addresses(&ctx, &pod, &ips);
            let mounted = ctx.volumes.set_up(&pod, &addresses, &ctx.allocatable, &changed, &cancelled).await;
            steps::reached("kubelet-mounted");
            Done::Prepared(mounted)
        });
    }

    /// Brings volumes up to date when something behind them changed or a token is due.
    fn keep_fresh(&mut self, mounted: &Mounted, now: Timestamp, wake: &mut Wake) {
        if self.preparing {
            return;
        }
        if let Some(at) = self.setup_at.filter(|at| *at > now) {
            return wake.at(at);
        }
        let due = mounted.refresh_at.is_some_and(|at| at <= now);
        if due || self.refresh {
            self.refresh = false;
            self.prepare();
        } else if let Some(at) = mounted.refresh_at {
            wake.at(at);
        }
    }

    fn live(&mut self, mounted: &Arc<Mounted>, now: Timestamp, wake: &mut Wake) {
        let retry_at: BTreeMap<String, Timestamp> =
            self.failed.iter().map(|(name, failed)| (name.clone(), failed.retry_at)).collect();
        let Plan { actions, wake_at, stopped } = plan::plan(&plan::Input {
            pod: &self.pod,
            observed: &self.observed,
            busy: &self.busy,
            probed: &self.probed,
            retry_at: &retry_at,
            crashes: &self.crashes,
            stopped: &self.stopped,
            max_backoff: self.ctx.config.max_container_restart_period,
            stop: self.stop.as_ref(),
            now,
        });
        wake.maybe(wake_at);
        for action in actions {
            self.carry_out(action, mounted, now);
        }
        // What is under way would make again what is taken away.
        if stopped && !self.preparing && !self.resizing {
            self.probes.clear();
            let going = self.removed || self.pod.metadata.deletion_timestamp.is_some();
            // What is told from now on is how it ended.
            self.compute_status(now, true);
            self.final_status = true;
            self.stage = Stage::Ended;
            self.tear_down(going);
        }
    }

    fn tear_down(&mut self, all: bool) {
        if self.tearing_down {
            return;
        }
        self.tearing_down = true;
        let (ctx, pod, observed) = (self.ctx.clone(), self.pod.clone(), self.observed.clone());
        self.ops.spawn(async move { Done::TornDown(all, start::tear_down(&ctx, &pod, &observed, all).await) });
    }

    /// The way out: everything removed, then the API object.
    fn leave(&mut self, now: Timestamp, wake: &mut Wake) {
        let going = self.removed || self.pod.metadata.deletion_timestamp.is_some();
        if !going {
            return;
        }
        if let Some(at) = self.write_at.filter(|at| *at > now) {
            return wake.at(at);
        }
        if matches!(self.stage, Stage::Released) {
            return self.tear_down(true);
        }
        if self.removed {
            self.stage = Stage::Gone;
            return;
        }
        // The final status first, so that watchers see how it ended.
        if self.deleting || self.patching || self.news().is_some() {
            return;
        }
        self.deleting = true;
        let api = self.api();
        let name = view::name(&self.pod).to_string();
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..Default::default()
        };
        self.ops.spawn(async move {
            steps::reached("kubelet-deleting");
            let deleted = keelson_client::within(WRITE, api.delete(&name, &parameters)).await;
            steps::reached("kubelet-deleted");
            Done::Deleted(deleted.map(drop))
        });
    }

    /// What the API server is to be told: for a static pod, of its mirror.
    fn news(&self) -> Option<serde_json::Value> {
        let uid = match &self.mirror {
            Some(mirror) => view::uid(mirror),
            None if view::is_static(&self.pod) => return None,
            None => &self.uid,
        };
        status::patch(uid, &self.sent, &self.status)
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.ctx.client.clone(), view::namespace(&self.pod))
    }

    fn carry_out(&mut self, action: Action, mounted: &Arc<Mounted>, now: Timestamp) {
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        match action {
            Action::CreateSandbox { attempt, stop_first } => {
                self.busy.sandbox = true;
                self.ops
                    .spawn(async move { Done::Sandbox(start::create_sandbox(&ctx, &pod, attempt, &stop_first).await) });
            }
            Action::StopSandbox { id } => {
                self.busy.sandbox = true;
                self.ops.spawn(async move {
                    let result = ctx.runtime.stop_pod_sandbox(&id).await;
                    Done::SandboxStopped(id, result)
                });
            }
            Action::RemoveSandbox { id } => {
                self.busy.removing.insert(id.clone());
                self.ops.spawn(async move {
                    let result = ctx.runtime.remove_pod_sandbox(&id).await;
                    Done::Removed(id, result)
                });
            }
            Action::Remove { id } => {
                let Some(record) = self.observed.containers.iter().find(|record| record.id == id).cloned() else {
                    return;
                };
                self.busy.removing.insert(id.clone());
                self.ops.spawn(async move {
                    let result = start::remove_container(&ctx, &pod, &id, &record.name, &record.log_path).await;
                    Done::Removed(id, result)
                });
            }
            Action::Start { name, restart_count, replaces } => {
                self.note_crash(&name, now);
                self.busy.starting.insert(name.clone());
                let order = Start {
                    pod,
                    observed: self.observed.clone(),
                    mounted: mounted.clone(),
                    name: name.clone(),
                    restart_count,
                    replaces,
                    cancelled: self.cancel_starts.clone(),
                };
                self.ops.spawn(async move { Done::Started(name, Box::pin(start::start(&ctx, &order)).await) });
            }
            Action::Kill { id, name, grace_seconds, why, after } => {
                let grace = SignedDuration::from_secs(grace_seconds);
                self.busy.killing.insert(id.clone(), now.saturating_add(grace).unwrap_or(now));
                if let Some(prober) = self.probes.get(&id) {
                    prober.ending.cancel();
                }
                let ip = self.pod_ip();
                let grace = Duration::from_secs(grace_seconds.max(0) as u64);
                let turn = end::Turn { after, observed: self.handle.observed.subscribe() };
                self.ops.spawn(async move {
                    let result = end::end(&ctx, &pod, &id, &name, grace, &why, &ip, Some(turn)).await;
                    Done::Killed(id, result)
                });
            }
        }
    }

    /// A start after an end that the container brought on itself makes the next wait longer.
    fn note_crash(&mut self, name: &str, now: Timestamp) {
        let Some(record) = self.observed.newest(name) else { return };
        let changed = view::find_container(&self.pod, name)
            .is_some_and(|container| plan::container_hash(&container) != record.hash);
        if let (State::Exited, Some(finished), false) = (record.state, record.finished_at, changed) {
            let limit = self.ctx.config.max_container_restart_period;
            let next = Backoff::next(self.crashes.get(name).copied(), finished, now, limit);
            self.crashes.insert(name.to_string(), next);
        }
    }

    fn pod_ip(&self) -> String {
        let ips = self.observed.sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
        let Addresses { pod_ips, .. } = start::addresses(&self.ctx, &self.pod, &ips);
        pod_ips.into_iter().next().unwrap_or_default()
    }

    fn take(&mut self, done: Done) {
        let now = keelson_client::clock::now();
        match done {
            Done::Prepared(result) => {
                self.preparing = false;
                match result {
                    Ok(mounted) => {
                        self.setup_at = None;
                        self.setup_backoff.reset();
                        if matches!(self.stage, Stage::Setup | Stage::Living(_)) {
                            self.stage = Stage::Living(Arc::new(mounted));
                        }
                    }
                    Err(failed) => {
                        self.setup_at = Some(after(now, self.setup_backoff.next_delay()));
                        self.refresh = true;
                        let message = if failed.volume.is_empty() {
                            format!("error preparing the pod: {}", failed.error)
                        } else {
                            format!("MountVolume.SetUp failed for volume {:?} : {}", failed.volume, failed.error)
                        };
                        let about = keelson_client::reference(self.pod.as_ref());
                        self.ctx.events.warning(&about, "FailedMount", message);
                    }
                }
            }
            Done::Refused(refused) => {
                self.preparing = false;
                let about = keelson_client::reference(self.pod.as_ref());
                self.ctx.events.warning(&about, &refused.reason, refused.message.clone());
                self.ended.get_or_insert(refused.in_status());
            }
            Done::Sandbox(result) => {
                self.busy.sandbox = false;
                self.look = true;
                match result {
                    Ok(_) => drop(self.failed.remove(SANDBOX_RETRY)),
                    Err(error) => {
                        tracing::warn!(pod = view::format(&self.pod), %error, "no sandbox");
                        let problem = Problem::new("FailedCreatePodSandBox", error.to_string());
                        let before = self.failed.get(SANDBOX_RETRY).and_then(|failed| failed.backoff);
                        let wait = Backoff::next(before, now, now, Duration::from_secs(60));
                        // The first tries are quick: what is missing at a node's start comes soon.
                        let delay = if before.is_none() { Duration::from_secs(1) } else { wait.delay };
                        let retry_at = after(now, delay);
                        let failed =
                            FailedStart { problem, at: now, retry_at, backoff: Some(wait), image: None, told: true };
                        self.failed.insert(SANDBOX_RETRY.into(), failed);
                    }
                }
            }
            Done::SandboxStopped(id, result) => {
                self.busy.sandbox = false;
                self.look = true;
                match result {
                    Ok(()) => drop(self.stopped.insert(id)),
                    Err(error) => self.runtime_failed("StopPodSandbox", &error, now),
                }
            }
            Done::Removed(id, result) => {
                self.busy.removing.remove(&id);
                self.look = true;
                if let Err(error) = result {
                    self.runtime_failed("Remove", &error, now);
                }
            }
            Done::Started(name, result) => {
                self.busy.starting.remove(&name);
                self.look = true;
                match result {
                    Ok(()) => drop(self.failed.remove(&name)),
                    Err(_) if self.stop.is_some() => {}
                    Err(problem) => self.start_failed(name, problem, now),
                }
            }
            Done::Killed(id, result) => {
                self.busy.killing.remove(&id);
                self.look = true;
                if let Err(error) = result {
                    self.runtime_failed("StopContainer", &error, now);
                }
            }
            Done::Patched(status, result) => {
                self.patching = false;
                match result {
                    Ok(version) => {
                        self.sent = *status;
                        self.told_at = self.told_at.max(version);
                        self.write_at = None;
                        self.write_backoff.reset();
                        self.reconcile();
                    }
                    Err(error) => self.write_failed("status", error, now),
                }
            }
            Done::TornDown(all, result) => {
                self.tearing_down = false;
                if result.is_ok() {
                    self.handle.released.send_replace(true);
                }
                match result {
                    Ok(()) if all => self.stage = Stage::Removed,
                    Ok(()) => self.stage = Stage::Released,
                    Err(error) => {
                        tracing::warn!(pod = view::format(&self.pod), %error, "cannot take the pod away yet");
                        self.write_at = Some(after(now, self.write_backoff.next_delay()));
                        self.stage = Stage::Released;
                        if !all {
                            // Tried again like the whole life's end.
                            self.stage = Stage::Living(Arc::default());
                            self.retry_at = self.write_at;
                        }
                    }
                }
            }
            Done::Resized(wanted, result) => self.resized(&wanted, result, now),
            Done::Deleted(result) => {
                self.deleting = false;
                match result {
                    Ok(()) => self.removed = true,
                    Err(error) => self.write_failed("deletion", error, now),
                }
            }
        }
    }

    fn runtime_failed(&mut self, call: &str, error: &Error, now: Timestamp) {
        tracing::warn!(pod = view::format(&self.pod), call, %error, "the runtime refused");
        self.look = false;
        self.retry_at = Some(after(now, self.write_backoff.next_delay()));
        self.ctx.check_health.notify_one();
    }

    fn write_failed(&mut self, what: &str, error: kube::Error, now: Timestamp) {
        if view::is_static(&self.pod) {
            // Another mirror comes.
            if keelson_client::is_not_found(&error) || keelson_client::is_conflict(&error) {
                self.mirror = None;
                return;
            }
        } else if keelson_client::is_not_found(&error) || (what == "deletion" && keelson_client::is_conflict(&error)) {
            // Gone, or another pod of the same name: either way this one is no more.
            self.removed = true;
            return;
        }
        tracing::warn!(pod = view::format(&self.pod), what, %error, "the API server refused a write");
        self.write_at = Some(after(now, self.write_backoff.next_delay()));
    }

    fn start_failed(&mut self, name: String, problem: Problem, now: Timestamp) {
        let before = self.failed.get(&name).and_then(|failed| failed.backoff);
        let pull = matches!(&*problem.reason, "ErrImagePull" | "RegistryUnavailable" | "SignatureValidationFailed");
        let backoff = pull.then(|| Backoff::next(before, now, now, Duration::from_secs(300)));
        let retry_at = match (&backoff, problem.reason.as_str()) {
            (Some(backoff), _) => after(now, backoff.delay),
            // There is a dead container now, whose own back-off counts.
            (None, "RunContainerError" | "PostStartHookError") => now,
            (None, _) => now.saturating_add(START_RETRY).unwrap_or(now),
        };
        let image = view::find_container(&self.pod, &name).and_then(|container| container.image);
        self.failed.insert(name, FailedStart { problem, at: now, retry_at, backoff, image, told: false });
    }
}

fn after(now: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay).ok().and_then(|delay| now.saturating_add(delay).ok()).unwrap_or(now)
}

/// The earliest of several moments.
struct Wake(Option<Timestamp>);

impl Wake {
    fn at(&mut self, at: Timestamp) {
        self.0 = Some(self.0.map_or(at, |earlier| earlier.min(at)));
    }

    fn maybe(&mut self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.at(at);
        }
    }
}
