//! Process 1 of a pod-wide PID namespace: it only reaps. The shim makes the namespace by starting it.

use std::{
    io::{Read, Write},
    os::fd::AsFd,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
};

use super::{LaunchResult, process_start_time, read_json, write_json};
use keelson_cri::steps;

/// Reaps children until SIGTERM or SIGINT, once its shim has noted it and says so with a byte on standard input. A shim
/// that dies before leaves nobody who could end this process.
pub(super) fn pause() -> Result<(), String> {
    if !matches!(std::io::stdin().read(&mut [0]), Ok(1)) {
        return Ok(());
    }
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

/// Starts `shim pause` in a new PID namespace and prints its PID; both belong to the user namespace.
pub(super) fn pause_in(userns: &Path) -> Result<(), String> {
    let file = std::fs::File::open(userns).map_err(|error| format!("open the user namespace: {error}"))?;
    setns(file, CloneFlags::CLONE_NEWUSER).map_err(|error| format!("enter the user namespace: {error}"))?;
    super::userns::become_root()?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(|error| format!("make a PID namespace: {error}"))?;
    // Its go comes from the shim, by the same pipe.
    println!("{}", spawn_pause(Stdio::inherit())?.id());
    Ok(())
}

fn spawn_pause(stdin: Stdio) -> Result<Child, String> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["shim", "pause"]).env_clear().stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| format!("start the pod's first process: {error}"))
}

/// As this process's child, in the user namespace of the node. Its PID, and where its go is written.
fn start() -> Result<(i32, ChildStdin), String> {
    let own = std::fs::File::open("/proc/self/ns/pid").map_err(|error| format!("open the PID namespace: {error}"))?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(|error| format!("make a PID namespace: {error}"))?;
    let child = spawn_pause(Stdio::piped());
    setns(own.as_fd(), CloneFlags::CLONE_NEWPID).map_err(|error| format!("return to the PID namespace: {error}"))?;
    let mut child = child?;
    let pid = child.id() as i32;
    Ok((pid, child.stdin.take().ok_or("the pod's first process has no input")?))
}

/// By way of a helper: there is no way back from another user namespace.
fn start_in(userns: &Path) -> Result<(i32, ChildStdin), String> {
    let say = |error: std::io::Error| format!("start the pod's first process: {error}");
    let mut command = Command::new("/proc/self/exe");
    command.args(["shim", "pause-in"]).arg(userns).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut helper = command.spawn().map_err(say)?;
    let mut words = String::new();
    if let Some(stdout) = &mut helper.stdout {
        stdout.take(64).read_to_string(&mut words).map_err(say)?;
    }
    // Before waiting, which would close it.
    let go = helper.stdin.take().ok_or("the pod's first process has no input")?;
    helper.wait().map_err(say)?;
    let pid = words.trim().parse().map_err(|_| "the pod's first process did not start")?;
    Ok((pid, go))
}

/// Where the namespace's first process is noted, for who has to end it.
const PAUSE_FILE: &str = "pause.json";

/// Starts `shim pause` as process 1 of a new PID namespace and pins the namespace at `dir/ns/pid`. Must run in a
/// single-threaded process.
pub(crate) fn pid_namespace_init(dir: &Path) -> Result<(), String> {
    let say = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let userns = dir.join("ns/user");
    let (pid, mut go) = if userns.exists() { start_in(&userns)? } else { start()? };
    steps::reached("shim-pause-started");
    let start_time = process_start_time(pid).ok_or("the pod's first process ended at once")?;
    write_json(&dir.join(PAUSE_FILE), &LaunchResult::Started { pid, start_time, started_at_ns: 0, begun: true })
        .map_err(say("note the pause process"))?;
    go.write_all(b"\n").map_err(say("let the pod's first process go"))?;
    steps::reached("shim-pause-noted");
    let target = dir.join("ns/pid");
    std::fs::write(&target, []).map_err(say("make a mount point"))?;
    steps::reached("shim-pause-unpinned");
    rustix::mount::mount_bind(format!("/proc/{pid}/ns/pid"), &target)
        .map_err(|error| format!("pin the PID namespace: {error}"))
}

/// Whether the pod's PID namespace is pinned; a killed shim may have left the mere file.
pub(crate) fn is_pinned(dir: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    rustix::fs::statfs(dir.join("ns/pid")).is_ok_and(|fs| fs.f_type as i64 == NSFS_MAGIC)
}

/// Ends the first process of a pod-wide PID namespace, and with it the namespace.
pub(crate) fn end(dir: &Path) {
    let file = dir.join(PAUSE_FILE);
    if let Ok(Some(LaunchResult::Started { pid, start_time, .. })) = read_json(&file)
        && process_start_time(pid) == Some(start_time)
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let _ = std::fs::remove_file(file);
}
