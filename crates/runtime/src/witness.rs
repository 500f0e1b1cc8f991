//! What the runtime holds of a running container so that its end is not missed while its shim is being replaced: the exit
//! code, which a pidfd still tells after the process has been reaped, and the pipes, whose last content would go with their
//! last reader.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::shim::{LaunchResult, STDIO_PIPES, pidfd_exit_code, process_start_time, read_json};

/// How long a process that has ended may take to be reaped, and how often that is looked at.
const REAP_PATIENCE: Duration = Duration::from_secs(2);
const REAP_PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Witness {
    pidfd: OwnedFd,
    _pipes: Vec<OwnedFd>,
}

impl Witness {
    /// Of the container with this bundle; `None` if it does not run.
    pub(crate) fn of(bundle: &Path) -> Option<Self> {
        let Ok(Some(LaunchResult::Started { pid, start_time, .. })) = read_json(&bundle.join(LaunchResult::FILE))
        else {
            return None;
        };
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        if process_start_time(pid) != Some(start_time) {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipes = STDIO_PIPES.iter().filter_map(|name| open(bundle.join(name), flags, Mode::empty()).ok());
        Some(Self { pidfd, _pipes: pipes.collect() })
    }

    /// The exit code of a container that its shim says is not there; `None` if it is there after all or the kernel does not
    /// tell (before Linux 6.15).
    pub(crate) async fn exit_code(&self) -> Option<i32> {
        let wait = async {
            loop {
                if let Some(code) = pidfd_exit_code(self.pidfd.as_fd()) {
                    return code;
                }
                tokio::time::sleep(REAP_PAUSE).await;
            }
        };
        tokio::time::timeout(REAP_PATIENCE, wait).await.ok()
    }
}
