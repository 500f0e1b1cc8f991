//! A node's init. Stage one, started by `up`, leaves the host's namespaces step by step; stage two is PID 1 of the node:
//! it builds the node's root, starts the components, starts them again when they end, and reaps what they leave behind.
//!
//! Both run without threads, before any async runtime exists. Standard streams carry the descriptors that PID 1 must
//! hold, because they are the only ones that can be taken up again without `unsafe`:
//!
//! | stream | stage one | stage two |
//! |---|---|---|
//! | stdin | the API server's listening socket, or `/dev/null` | the same |
//! | stdout | a socket to `up`: a byte when the namespaces exist, a byte back when the network does, then the id of stage two | the fabric's network namespace, held open |
//! | stderr | `init.log` | `init.log` |

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::layout::{Mount, make_dir, read_json};
use crate::{Context as _, Error, Result, cgroup, rootfs};

/// First wait before a component that ended is started again; doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// A component that ran this long is started again at once.
const STABLE: Duration = Duration::from_secs(30);
/// How long components get to end when the node is stopped: more than an API server without a shutdown delay needs.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(15);
/// A component's log is put aside (`.1`) at its start when it is larger than this.
const MAX_LOG_BYTES: u64 = 16 << 20;

/// All that an init must know (`init.json` of the node).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeConfig {
    pub profile: String,
    pub node: String,
    /// Where the node's root is put together; a directory of the host that only the node sees filled.
    pub root: PathBuf,
    /// Becomes `/var`.
    pub var: PathBuf,
    /// Becomes `/tmp`.
    pub tmp: PathBuf,
    /// The control plane's files, on the node that runs it.
    pub server_dir: Option<PathBuf>,
    /// Our binary.
    pub exe: PathBuf,
    /// Path of the fabric's network namespace.
    pub fabric: PathBuf,
    /// Directories of the host that the node sees.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    pub components: Vec<Component>,
    /// How long the components get to end when the node is stopped.
    #[serde(default = "usual_grace")]
    pub stop_grace: Duration,
}

fn usual_grace() -> Duration {
    STOP_GRACE
}

/// A program that init keeps running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Names its log, `/var/log/keelson/<name>.log`.
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Whether its stdin is the API server's listening socket.
    pub listens: bool,
}

/// Stage one. Returns when stage two runs.
pub fn stage_one(config_path: &Path) -> Result<()> {
    let config = read(config_path)?;
    let fabric = fs::File::open(&config.fabric).context(|| "opening the fabric's namespace".into())?;
    cgroup::join(&config.profile, &config.node)?;
    let separate = |flags, what: &str| unshare(flags).context(|| format!("new {what} namespace"));
    separate(CloneFlags::CLONE_NEWNS, "mount")?;
    rootfs::prepare(&config)?;
    separate(CloneFlags::CLONE_NEWNET, "network")?;
    separate(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC, "UTS and IPC")?;
    separate(CloneFlags::CLONE_NEWCGROUP, "cgroup")?;
    separate(CloneFlags::CLONE_NEWPID, "PID")?;

    let tell = || "talking to `keelson up`".to_string();
    let mut up = UnixStream::from(std::io::stdout().as_fd().try_clone_to_owned().context(tell)?);
    up.write_all(b"n").context(tell)?;
    up.read_exact(&mut [0]).context(tell)?;

    let child = Command::new("/proc/self/exe")
        .args(["node-init", "--stage", "2"])
        .arg(config_path)
        .stdin(Stdio::inherit())
        .stdout(Stdio::from(OwnedFd::from(fabric)))
        .spawn()
        .context(|| "starting the node's init".into())?;
    writeln!(up, "{}", child.id()).context(tell)
}

/// Stage two: PID 1 of the node. Returns when the node has been asked to stop.
pub fn stage_two(config_path: &Path) -> Result<()> {
    let config = read(config_path)?;
    let hierarchies = cgroup::mounted_hierarchies()?;
    let signals = block_signals()?;
    nix::unistd::sethostname(&config.node).context(|| "setting the node's hostname".into())?;
    let listener = std::io::stdin().as_fd().try_clone_to_owned().context(|| "keeping the listening socket".into())?;
    // Not ours to lead: without this a Ctrl-C in the terminal of `up` would reach the node.
    let _ = nix::unistd::setsid();
    rootfs::enter(&config, &hierarchies)?;
    // Every connection that the local load balancer carries goes to one cluster IP: without this its ports are used up by
    // connections that linger for a minute after their end.
    fs::write(REUSE_PORTS, "1").context(|| format!("setting {REUSE_PORTS}"))?;
    make_dir(Path::new(LOGS))?;
    Supervisor::new(config.components, listener, config.stop_grace).run(&signals)
}

