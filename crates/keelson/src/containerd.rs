//! `keelson containerd`: Debian's containerd as a node's container runtime. Writes its configuration, runs it, and serves
//! it the images of `keelson.local` from a registry on the node's loopback (`registry`), so that they are there whatever
//! the pull policy and no packet leaves the node for them.
//!
//! The two live and die together: whoever started us starts both again. Containers go on meanwhile, their shims are
//! nobody's children.

mod registry;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal};
use rustix::thread::CapabilitySet;
use tokio::net::TcpListener;

use crate::cli::Failure;
use crate::signals;

/// How long containerd gets to end.
const STOP_GRACE: Duration = Duration::from_secs(4);
/// The first argument by which our binary becomes containerd.
pub(crate) const CHILD: &str = "containerd-child";
/// The image of pod sandboxes.
const PAUSE: &str = "keelson.local/pause:1";

/// `keelson containerd`
#[derive(Args)]
pub(crate) struct Containerd {
    /// Where `config.toml` and `certs.d` are written: what is there is replaced
    #[arg(long)]
    config_dir: PathBuf,
    /// Where containerd keeps images, snapshots and records
    #[arg(long, default_value = "/var/lib/containerd")]
    root: PathBuf,
    /// Where containerd keeps its socket and what dies with a reboot
    #[arg(long, default_value = "/run/containerd")]
    state: PathBuf,
    /// The program
    #[arg(long, default_value = keelson_cluster::preflight::CONTAINERD)]
    containerd: PathBuf,
}

impl Containerd {
    /// Runs until containerd ends, which is an error, or until SIGTERM or SIGINT.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        if !self.containerd.exists() {
            let hint = keelson_cluster::preflight::CONTAINERD_HINT;
            return Err(format!("{} is missing: {hint}", self.containerd.display()).into());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let config = self.write_config(listener.local_addr()?)?;
        let mut registry = tokio::spawn(registry::serve(listener, std::env::current_exe()?));
        let mut containerd = tokio::process::Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .arg(std::process::id().to_string())
            .arg(&self.containerd)
            .arg("--config")
            .arg(&config)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("starting {}: {error}", self.containerd.display()))?;
        tokio::select! {
            status = containerd.wait() => Err(format!("{} ended: {}", self.containerd.display(), status?).into()),
            result = &mut registry => Err(match result {
                Ok(Err(error)) => format!("the registry of keelson.local: {error}").into(),
                Ok(Ok(never)) => match never {},
                Err(error) => error.into(),
            }),
            () = signals::terminated() => {
                if let Some(pid) = containerd.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
                    rustix::process::kill_process(pid, Signal::TERM)?;
                }
                if tokio::time::timeout(STOP_GRACE, containerd.wait()).await.is_err() {
                    tracing::warn!("containerd did not end in time");
                }
                Ok(())
            }
        }
    }

    /// Returns the path of `config.toml`.
    fn write_config(&self, registry: SocketAddr) -> Result<PathBuf, Failure> {
        let certs = self.config_dir.join("certs.d");
        let hosts = certs.join("keelson.local/hosts.toml");
        let config = self.config_dir.join("config.toml");
        // Without the capability a score below one's own is refused, and with it every pod of class Guaranteed.
        let may_lower_scores = rustix::thread::capabilities(None)?.effective.contains(CapabilitySet::SYS_RESOURCE);
        // `server` is what containerd falls back to when no other host answers; the table it wants, even if empty.
        write(&hosts, &format!("server = \"http://{registry}\"\n[host]\n"))?;
        write(&config, &self.config(&certs, !may_lower_scores))?;
        Ok(config)
    }

    /// containerd's configuration, version 2. Nodes share the machine's kernel, so what would change it for everybody
    /// (AppArmor profiles) stays off.
    fn config(&self, certs: &Path, restrict_oom_score_adj: bool) -> String {
        format!(
            r#"# Written by `keelson containerd` at each start.
version = 2
root = {root:?}
state = {state:?}
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.restart",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = {socket:?}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = {restrict_oom_score_adj}
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {certs:?}
"#,
            root = self.root,
            state = self.state,
            socket = self.state.join("containerd.sock"),
        )
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, text))
        .map_err(|error| format!("writing {}: {error}", path.display()).into())
}

/// `keelson containerd-child PARENT PROGRAM ARGUMENTS…`: becomes containerd, which ends when its parent is killed: two
/// would fight for one state. Must run without threads.
pub(crate) fn child(args: &[OsString]) -> ExitCode {
    let [parent, program, args @ ..] = args else {
        eprintln!("error: {CHILD} is started by `keelson containerd`");
        return ExitCode::from(2);
    };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("error: following the fate of process {}: {error}", parent.display());
        return ExitCode::FAILURE;
    }
    // The parent may have died before that.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if now.as_deref().map(OsString::from).as_ref() != Some(parent) {
        return ExitCode::FAILURE;
    }
    let error = std::process::Command::new(program).args(args).exec();
    eprintln!("error: starting {}: {error}", program.display());
    ExitCode::FAILURE
}
