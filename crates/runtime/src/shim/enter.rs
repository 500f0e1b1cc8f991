//! Commands executed in containers of pods with a user namespace. `libcontainer` joins every namespace of a container but
//! that one, so these are started here, in two steps: a helper joins the container's control groups and namespaces, all at
//! once, and starts `shim enter` there, which becomes what the process is to be and turns into the command. It inherits the
//! specification and the way to the terminal's keeper as descriptors, and nothing else of the node's.

use std::{
    io::{Read, Seek, SeekFrom, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    process::Command,
};

use caps::{CapSet, Capability, CapsHashSet};
use libcontainer::{
    oci_spec::runtime::{Capabilities, Process, Spec},
    workload::Executor,
};
use nix::{
    sched::{CloneFlags, setns},
    unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, setresgid, setresuid, setsid},
};
use rustix::{
    fs::MemfdFlags,
    io::FdFlags,
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::Value;

use super::{LaunchResult, executor::Filtering, helper::console, process_start_time, read_json};
use crate::cgroup;

/// Starts the process described by `exec_dir/process.json` in the container of `dir`, whose processes are in `group`, and
/// says so in the result file: opened before, for afterwards this process sees the container's files.
pub(super) fn exec(dir: &Path, exec_dir: &Path, group: &Path) -> Result<(), String> {
    let say = |error: std::io::Error| format!("write the result: {error}");
    let mut file = std::fs::File::create(exec_dir.join(LaunchResult::FILE)).map_err(say)?;
    let result = start(dir, exec_dir, group).unwrap_or_else(|message| LaunchResult::Failed { message });
    serde_json::to_vec(&result).map_err(std::io::Error::from).and_then(|bytes| file.write_all(&bytes)).map_err(say)
}

fn start(dir: &Path, exec_dir: &Path, group: &Path) -> Result<LaunchResult, String> {
    let Ok(Some(LaunchResult::Started { pid, start_time, .. })) = read_json(&dir.join(LaunchResult::FILE)) else {
        return Err("the container does not run".into());
    };
    let init = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let init = init.filter(|_| process_start_time(pid) == Some(start_time)).ok_or("the container does not run")?;
    let read = |path: &Path| -> Result<Value, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("read {}: {error}", path.display()))
    };
    let mut spec = read(&dir.join("config.json"))?;
    let process = read(&exec_dir.join("process.json"))?;
    let score = process.get("oomScoreAdj").and_then(Value::as_i64);
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("process".into(), process);
    }
    let keeper = console(exec_dir).map(std::os::unix::net::UnixStream::connect).transpose();
    let keeper = keeper.map_err(|error| format!("reach the terminal's keeper: {error}"))?.map(OwnedFd::from);
    let spec = inherited_file(&serde_json::to_vec(&spec).map_err(|error| error.to_string())?)?;
    let mut command = Command::new("/proc/self/exe");
    if let Some(score) = score {
        // Inherited by what is started; in the container's namespaces nobody could lower it again.
        std::fs::write("/proc/self/oom_score_adj", score.to_string())
            .map_err(|error| format!("set the OOM score: {error}"))?;
    }
    command.args(["shim", "enter"]).arg(spec.as_raw_fd().to_string()).env_clear();
    if let Some(keeper) = &keeper {
        inherit(keeper)?;
        command.arg(keeper.as_raw_fd().to_string());
    }
    for hierarchy in cgroup::dirs(group) {
        let file = hierarchy.join("cgroup.procs");
        std::fs::write(&file, std::process::id().to_string())
            .map_err(|error| format!("write {}: {error}", file.display()))?;
    }
    let kinds = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    setns(init, kinds).map_err(|error| format!("enter the container's namespaces: {error}"))?;
    // Nobody else's capabilities in there would survive the start of a program.
    super::userns::become_root()?;
    let child = command.spawn().map_err(|error| format!("start the process: {error}"))?;
    Ok(LaunchResult::Started { pid: child.id() as i32, start_time: 0, started_at_ns: 0, begun: true })
}

/// An unnamed file with `bytes`, which children inherit.
fn inherited_file(bytes: &[u8]) -> Result<std::fs::File, String> {
    let say = |error: std::io::Error| format!("hand the specification on: {error}");
    let file = rustix::fs::memfd_create("spec", MemfdFlags::empty()).map_err(|error| say(error.into()))?;
    let mut file = std::fs::File::from(file);
    file.write_all(bytes).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(say)?;
    Ok(file)
}

