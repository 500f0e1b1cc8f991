//! A sandbox's network, IPC and UTS namespaces. They are made on a thread of their own and pinned by bind mounts, so that
//! no process has to stay just to hold them.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use keelson_cri::steps;

use crate::{Error, idmap::Ids, mounts, userns};

/// What a sandbox wants of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub network: bool,
    pub ipc: bool,
    /// Hostname of the new UTS namespace; `None` keeps the machine's.
    pub hostname: Option<String>,
    /// Kernel parameters, set inside.
    pub sysctls: BTreeMap<String, String>,
    /// A user namespace that owns the others, and the binary whose `shim userns` makes it.
    pub user: Option<(Ids, PathBuf)>,
}

/// Where a namespace of the sandbox with this state directory is pinned.
pub(crate) fn path(sandbox_dir: &Path, kind: &str) -> PathBuf {
    sandbox_dir.join("ns").join(kind)
}

/// Makes the namespaces and pins them below `sandbox_dir/ns`. Blocks.
pub(crate) fn create(sandbox_dir: &Path, wanted: Wanted) -> Result<(), Error> {
    let dir = sandbox_dir.to_owned();
    on_thread(move || create_here(&dir, &wanted))
}

/// Unpins every namespace of the sandbox.
pub(crate) fn remove(sandbox_dir: &Path) {
    for kind in ["net", "ipc", "uts", "pid", "user"] {
        let path = path(sandbox_dir, kind);
        mounts::unmount_all(&path);
        let _ = std::fs::remove_file(path);
    }
}

/// Runs `work` in the network namespace `netns`, on a thread of its own. Blocks.
pub(crate) fn in_network<T: Send + 'static>(
    netns: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let path = netns.to_owned();
    on_thread(move || {
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(Error::io("enter", &path))?;
        Ok(work())
    })
}

/// A thread that changed its namespaces must not be used again; this one ends.
fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let thread = std::thread::Builder::new().name("keelson-ns".into()).stack_size(256 << 10);
    let handle = thread.spawn(work).map_err(|error| Error::Other(format!("start a thread: {error}")))?;
    handle.join().map_err(|_| Error::Other("a namespace thread panicked".into()))?
}

fn create_here(dir: &Path, wanted: &Wanted) -> Result<(), Error> {
    let kinds = [
        ("net", CloneFlags::CLONE_NEWNET, wanted.network),
        ("ipc", CloneFlags::CLONE_NEWIPC, wanted.ipc),
        ("uts", CloneFlags::CLONE_NEWUTS, wanted.hostname.is_some()),
    ];
    let kinds = kinds.into_iter().filter(|(.., wanted)| *wanted).map(|(kind, flag, _)| (kind, flag));
    let kinds: Vec<(&str, CloneFlags)> = kinds.collect();
    match &wanted.user {
        // Whoever makes a user namespace is to have one thread, and this process has many.
        Some((ids, exe)) => {
            let helper = userns::Helper::start(exe, *ids)?;
            pin(dir, helper.namespaces(), &["user", "net", "ipc", "uts"])?;
            for (kind, flag) in &kinds {
                let file = path(dir, kind);
                let file = File::open(&file).map_err(Error::io("open", &file))?;
                setns(file, *flag)
                    .map_err(|error| Error::Other(format!("enter the pod's {kind} namespace: {error}")))?;
            }
        }
        None => {
            let flags = kinds.iter().map(|(_, flag)| *flag).collect();
            unshare(flags).map_err(|error| Error::Other(format!("make namespaces: {error}")))?;
        }
    }
    if let Some(hostname) = &wanted.hostname {
        nix::unistd::sethostname(hostname).map_err(|error| Error::Other(format!("set the hostname: {error}")))?;
    }
    if wanted.network {
        loopback_up()?;
    }
    for (name, value) in &wanted.sysctls {
        let own = if name.starts_with("net.") { wanted.network } else { wanted.ipc };
        if !own {
            return Err(Error::Invalid(format!(
                "sysctl {name:?} would be the node's: the pod has no namespace of its own"
            )));
        }
        set_sysctl(name, value)?;
    }
    if wanted.user.is_none() {
        let kinds: Vec<&str> = kinds.iter().map(|(kind, _)| *kind).collect();
        pin(dir, Path::new("/proc/thread-self/ns"), &kinds)?;
    }
    Ok(())
}

/// Keeps namespaces of these kinds alive by bind mounts of their files in `from`.
fn pin(dir: &Path, from: &Path, kinds: &[&str]) -> Result<(), Error> {
    for kind in kinds {
        let target = path(dir, kind);
        File::create(&target).map_err(Error::io("create", &target))?;
        rustix::mount::mount_bind(from.join(kind), &target).map_err(Error::io("pin a namespace at", &target))?;
        steps::reached("sandbox-pinned");
    }
    Ok(())
}

fn set_sysctl(name: &str, value: &str) -> Result<(), Error> {
    let namespaced = ["net.", "kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
        || name == "kernel.sem";
    if !namespaced || name.contains("..") {
        return Err(Error::Invalid(format!("sysctl {name:?} is not namespaced")));
    }
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    std::fs::write(&path, value).map_err(Error::io("write", path))
}

/// Sets the loopback interface up, by the one netlink message that takes.
fn loopback_up() -> Result<(), Error> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
    let say = |error: rustix::io::Errno| Error::Other(format!("set the loopback interface up: {error}"));
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map_err(say)?;
    send(&socket, &loopback_message(), SendFlags::empty()).map_err(say)?;
    let mut answer = [0; 256];
    let (count, _) = recv(&socket, &mut answer, RecvFlags::empty()).map_err(say)?;
    let code =
        answer.get(16..20).filter(|_| count >= 20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        code => Err(Error::Other(format!("set the loopback interface up: netlink answered {code:?}"))),
    }
}

/// `RTM_NEWLINK` for interface 1, which loopback always is, with `IFF_UP` set and an answer wanted.
fn loopback_message() -> [u8; 32] {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    let mut message = [0; 32];
    let fields: [(usize, &[u8]); 6] = [
        (0, &32u32.to_ne_bytes()),
        (4, &RTM_NEWLINK.to_ne_bytes()),
        (6, &REQUEST_AND_ACK.to_ne_bytes()),
        (20, &1i32.to_ne_bytes()),
        (24, &IFF_UP.to_ne_bytes()),
        (28, &IFF_UP.to_ne_bytes()),
    ];
    for (at, bytes) in fields {
        if let Some(field) = message.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }
    message
}
