//! The small files through which shims, helpers and runtimes of different lifetimes know what happened.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::handlers::Handler;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What a shim must know to run a container and, after its own death, to adopt it. Kept as `launch.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub id: String,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    /// CRI log file; `None` discards output.
    pub log_path: Option<PathBuf>,
    /// Whether the kernel kills the rest when the container's first process ends.
    pub own_pid_namespace: bool,
    /// Path below each hierarchy's root.
    pub cgroup: PathBuf,
    /// Where the end is recorded ([`Exit`]).
    pub exit_file: PathBuf,
    /// Owner of the stdio pipes, so that the container's user may open `/dev/stdout` again.
    pub uid: u32,
    /// What a container's user ID 0 is on the node.
    #[serde(default)]
    pub first_uid: u32,
    /// The OCI runtime that runs it; `None` for `libcontainer`.
    #[serde(default)]
    pub runtime: Option<Handler>,
}

impl Launch {
    pub(crate) const FILE: &str = "launch.json";
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// Exit status, or 128 + signal; 255 when nobody could see it.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub finished_at_ns: i64,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
    /// Neither shim saw the end: `code` is a guess.
    #[serde(default)]
    pub unknown: bool,
}

/// Name of the file with a container's [`Exit`] in its root directory and, if that takes no more files, in its bundle.
pub(crate) const EXIT_FILE: &str = "exit.json";

/// What a helper leaves behind.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LaunchResult {
    /// Running, with the process's start time (clock ticks since boot), which tells it from a later owner of the PID.
    Started {
        pid: i32,
        start_time: u64,
        /// When it was let go, in nanoseconds since the epoch.
        started_at_ns: i64,
        /// It has been let go; until then it only waits to be.
        #[serde(default = "yes")]
        begun: bool,
    },
    /// `libcontainer` refused.
    Failed { message: String },
}

/// What results said that were written before they said it.
fn yes() -> bool {
    true
}

impl LaunchResult {
    pub(crate) const FILE: &str = "result.json";
}

/// Writes `value` so that readers see the old file or the new one. Not synced: the fact recorded dies with the machine.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, serde_json::to_vec(value)?)?;
    std::fs::rename(&temporary, path)
}

/// Like [`write_json`], for what is still true, and needed, after a power cut.
pub(crate) fn write_json_synced(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write_synced(path, &serde_json::to_vec(value)?)
}

/// Replaces the file `path` so that after a power cut it has the old contents or the new ones.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
}

/// Reads what [`write_json`] wrote; `None` if there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Start time of a live process in clock ticks since boot; `None` for a dead one, zombies included.
pub(crate) fn process_start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may itself hold any character.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_start_time_is_found_and_stable() {
        let pid = std::process::id() as i32;
        assert!(process_start_time(pid).is_some());
        assert_eq!(process_start_time(pid), process_start_time(pid));
        assert_eq!(process_start_time(i32::MAX), None);
    }

    #[test]
    fn json_files_replace_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exit.json");
        assert!(read_json::<Exit>(&path).unwrap().is_none());
        for code in [0, 137] {
            let exit = Exit { code, finished_at_ns: 1, oom_killed: false, unknown: false };
            write_json(&path, &exit).unwrap();
            assert_eq!(read_json::<Exit>(&path).unwrap(), Some(exit.clone()));
            write_json_synced(&path, &Exit { code: code + 1, ..exit.clone() }).unwrap();
            assert_eq!(read_json::<Exit>(&path).unwrap(), Some(Exit { code: code + 1, ..exit }));
        }
    }
}