fn inherit(fd: impl AsFd) -> Result<(), String> {
    rustix::io::fcntl_setfd(fd, FdFlags::empty()).map_err(|error| format!("hand a descriptor on: {error}"))
}

/// `shim enter`: becomes the process that the specification in descriptor `spec` describes. Returns only to say why not.
pub(super) fn enter(spec: &Path, keeper: Option<&Path>) -> Result<(), String> {
    let mut text = Vec::new();
    let read = std::fs::File::from(inherited(spec)?).read_to_end(&mut text);
    read.map_err(|error| format!("read the specification: {error}"))?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|error| format!("read the specification: {error}"))?;
    let process = spec.process().clone().ok_or("the specification has no process")?;
    setsid().map_err(|error| format!("start a session: {error}"))?;
    if let Some(keeper) = keeper {
        terminal(keeper)?;
    }
    become_user(&process)?;
    std::env::set_current_dir(process.cwd()).map_err(|error| format!("enter {}: {error}", process.cwd().display()))?;
    let error = Filtering.exec(&spec).err().map(|error| error.to_string());
    Err(error.unwrap_or_default())
}

/// Makes a terminal of the container's own the standard streams, and gives its master end to who keeps it.
fn terminal(keeper: &Path) -> Result<(), String> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let say = |error: rustix::io::Errno| format!("make a terminal: {error}");
    let keeper = inherited(keeper)?;
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).map_err(say)?;
    rustix::pty::grantpt(&master).and_then(|()| rustix::pty::unlockpt(&master)).map_err(say)?;
    let name = rustix::pty::ptsname(&master, Vec::new()).map_err(say)?;
    let slave = rustix::fs::open(name.as_c_str(), rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()).map_err(say)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [master.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(&keeper, &[std::io::IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::empty()).map_err(say)?;
    rustix::process::ioctl_tiocsctty(&slave).map_err(say)?;
    let nix = |error: nix::Error| format!("make a terminal: {error}");
    dup2_stdin(&slave).and_then(|()| dup2_stdout(&slave)).and_then(|()| dup2_stderr(&slave)).map_err(nix)
}

/// The inherited descriptor `number`, as one of this process's own. Not by way of `/proc`, which is the container's.
fn inherited(number: &Path) -> Result<OwnedFd, String> {
    let number = number.to_str().and_then(|number| number.parse().ok()).ok_or("a descriptor is a number")?;
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    let own = own.and_then(|own| rustix::process::pidfd_getfd(&own, number, rustix::process::PidfdGetfdFlags::empty()));
    own.map_err(|error| format!("take up a descriptor: {error}"))
}

/// User, groups and capabilities, in the only order in which each step is still allowed.
fn become_user(process: &Process) -> Result<(), String> {
    let user = process.user();
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    let groups: Vec<Gid> = user.additional_gids().iter().flatten().map(|group| Gid::from_raw(*group)).collect();
    let say = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    let capability = |what: &'static str| move |error: caps::errors::CapsError| format!("{what}: {error}");
    let sets = process.capabilities().clone().unwrap_or_default();
    let bounding = set(sets.bounding().as_ref());
    for extra in caps::read(None, CapSet::Bounding).map_err(capability("read the bounding set"))?.difference(&bounding)
    {
        caps::drop(None, CapSet::Bounding, *extra).map_err(capability("drop a capability"))?;
    }
    caps::securebits::set_keepcaps(true).map_err(capability("keep capabilities"))?;
    setgroups(&groups).map_err(say("set the groups"))?;
    setresgid(gid, gid, gid).map_err(say("set the group"))?;
    setresuid(uid, uid, uid).map_err(say("set the user"))?;
    caps::securebits::set_keepcaps(false).map_err(capability("keep capabilities"))?;
    for (kind, own) in [
        (CapSet::Effective, sets.effective()),
        (CapSet::Permitted, sets.permitted()),
        (CapSet::Inheritable, sets.inheritable()),
        (CapSet::Ambient, sets.ambient()),
    ] {
        caps::set(None, kind, &set(own.as_ref())).map_err(capability("set the capabilities"))?;
    }
    if process.no_new_privileges() == Some(true) {
        nix::sys::prctl::set_no_new_privs().map_err(say("give up new privileges"))?;
    }
    Ok(())
}

fn set(names: Option<&Capabilities>) -> CapsHashSet {
    names.into_iter().flatten().filter_map(|name| format!("CAP_{name}").parse::<Capability>().ok()).collect()
}
