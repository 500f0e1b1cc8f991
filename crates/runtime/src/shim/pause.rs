//! Process 1 of a pod-wide PID namespace: it only reaps. The shim makes the namespace by starting it.
//!
//! Containers of the pod see this process, and one with CAP_SYS_PTRACE can go wherever it can. So it gives away everything
//! before it is let go: its root is an empty read-only file system, its other namespaces are the pod's, and it is a user
//! without capabilities behind a seccomp filter.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use caps::CapSet;
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Uid, dup2_stdout, setgroups, setresgid, setresuid},
};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

use super::{LaunchResult, process_start_time, read_json, seccomp::runtime_default, sys, write_json};
use keelson_cri::steps;

/// Directory of the pod's namespaces in its own.
const NAMESPACES: &str = "ns";
/// What it says once it is confined.
const READY: &str = "ready";
/// Longest answer of the processes started here, in bytes.
const MAX_ANSWER_BYTES: u64 = 1024;
/// User and group of the process, as of upstream's `pause` image.
const NOBODY: u32 = 65535;

/// Confines itself and says so on standard output, then reaps children until SIGTERM or SIGINT, once its shim has noted it
/// and says so with a byte on standard input. A shim that dies before leaves nobody who could end this process.
/// `namespaces` is the directory of the pod's that it is still to enter.
pub(super) fn pause(namespaces: Option<&Path>) -> Result<(), String> {
    let outcome = namespaces.map_or(Ok(()), |dir| enter_namespaces(&open_namespaces(dir)?)).and_then(|()| confine());
    let word = outcome.err().unwrap_or_else(|| READY.to_owned());
    let mut stdout = std::io::stdout();
    stdout.write_all(word.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| error.to_string())?;
    // Whoever reads it reads to the end.
    dup2_stdout(std::io::stderr()).map_err(|error| error.to_string())?;
    if word != READY || !matches!(std::io::stdin().read(&mut [0]), Ok(1)) {
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

/// The pod's namespaces that are pinned in `dir`, beside that of its processes.
fn open_namespaces(dir: &Path) -> Result<Vec<File>, String> {
    let kinds = ["net", "ipc", "uts"].map(|kind| dir.join(kind));
    let open = |path: &Path| File::open(path).map_err(|error| format!("open {}: {error}", path.display()));
    kinds.iter().filter(|path| path.exists()).map(|path| open(path)).collect()
}

fn enter_namespaces(files: &[File]) -> Result<(), String> {
    let enter = |file| setns(file, CloneFlags::empty()).map_err(|error| format!("enter a namespace: {error}"));
    files.iter().try_for_each(enter)
}

/// Leaves this process nothing that another could reach through it.
fn confine() -> Result<(), String> {
    let say = |what: &'static str| move |error: rustix::io::Errno| format!("{what}: {error}");
    let nix = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    let capability = |error: caps::errors::CapsError| format!("give up capabilities: {error}");
    unshare(CloneFlags::CLONE_NEWNS).map_err(nix("make a mount namespace"))?;
    let apart = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", apart).map_err(say("keep mounts apart"))?;
    // Any directory will do; this one exists, for our program was started from it.
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", "/proc", "tmpfs", flags, c"size=4k,nr_inodes=4,mode=555").map_err(say("mount an empty root"))?;
    std::env::set_current_dir("/proc").map_err(|error| format!("enter the empty root: {error}"))?;
    rustix::process::pivot_root(".", ".").map_err(say("change the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(say("leave the old root"))?;
    std::env::set_current_dir("/").map_err(|error| format!("enter the empty root: {error}"))?;
    for extra in caps::read(None, CapSet::Bounding).map_err(capability)? {
        caps::drop(None, CapSet::Bounding, extra).map_err(capability)?;
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[]).map_err(nix("leave the groups"))?;
    // A user namespace may be too small to have them.
    let unmapped = |outcome: nix::Result<()>| if outcome == Err(nix::Error::EINVAL) { Ok(()) } else { outcome };
    unmapped(setresgid(group, group, group)).map_err(nix("change the group"))?;
    unmapped(setresuid(user, user, user)).map_err(nix("change the user"))?;
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(capability)?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(nix("give up new privileges"))?;
    for filter in runtime_default(&[])? {
        sys::install_filter(&filter).map_err(|error| format!("install a seccomp filter: {error}"))?;
    }
    Ok(())
}

/// Starts `shim pause` in a new PID namespace and prints its PID; both belong to the user namespace. `dir` holds the pod's
/// namespaces.
pub(super) fn pause_in(dir: &Path) -> Result<(), String> {
    let userns = dir.join("user");
    let file = File::open(userns).map_err(|error| format!("open the user namespace: {error}"))?;
    // Opened before: the pod's root cannot go through the node's directories.
    let others = open_namespaces(dir)?;
    setns(file, CloneFlags::CLONE_NEWUSER).map_err(|error| format!("enter the user namespace: {error}"))?;
    super::userns::become_root()?;
    enter_namespaces(&others)?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(|error| format!("make a PID namespace: {error}"))?;
    // Its go comes from the shim, by the same pipe, and its answer goes there.
    let mut command = pause_command(None);
    let child = command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).spawn();
    let child = child.map_err(|error| format!("start the pod's first process: {error}"))?;
    println!("{}", child.id());
    Ok(())
}

fn pause_command(namespaces: Option<&Path>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["shim", "pause"]).args(namespaces).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::null());
    command
}

/// Reads what a started process answers, to its end.
fn answer(child: &mut Child) -> Result<String, String> {
    let mut words = String::new();
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(MAX_ANSWER_BYTES).read_to_string(&mut words);
        read.map_err(|error| format!("start the pod's first process: {error}"))?;
    }
    Ok(words)
}

