//! What the cluster's processes use, read from `/proc`.

use std::path::Path;
use std::time::Duration;

use keelson_cluster::layout::{Layout, Profile};
use keelson_cluster::process::Handle;

use crate::cli::Failure;

/// Clock ticks of `/proc/<pid>/stat` a second (`USER_HZ`, the same on every architecture that Linux has left).
const TICKS: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;
const MIB: f64 = 1_048_576.0;

/// The control plane's process, by its name in `/proc`.
pub(super) struct Server {
    pid: String,
}

impl Server {
    /// A process that somebody else started.
    pub(super) fn of(pid: u32) -> Self {
        Self { pid: pid.to_string() }
    }

    pub(super) fn find(data_dir: &Path, profile: &Profile) -> Result<Self, Failure> {
        let pid = node_processes(data_dir, profile)?.into_iter().find(|pid| is_server(pid));
        Ok(Self { pid: pid.ok_or("no server process")? })
    }

    /// This process, of which the server is a part.
    pub(super) fn here() -> Self {
        Self { pid: "self".into() }
    }

    /// The thread that calls; its processor time is that of no other.
    pub(super) fn this_thread() -> Self {
        Self { pid: format!("self/task/{}", rustix::thread::gettid()) }
    }

    /// Processor time used so far, all threads.
    pub(super) fn cpu(&self) -> Result<Duration, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The command's name may hold anything; the numbers come after its closing parenthesis.
        let (_, fields) = stat.rsplit_once(')').ok_or("an odd /proc/pid/stat")?;
        let ticks = |index| fields.split_whitespace().nth(index).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
        Ok(Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS))
    }

    /// Resident memory, MiB.
    pub(super) fn resident_mib(&self) -> Result<f64, Failure> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid))?;
        let pages: f64 = statm.split_whitespace().nth(1).and_then(|p| p.parse().ok()).unwrap_or(0.0);
        Ok(pages * PAGE_BYTES / MIB)
    }
}

/// Proportional set sizes of all of the cluster's processes, and of the control plane's.
pub(super) fn memory_mib(data_dir: &Path, profile: &Profile) -> Result<(f64, f64), Failure> {
    let (mut all, mut server) = (0.0, 0.0);
    for pid in node_processes(data_dir, profile)? {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
        let kib: f64 = pss.trim().trim_end_matches(" kB").parse().unwrap_or(0.0);
        all += kib / 1024.0;
        if is_server(&pid) {
            server += kib / 1024.0;
        }
    }
    Ok((all, server))
}

fn is_server(pid: &str) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|b| *b == 0).nth(1) == Some(b"server")
}

/// Processor time of all processes of the first node so far.
pub(super) fn cpu(data_dir: &Path, profile: &Profile) -> Result<Duration, Failure> {
    let all = node_processes(data_dir, profile)?.into_iter().map(|pid| Server { pid });
    // One that has just ended counts no more.
    Ok(all.filter_map(|process| process.cpu().ok()).sum())
}

/// The first process of the first node.
pub(super) fn init_pid(data_dir: &Path, profile: &Profile) -> Result<u32, Failure> {
    let layout = Layout::new(data_dir, &profile.name)?;
    let node = profile.nodes.first().ok_or("no node")?;
    Ok(Handle::read(&layout.node_process(&node.name))?.ok_or("the node does not run")?.pid)
}

/// Every process of the first node.
fn node_processes(data_dir: &Path, profile: &Profile) -> Result<Vec<String>, Failure> {
    let layout = Layout::new(data_dir, &profile.name)?;
    let node = profile.nodes.first().ok_or("no node")?;
    let init = Handle::read(&layout.node_process(&node.name))?.ok_or("the node does not run")?;
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let of_node = namespace(&init.pid.to_string());
    let pids = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let pids = pids.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()) && namespace(pid) == of_node);
    Ok(pids.collect())
}
