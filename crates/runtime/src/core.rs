//! The runtime's shared state: sandboxes, containers, images, and the means to act on them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use keelson_cri::{
    steps,
    v1::{ContainerEventResponse, ContainerEventType},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, broadcast, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error,
    cni::Cni,
    disk,
    handlers::Features,
    image::Store,
    machine,
    oci::Machine,
    records::{self, ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord},
    shim::{self, EXIT_FILE, Exit, protocol::container_dir},
    streaming::Streaming,
    witness::Witness,
};

/// Turns at once for each core, and how long one lasts.
const TURNS_PER_CORE: usize = 3;
const LONGEST_TURN: Duration = Duration::from_secs(10);
/// How long a walk through a container's writable layer is good for.
const DISK_USAGE_LIFE: Duration = Duration::from_secs(10);
/// Container events a slow listener may lag behind.
const EVENT_BACKLOG: usize = 1024;

/// Everything the services share.
pub(crate) struct Core {
    pub config: Config,
    /// What shims are started from.
    pub shim_exe: PathBuf,
    pub images: Arc<Store>,
    pub cni: Cni,
    pub machine: Machine,
    /// What the configured OCI runtimes say that they can do.
    pub handlers: BTreeMap<String, Features>,
    pub shutdown: CancellationToken,
    pub events: broadcast::Sender<ContainerEventResponse>,
    pub streaming: Streaming,
    /// Turns at what takes processor time and the kernel's mount lock. Many starts at once would only keep each other from
    /// getting done.
    turns: Semaphore,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    sandboxes: HashMap<String, Arc<Sandbox>>,
    containers: HashMap<String, Arc<Container>>,
}

/// A pod sandbox.
pub(crate) struct Sandbox {
    pub id: String,
    /// Its directory under the root: survives reboots.
    pub root: PathBuf,
    /// Its directory under the state: does not.
    pub state: PathBuf,
    record: Mutex<SandboxRecord>,
    /// Held by whoever changes the sandbox.
    pub changing: tokio::sync::Mutex<()>,
    /// Cancelled when its shim is no longer to be kept alive.
    pub stopped: CancellationToken,
    /// The task that keeps it alive.
    pub supervisor: Mutex<Option<JoinHandle<()>>>,
}

/// A container.
pub(crate) struct Container {
    pub id: String,
    pub root: PathBuf,
    /// Its bundle, inside its sandbox's state directory.
    pub bundle: PathBuf,
    pub sandbox: Arc<Sandbox>,
    record: Mutex<ContainerRecord>,
    pub changing: tokio::sync::Mutex<()>,
    /// True once it has ended.
    pub ended: watch::Sender<bool>,
    /// Told when a new shim has said what became of it.
    pub settled: Notify,
    pub witness: Mutex<Option<Witness>>,
    /// What its writable layer was found to take, and when.
    disk_usage: tokio::sync::Mutex<Option<(Instant, (u64, u64))>>,
}

impl Core {
    pub(crate) fn new(config: Config, images: Arc<Store>, shim_exe: PathBuf, shutdown: CancellationToken) -> Self {
        Self {
            cni: Cni::new(config.cni_conf_dir.clone(), config.cni_bin_dir.clone()),
            machine: machine::inspect(),
            handlers: config.handlers.iter().map(|(name, handler)| (name.clone(), handler.features())).collect(),
            images,
            shim_exe,
            config,
            shutdown,
            events: broadcast::channel(EVENT_BACKLOG).0,
            streaming: Streaming::default(),
            turns: Semaphore::new(TURNS_PER_CORE * std::thread::available_parallelism().map_or(1, |cores| cores.get())),
            tables: Mutex::new(Tables::default()),
        }
    }

    /// Waits for a turn, does `work`, and gives the turn back when it is done or has taken too long: what hangs is not to
    /// keep others waiting.
    pub(crate) async fn in_turn<T>(&self, work: impl Future<Output = T>) -> T {
        let turn = self.turns.acquire().await.ok();
        tokio::pin!(work);
        if let Ok(done) = tokio::time::timeout(LONGEST_TURN, work.as_mut()).await {
            return done;
        }
        drop(turn);
        work.await
    }

    pub(crate) fn sandbox_root(&self, id: &str) -> PathBuf {
        self.config.root.join("sandboxes").join(id)
    }

    pub(crate) fn sandbox_state(&self, id: &str) -> PathBuf {
        self.config.state.join("sandboxes").join(id)
    }

    pub(crate) fn container_root(&self, id: &str) -> PathBuf {
        self.config.root.join("containers").join(id)
    }