const LOGS: &str = "/var/log/keelson";
/// Of the node's own network namespace.
const REUSE_PORTS: &str = "/proc/sys/net/ipv4/tcp_tw_reuse";

fn read(path: &Path) -> Result<NodeConfig> {
    read_json(path)?.ok_or_else(|| Error::BadFile { path: path.display().to_string(), why: "is missing".into() })
}

fn block_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        set.add(signal);
    }
    set.thread_block().context(|| "blocking signals".into())?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context(|| "opening a signalfd".into())
}

/// Keeps components running.
struct Supervisor {
    listener: OwnedFd,
    stop_grace: Duration,
    components: Vec<Supervised>,
}

struct Supervised {
    component: Component,
    state: State,
    backoff: Duration,
}

enum State {
    Running { pid: Pid, since: Instant },
    Waiting { until: Instant },
}

impl Supervisor {
    fn new(components: Vec<Component>, listener: OwnedFd, stop_grace: Duration) -> Self {
        let state =
            |component| Supervised { component, state: State::Waiting { until: Instant::now() }, backoff: MIN_BACKOFF };
        Self { listener, stop_grace, components: components.into_iter().map(state).collect() }
    }

    fn run(&mut self, signals: &SignalFd) -> Result<()> {
        loop {
            self.start_due();
            self.wait(signals)?;
            let mut stop = false;
            while let Ok(Some(signal)) = signals.read_signal() {
                stop |= u32::try_from(Signal::SIGCHLD as i32).is_ok_and(|chld| signal.ssi_signo != chld);
            }
            self.reap();
            if stop {
                self.stop(signals)?;
                return Ok(());
            }
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        for supervised in &mut self.components {
            if !matches!(supervised.state, State::Waiting { until } if until <= now) {
                continue;
            }
            supervised.state = match start(&supervised.component, &self.listener) {
                Ok(pid) => State::Running { pid, since: now },
                Err(error) => {
                    eprintln!("{}: {error}", supervised.component.name);
                    supervised.backoff = (supervised.backoff * 2).min(MAX_BACKOFF);
                    State::Waiting { until: now + supervised.backoff }
                }
            };
        }
    }

    /// Until a signal comes or a component is due.
    fn wait(&self, signals: &SignalFd) -> Result<()> {
        let due = self.components.iter().filter_map(|s| match s.state {
            State::Waiting { until } => Some(until.saturating_duration_since(Instant::now())),
            State::Running { .. } => None,
        });
        let timeout = due.min().map(|d| Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(d.subsec_nanos()),
        });
        match poll(&mut [PollFd::new(signals, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e).context(|| "waiting for signals".into()),
        }
    }

    fn reap(&mut self) {
        loop {
            let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exited with code {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("was killed by {signal}")),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            for supervised in &mut self.components {
                let State::Running { pid: running, since } = supervised.state else { continue };
                if running != pid {
                    continue;
                }
                let (ran, now) = (since.elapsed(), Instant::now());
                supervised.backoff =
                    if ran >= STABLE { MIN_BACKOFF } else { (supervised.backoff * 2).min(MAX_BACKOFF) };
                supervised.state = State::Waiting { until: now + supervised.backoff };
                eprintln!("{} {how} after {ran:.1?}; starting it again", supervised.component.name);
            }
        }
    }

    /// Ends components in the reverse order of their start. What they leave dies with this process.
    fn stop(&mut self, signals: &SignalFd) -> Result<()> {
        let deadline = Instant::now() + self.stop_grace;
        for supervised in self.components.iter().rev() {
            if let State::Running { pid, .. } = supervised.state {
                let _ = kill(pid, Signal::SIGTERM);
            }
        }
        while Instant::now() < deadline && self.components.iter().any(|s| matches!(s.state, State::Running { .. })) {
            let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], Some(&timeout));
            while let Ok(Some(_)) = signals.read_signal() {}
            self.reap();
        }
        Ok(())
    }
}

fn start(component: &Component, listener: &OwnedFd) -> Result<Pid> {
    let path = Path::new(LOGS).join(format!("{}.log", component.name));
    if fs::metadata(&path).is_ok_and(|m| m.len() > MAX_LOG_BYTES) {
        let _ = fs::rename(&path, path.with_extension("log.1"));
    }
    let log = fs::OpenOptions::new().create(true).append(true).open(&path);
    let log = log.context(|| format!("opening {}", path.display()))?;
    let errors = log.try_clone().context(|| format!("opening {}", path.display()))?;
    let stdin = if component.listens {
        Stdio::from(listener.try_clone().context(|| "passing the listening socket".into())?)
    } else {
        Stdio::null()
    };
    let child = Command::new(&component.program)
        .args(&component.args)
        .current_dir("/")
        .stdin(stdin)
        .stdout(log)
        .stderr(errors)
        .spawn()
        .context(|| format!("starting {}", component.program.display()))?;
    Ok(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)))
}