/// As this process's child, in the user namespace of the node; the working directory is the pod's. Its PID, and where its go is written.
fn start() -> Result<(i32, ChildStdin), String> {
    let own = File::open("/proc/self/ns/pid").map_err(|error| format!("open the PID namespace: {error}"))?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(|error| format!("make a PID namespace: {error}"))?;
    let child = pause_command(Some(Path::new(NAMESPACES))).spawn();
    setns(own.as_fd(), CloneFlags::CLONE_NEWPID).map_err(|error| format!("return to the PID namespace: {error}"))?;
    let mut child = child.map_err(|error| format!("start the pod's first process: {error}"))?;
    match answer(&mut child)? {
        word if word == READY => {}
        why => return Err(format!("the pod's first process could not be confined: {why}")),
    }
    let pid = child.id() as i32;
    Ok((pid, child.stdin.take().ok_or("the pod's first process has no input")?))
}

/// By way of a helper: there is no way back from another user namespace.
fn start_in(namespaces: &Path) -> Result<(i32, ChildStdin), String> {
    let say = |error: std::io::Error| format!("start the pod's first process: {error}");
    let mut command = Command::new("/proc/self/exe");
    command.args(["shim", "pause-in"]).arg(namespaces).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut helper = command.spawn().map_err(say)?;
    let words = answer(&mut helper)?;
    // Before waiting, which would close it.
    let go = helper.stdin.take().ok_or("the pod's first process has no input")?;
    helper.wait().map_err(say)?;
    // The two of them speak in either order.
    let digits: String = words.chars().filter(char::is_ascii_digit).collect();
    match digits.parse() {
        Ok(pid) if words.replace(&digits, "").trim() == READY => Ok((pid, go)),
        _ => Err(format!("the pod's first process could not be confined: {}", words.trim())),
    }
}

/// Where the namespace's first process is noted, for who has to end it.
const PAUSE_FILE: &str = "pause.json";

/// Starts `shim pause` as process 1 of a new PID namespace and pins the namespace at `dir/ns/pid`. Must run in a
/// single-threaded process.
pub(crate) fn pid_namespace_init(dir: &Path) -> Result<(), String> {
    let say = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let namespaces = dir.join(NAMESPACES);
    let (pid, mut go) = if namespaces.join("user").exists() { start_in(&namespaces)? } else { start()? };
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
    rustix::fs::statfs(dir.join("ns/pid")).is_ok_and(|fs| fs.f_type == NSFS_MAGIC)
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