    /// The sandbox with this ID, or the only one whose ID starts so.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        find(&self.tables.lock().sandboxes, id).ok_or_else(|| Error::NotFound("sandbox", id.into()))
    }

    /// The container with this ID, or the only one whose ID starts so.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        find(&self.tables.lock().containers, id).ok_or_else(|| Error::NotFound("container", id.into()))
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.tables.lock().sandboxes.values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.tables.lock().containers.values().cloned().collect()
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.tables.lock().containers.values().filter(|container| container.sandbox.id == sandbox).cloned().collect()
    }

    /// Layers that containers stand on.
    pub(crate) fn layers_in_use(&self) -> HashSet<String> {
        self.containers().iter().flat_map(|container| container.with(|record| record.layers.clone())).collect()
    }

    /// Adds a sandbox unless its pod has one with the same attempt already.
    pub(crate) fn add_sandbox(&self, record: SandboxRecord) -> Result<Arc<Sandbox>, Error> {
        let mut tables = self.tables.lock();
        let metadata = record.config.as_ref().and_then(|config| config.metadata.clone());
        let same = |other: &&Arc<Sandbox>| other.with(|other| other.config.as_ref()?.metadata.clone()) == metadata;
        if let Some(other) = tables.sandboxes.values().find(same).filter(|_| metadata.is_some()) {
            let name =
                metadata.map(|m| format!("{}_{}_{}_{}", m.name, m.namespace, m.uid, m.attempt)).unwrap_or_default();
            return Err(Error::Other(format!(
                "failed to reserve sandbox name {name:?}: name {name:?} is reserved for {:?}",
                other.id
            )));
        }
        let sandbox = Arc::new(Sandbox {
            root: self.sandbox_root(&record.id),
            state: self.sandbox_state(&record.id),
            id: record.id.clone(),
            record: Mutex::new(record),
            changing: tokio::sync::Mutex::new(()),
            stopped: self.shutdown.child_token(),
            supervisor: Mutex::new(None),
        });
        tables.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        Ok(sandbox)
    }

    /// Adds a container unless its sandbox has one with the same name and attempt already.
    pub(crate) fn add_container(
        &self,
        sandbox: &Arc<Sandbox>,
        record: ContainerRecord,
    ) -> Result<Arc<Container>, Error> {
        let mut tables = self.tables.lock();
        let metadata = record.config.as_ref().and_then(|config| config.metadata.clone());
        let same = |other: &&Arc<Container>| {
            other.sandbox.id == sandbox.id && other.with(|other| other.config.as_ref()?.metadata.clone()) == metadata
        };
        if let Some(other) = tables.containers.values().find(same).filter(|_| metadata.is_some()) {
            let name = metadata.map(|m| format!("{}_{}", m.name, m.attempt)).unwrap_or_default();
            return Err(Error::Other(format!(
                "failed to reserve container name {name:?}: name {name:?} is reserved for {:?}",
                other.id
            )));
        }
        let ended = record.phase() == ContainerPhase::Exited;
        let container = Arc::new(Container {
            root: self.container_root(&record.id),
            bundle: container_dir(&sandbox.state, &record.id),
            sandbox: sandbox.clone(),
            id: record.id.clone(),
            record: Mutex::new(record),
            changing: tokio::sync::Mutex::new(()),
            ended: watch::channel(ended).0,
            settled: Notify::new(),
            witness: Mutex::new(None),
            disk_usage: tokio::sync::Mutex::new(None),
        });
        tables.containers.insert(container.id.clone(), container.clone());
        Ok(container)
    }

    pub(crate) fn forget_sandbox(&self, id: &str) {
        self.tables.lock().sandboxes.remove(id);
    }

    pub(crate) fn forget_container(&self, id: &str) {
        self.tables.lock().containers.remove(id);
    }

    /// Tells listeners what happened to `id` (a container, or the sandbox itself).
    pub(crate) fn emit(&self, kind: ContainerEventType, id: &str, sandbox: &Sandbox) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let statuses = self.containers_of(&sandbox.id).iter().map(|container| container.status(self)).collect();
        // No listener is fine.
        let _ = self.events.send(ContainerEventResponse {
            container_id: id.into(),
            container_event_type: kind as i32,
            created_at: now_ns(),
            pod_sandbox_status: Some(sandbox.status()),
            containers_statuses: statuses,
        });
    }

    /// Notes that a container has ended. The first word counts.
    pub(crate) fn container_ended(&self, container: &Container, exit: &Exit) {
        steps::reached("exit-heard");
        let changed = container.update(|record| {
            if record.phase() == ContainerPhase::Exited {
                return false;
            }
            record.set_phase(ContainerPhase::Exited);
            record.exit_code = exit.code;
            record.finished_at = exit.finished_at_ns;
            // One that never started has its reason already.
            if record.reason.is_empty() {
                record.reason = match exit {
                    Exit { oom_killed: true, .. } => "OOMKilled",
                    Exit { unknown: true, .. } => "Unknown",
                    Exit { code: 0, .. } => "Completed",
                    _ => "Error",
                }
                .into();
            }
            true
        });
        if changed {
            steps::reached("exit-recorded");
            container.witness.lock().take();
            container.ended.send_replace(true);
            self.emit(ContainerEventType::ContainerStoppedEvent, &container.id, &container.sandbox);
        }
    }
}

