//! What the runtime says about one pod, newest first, and how it is asked cheaply: statuses are fetched only for what
//! changed since the last look.

use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::LinuxContainerUser;
use keelson_cri::v1 as cri;

use crate::error::Error;
use crate::logs;
use crate::runtime::{Runtime, labels};

/// Longest termination message read from its file, bytes.
const MAX_MESSAGE_BYTES: usize = 4096;
/// With `FallbackToLogsOnError`: the log's end, lines and bytes.
const MAX_LOG_LINES: usize = 80;
const MAX_LOG_BYTES: usize = 2048;

/// A pod as the runtime has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Newest first.
    pub sandboxes: Vec<SandboxRecord>,
    /// Newest first.
    pub containers: Vec<ContainerRecord>,
}

/// A sandbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct SandboxRecord {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at_ns: i64,
    /// Empty on the node's network.
    pub ips: Vec<String>,
}

/// CRI's container states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Exited,
    #[default]
    Unknown,
}

/// A container.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerRecord {
    pub id: String,
    pub name: String,
    /// How often the container of this name had been started before.
    pub restart_count: u32,
    pub sandbox_id: String,
    pub state: State,
    pub created_at_ns: i64,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    /// The runtime's message, or the container's own termination message.
    pub message: String,
    pub image: String,
    pub image_id: String,
    /// Of the spec it was made from.
    pub hash: String,
    pub log_path: String,
    /// The pod's termination grace when it was made, seconds.
    pub grace_seconds: Option<u64>,
    /// Whom its first process began as.
    pub user: Option<LinuxContainerUser>,
}

impl Observed {
    /// The sandbox that runs, if one does.
    pub(crate) fn sandbox(&self) -> Option<&SandboxRecord> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// Records of the containers of this name, newest first.
    pub(crate) fn named<'a, 'b>(&'a self, name: &'b str) -> impl Iterator<Item = &'a ContainerRecord> + use<'a, 'b> {
        self.containers.iter().filter(move |container| container.name == name)
    }

    /// The newest container of this name.
    pub(crate) fn newest(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The next sandbox's attempt.
    pub(crate) fn next_attempt(&self) -> u32 {
        self.sandboxes.iter().map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0)
    }
}

fn state(state: i32) -> State {
    match cri::ContainerState::try_from(state) {
        Ok(cri::ContainerState::ContainerCreated) => State::Created,
        Ok(cri::ContainerState::ContainerRunning) => State::Running,
        Ok(cri::ContainerState::ContainerExited) => State::Exited,
        _ => State::Unknown,
    }
}

fn time(ns: i64) -> Option<Timestamp> {
    if ns <= 0 { None } else { Timestamp::from_nanosecond(ns.into()).ok() }
}

/// Asks the runtime about pod `uid`.
pub(crate) async fn observe(runtime: &Runtime, uid: &str, before: &Observed) -> Result<Observed, Error> {
    let (sandboxes, containers) =
        tokio::try_join!(runtime.list_sandboxes(Some(uid)), runtime.list_containers(Some(uid)))?;
    let mut observed = Observed::default();
    for sandbox in sandboxes {
        let ready = sandbox.state == cri::PodSandboxState::SandboxReady as i32;
        let known = before.sandboxes.iter().find(|known| known.id == sandbox.id && known.ready == ready);
        if let Some(known) = known {
            observed.sandboxes.push(known.clone());
            continue;
        }
        let mut ips = Vec::new();
        if ready {
            let Some(status) = runtime.sandbox_status(&sandbox.id).await? else { continue };
            if let Some(network) = status.network {
                ips.push(network.ip);
                ips.extend(network.additional_ips.into_iter().map(|ip| ip.ip));
                ips.retain(|ip| !ip.is_empty());
            }
        } else if let Some(known) = before.sandboxes.iter().find(|known| known.id == sandbox.id) {
            ips = known.ips.clone();
        }
        observed.sandboxes.push(SandboxRecord {
            id: sandbox.id,
            attempt: sandbox.metadata.map(|metadata| metadata.attempt).unwrap_or(0),
            ready,
            created_at_ns: sandbox.created_at,
            ips,
        });
    }
    observed.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_at_ns)));
    for container in containers {
        let known = before.containers.iter().find(|known| {
            known.id == container.id
                && known.state == state(container.state)
                && matches!(known.state, State::Running | State::Exited)
        });
        if let Some(known) = known {
            observed.containers.push(known.clone());
            continue;
        }
        let Some(status) = runtime.container_status(&container.id).await? else { continue };
        observed.containers.push(record(status, container.pod_sandbox_id).await);
    }
    observed.containers.sort_by_key(|container| std::cmp::Reverse((container.restart_count, container.created_at_ns)));
    Ok(observed)
}

async fn record(status: cri::ContainerStatus, sandbox_id: String) -> ContainerRecord {
    let label = |key: &str| status.labels.get(key).cloned().unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let state = state(status.state);
    let mut record = ContainerRecord {
        id: status.id.clone(),
        name: label(labels::CONTAINER_NAME),
        restart_count: annotation(labels::RESTART_COUNT)
            .parse()
            .ok()
            .or(status.metadata.as_ref().map(|metadata| metadata.attempt))
            .unwrap_or(0),
        sandbox_id,
        state,
        created_at_ns: status.created_at,
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message: status.message.clone(),
        image: status.image.as_ref().map(|image| image.image.clone()).unwrap_or_default(),
        image_id: status.image_ref.clone(),
        hash: annotation(labels::CONTAINER_HASH),
        log_path: status.log_path.clone(),
        grace_seconds: annotation(labels::GRACE_PERIOD).parse().ok(),
        user: status.user.as_ref().and_then(|user| user.linux.as_ref()).map(|linux| LinuxContainerUser {
            uid: linux.uid,
            gid: linux.gid,
            supplemental_groups: Some(linux.supplemental_groups.clone()).filter(|groups| !groups.is_empty()),
        }),
    };
    if state == State::Exited {
        let path = annotation(labels::TERMINATION_MESSAGE_PATH);
        // Of several at that path the last is what the container sees.
        let mounted = status.mounts.iter().rfind(|mount| mount.container_path == path && !path.is_empty());
        let file = mounted.map(|mount| mount.host_path.clone());
        let fallback = annotation(labels::TERMINATION_MESSAGE_POLICY) == "FallbackToLogsOnError"
            && status.exit_code != 0
            && record.reason != "ContainerCannotRun";
        let log_path = record.log_path.clone();
        let message = tokio::task::spawn_blocking(move || termination_message(file.as_deref(), fallback, &log_path));
        if let Ok(Some(message)) = message.await {
            // Upstream appends what the container says to what the runtime says.
            if record.message.is_empty() {
                record.message = message;
            } else {
                record.message.push_str(": ");
                record.message.push_str(&message);
            }
        }
    }
    record
}

/// The container's last words, from its termination message file or, where that is empty, its log.
fn termination_message(file: Option<&str>, fallback: bool, log_path: &str) -> Option<String> {
    let mut message = file.and_then(|file| read_start(Path::new(file), MAX_MESSAGE_BYTES)).unwrap_or_default();
    if message.is_empty() && fallback {
        message = logs::read::tail_text(Path::new(log_path), MAX_LOG_LINES, MAX_LOG_BYTES).unwrap_or_default();
    }
    if message.is_empty() { None } else { Some(message) }
}

fn read_start(path: &Path, limit: usize) -> Option<String> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let mut bytes = Vec::new();
    // Whose path it is, the container's volumes say: a pipe there is not waited for.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(limit as u64).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
