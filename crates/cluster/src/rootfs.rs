//! A node's root: made by the node's init in its own mount namespace, entered with `pivot_root`. Programs and libraries
//! are the host's; everything that a node writes is its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::mount::{mount, mount_bind, mount_bind_recursive, mount_change, unmount};

use crate::init::NodeConfig;
use crate::layout::make_dir;
use crate::{Context as _, Result, cgroup};

/// Where a node sees our own binary.
pub(crate) const EXE: &str = "/opt/keelson/bin/keelson";
/// Where a node's first node sees the control plane's files.
pub(crate) const SERVER_DIR: &str = "/var/lib/keelson/server";
/// Where a node sees the host's network namespace.
pub(crate) const HOST_NETNS: &str = "/run/keelson/host-netns";

/// Takes the calling process out of the host's mount propagation and keeps the host's network namespace reachable.
/// Must run in a new mount namespace, before the network namespace is left.
pub(crate) fn prepare(config: &NodeConfig) -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context(|| "making mounts private".into())?;
    let root = &config.root;
    make_dir(root)?;
    mount_tmpfs(root, "mode=755,size=256m")?;
    let netns = in_root(root, HOST_NETNS);
    make_dir(&root.join("run"))?;
    mount_tmpfs(&root.join("run"), "mode=755")?;
    make_dir(&root.join("run/keelson"))?;
    fs::write(&netns, "").context(|| format!("creating {}", netns.display()))?;
    mount_bind("/proc/self/ns/net", &netns).context(|| "keeping the host's network namespace".into())
}

/// Builds the root and enters it. Must run as PID 1 of the node, after [`prepare`].
pub(crate) fn enter(config: &NodeConfig, hierarchies: &[cgroup::Hierarchy]) -> Result<()> {
    let root = &config.root;
    for name in ["usr", "bin", "sbin", "lib", "lib64"] {
        let host = Path::new("/").join(name);
        let Ok(metadata) = fs::symlink_metadata(&host) else { continue };
        if metadata.is_symlink() {
            let target = fs::read_link(&host).context(|| format!("reading {}", host.display()))?;
            symlink(target, root.join(name)).context(|| format!("linking /{name} of the node"))?;
        } else {
            bind(&host, &root.join(name), true)?;
        }
    }
    bind(Path::new("/dev"), &root.join("dev"), true)?;
    make_etc(root)?;
    for (source, target) in [(&config.var, "var"), (&config.tmp, "tmp")] {
        make_dir(source)?;
        bind(source, &root.join(target), false)?;
    }
    if let Some(server) = &config.server_dir {
        bind(server, &in_root(root, SERVER_DIR), false)?;
    }
    for mount in &config.mounts {
        bind(&mount.host, &in_root(root, &mount.node.to_string_lossy()), true)?;
    }
    for dir in ["opt/cni/bin", "opt/keelson/bin", "root", "mnt", "proc", "sys", "run/netns"] {
        make_dir(&root.join(dir))?;
    }
    let exe = in_root(root, EXE);
    fs::write(&exe, "").context(|| format!("creating {}", exe.display()))?;
    mount_bind(&config.exe, &exe).context(|| format!("binding {}", config.exe.display()))?;
    for plugin in ["keelson-cni", "loopback"] {
        symlink(EXE, root.join("opt/cni/bin").join(plugin)).context(|| "linking the CNI plugins".into())?;
    }
    let run = root.join("var/run");
    let _ = fs::remove_file(&run);
    symlink("/run", &run).context(|| "linking /var/run".into())?;

    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", root.join("proc"), "proc", flags, None).context(|| "mounting /proc of the node".into())?;
    mount("sysfs", root.join("sys"), "sysfs", flags, None).context(|| "mounting /sys of the node".into())?;
    let cgroups = in_root(root, cgroup::MOUNT);
    if hierarchies.iter().any(|h| *h != cgroup::Hierarchy::v2_alone()) {
        mount_tmpfs(&cgroups, "mode=755")?;
    }
    cgroup::mount_in_node(hierarchies, &cgroups)?;

    rustix::process::chdir(root).context(|| format!("entering {}", root.display()))?;
    rustix::process::pivot_root(".", ".").context(|| "pivot_root".into())?;
    unmount(".", UnmountFlags::DETACH).context(|| "leaving the host's root".into())?;
    rustix::process::chdir("/").context(|| "entering the node's root".into())?;
    // Containers' mounts follow the node's (mountPropagation: HostToContainer), as on a real machine.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .context(|| "sharing the node's mounts".into())
}

/// `/etc` is the host's, with the node's changes in memory: CNI configuration and the like.
fn make_etc(root: &Path) -> Result<()> {
    let (upper, work, etc) = (root.join(".etc/upper"), root.join(".etc/work"), root.join("etc"));
    for dir in [&upper, &work, &etc] {
        make_dir(dir)?;
    }
    let data = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    let data = std::ffi::CString::new(data).unwrap_or_default();
    mount("overlay", &etc, "overlay", MountFlags::empty(), Some(data.as_c_str()))
        .context(|| "mounting /etc of the node".into())?;
    make_dir(&etc.join("cni/net.d"))
}

fn bind(source: &Path, target: &Path, recursive: bool) -> Result<()> {
    make_dir(target)?;
    if recursive { mount_bind_recursive(source, target) } else { mount_bind(source, target) }
        .context(|| format!("binding {} to {}", source.display(), target.display()))
}

fn mount_tmpfs(dir: &Path, options: &str) -> Result<()> {
    let options = std::ffi::CString::new(options).unwrap_or_default();
    mount("tmpfs", dir, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))
        .context(|| format!("mounting a tmpfs at {}", dir.display()))
}

fn in_root(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