impl Sandbox {
    pub(crate) fn with<T>(&self, read: impl FnOnce(&SandboxRecord) -> T) -> T {
        read(&self.record.lock())
    }

    /// Changes the record, in memory and on disk.
    pub(crate) fn update(&self, change: impl FnOnce(&mut SandboxRecord)) -> Result<(), Error> {
        let mut record = self.record.lock();
        change(&mut record);
        records::save(&self.root, &*record)
    }

    /// Writes the record so that it survives a power cut.
    pub(crate) async fn save_synced(&self) -> Result<(), Error> {
        let (root, record) = (self.root.clone(), self.record.lock().clone());
        let save = tokio::task::spawn_blocking(move || records::save_synced(&root, &record));
        save.await.map_err(|error| Error::Other(error.to_string()))?
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.with(|record| record.phase() == SandboxPhase::Ready)
    }

    pub(crate) fn config(&self) -> keelson_cri::v1::PodSandboxConfig {
        self.with(|record| record.config.clone()).unwrap_or_default()
    }

    /// Directory of its pinned namespaces.
    pub(crate) fn namespaces(&self) -> PathBuf {
        self.state.join("ns")
    }

    /// Its network namespace, unless it uses the node's.
    pub(crate) fn netns(&self) -> Option<PathBuf> {
        Some(self.namespaces().join("net")).filter(|path| path.exists())
    }
}

impl Container {
    pub(crate) fn with<T>(&self, read: impl FnOnce(&ContainerRecord) -> T) -> T {
        read(&self.record.lock())
    }

    /// Changes the record in memory and, if `change` says so, on disk. What cannot be written is rebuilt after a restart
    /// from the exit file and the shim.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ContainerRecord) -> bool) -> bool {
        let mut record = self.record.lock();
        let changed = change(&mut record);
        if changed && let Err(error) = records::save(&self.root, &*record) {
            tracing::warn!(container = %self.id, %error, "a container's record could not be written");
        }
        changed
    }

    pub(crate) fn phase(&self) -> ContainerPhase {
        self.with(ContainerRecord::phase)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.phase() == ContainerPhase::Running
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// How its shim said that it ended, if it did.
    pub(crate) fn recorded_exit(&self) -> Option<Exit> {
        let read = |dir: &Path| shim::read_json::<Exit>(&dir.join(EXIT_FILE)).ok().flatten();
        read(&self.root).or_else(|| read(&self.bundle))
    }

    /// Bytes and inodes of its writable layer, as they were a moment ago.
    pub(crate) async fn disk_usage(&self) -> (u64, u64) {
        let mut known = self.disk_usage.lock().await;
        if let Some((when, usage)) = *known
            && when.elapsed() < DISK_USAGE_LIFE
        {
            return usage;
        }
        let upper = self.root.join("upper");
        let walk = tokio::task::spawn_blocking(move || disk::disk_usage(&upper));
        let usage = walk.await.unwrap_or_default();
        *known = Some((Instant::now(), usage));
        usage
    }

    pub(crate) fn cgroup(&self) -> PathBuf {
        self.with(|record| PathBuf::from(&record.cgroup))
    }

    /// Waits until it has ended, at most `limit`; whether it has.
    pub(crate) async fn wait_ended(&self, limit: Duration) -> bool {
        let mut ended = self.ended.subscribe();
        let outcome = tokio::time::timeout(limit, ended.wait_for(|ended| *ended)).await;
        matches!(outcome, Ok(Ok(_)))
    }
}

fn find<T>(table: &HashMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(found) = table.get(id) {
        return Some(found.clone());
    }
    let mut matches = table.iter().filter(|(key, _)| !id.is_empty() && key.starts_with(id));
    match (matches.next(), matches.next()) {
        (Some((_, found)), None) => Some(found.clone()),
        _ => None,
    }
}

/// A new ID for a sandbox or container: 64 hexadecimal digits.
pub(crate) fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// Nanoseconds since the epoch.
pub(crate) fn now_ns() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}

/// The path below every cgroup hierarchy for `id` in a pod's parent group.
pub(crate) fn cgroup_path(parent: &str, id: &str) -> PathBuf {
    let parent = if parent.is_empty() { "/keelson" } else { parent };
    Path::new("/").join(parent).join(id)
}
