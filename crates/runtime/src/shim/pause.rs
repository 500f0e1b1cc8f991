//! Process 1 of a pod-wide PID namespace: it only reaps. The shim makes the namespace by starting it.

use std::{
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
};

use super::{LaunchResult, process_start_time, write_json};

/// Reaps children until SIGTERM or SIGINT.
pub(super) fn pause() -> Result<(), String> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|error| error.to_string())?;
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
            }
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Where the namespace's first process is noted, for who has to end it.
pub(crate) const PAUSE_FILE: &str = "pause.json";

/// Starts `shim pause` as process 1 of a new PID namespace and pins the namespace at `dir/ns/pid`. Must run in a
/// single-threaded process.
pub(crate) fn pid_namespace_init(dir: &Path) -> Result<(), String> {
    let say = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let own = std::fs::File::open("/proc/self/ns/pid").map_err(say("open the PID namespace"))?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(|error| format!("make a PID namespace: {error}"))?;
    let child = Command::new("/proc/self/exe")
        .args(["shim", "pause"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    setns(own.as_fd(), CloneFlags::CLONE_NEWPID).map_err(|error| format!("return to the PID namespace: {error}"))?;
    let pid = child.map_err(say("start the pod's first process"))?.id() as i32;
    let start_time = process_start_time(pid).ok_or("the pod's first process ended at once")?;
    write_json(&dir.join(PAUSE_FILE), &LaunchResult::Started { pid, start_time, started_at_ns: 0 })
        .map_err(say("note the pause process"))?;
    let target = dir.join("ns/pid");
    std::fs::write(&target, []).map_err(say("make a mount point"))?;
    rustix::mount::mount_bind(format!("/proc/{pid}/ns/pid"), &target)
        .map_err(|error| format!("pin the PID namespace: {error}"))
}
