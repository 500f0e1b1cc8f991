//! A process that outlives the command that started it, remembered by id and start time (ids are used again).

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::layout::{read_json, write_json};
use crate::{Context as _, Result};

/// A node's init as `process.json` remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handle {
    /// In the host's PID namespace.
    pub pid: u32,
    /// Clock ticks after boot, field 22 of `/proc/<pid>/stat`.
    pub start_ticks: u64,
}

impl Handle {
    /// The process `pid`, if there is one now.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_ticks: start_ticks(pid)? })
    }

    /// The process that `path` remembers, if it still runs.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        Ok(read_json::<Self>(path)?.filter(Self::is_alive))
    }

    /// Remembers it at `path`.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_json(path, self)
    }

    /// Whether it still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Asks it to end, and ends it after `grace`. Returns once it is gone.
    pub fn terminate(&self, grace: Duration) -> Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        // Only now is it certain that the id means our process: the descriptor cannot change its meaning any more.
        if !self.is_alive() {
            return Ok(());
        }
        for (signal, wait) in [(Signal::TERM, grace), (Signal::KILL, Duration::from_secs(30))] {
            match pidfd_send_signal(&pidfd, signal) {
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                other => other.context(|| format!("signalling process {}", self.pid))?,
            }
            let timeout = Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(30), tv_nsec: 0 };
            let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))
                .context(|| format!("waiting for process {}", self.pid))?;
            if ended > 0 {
                return Ok(());
            }
        }
        Err(crate::Error::Io {
            what: format!("ending process {}", self.pid),
            source: std::io::ErrorKind::TimedOut.into(),
        })
    }
}

fn start_ticks(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Start time from a line of `/proc/<pid>/stat`; the command in parentheses may hold anything. `None` for zombies.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let tail = "1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 0 0";
        assert_eq!(parse_stat(&format!("5 (a) S {tail}")), Some(777));
        assert_eq!(parse_stat(&format!("5 (a) R) (b) S {tail}")), Some(777));
        assert_eq!(parse_stat(&format!("5 (a) Z {tail}")), None);
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_id() {
        let me = Handle::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!Handle { start_ticks: me.start_ticks + 1, ..me }.is_alive());
        // Must not be signalled: it is not the process that is remembered.
        Handle { start_ticks: me.start_ticks + 1, ..me }.terminate(Duration::ZERO).unwrap();
    }

    #[test]
    fn a_process_is_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let handle = Handle::of(child.id()).unwrap();
        handle.terminate(Duration::from_secs(5)).unwrap();
        assert!(!handle.is_alive());
        child.wait().unwrap();
    }
}
