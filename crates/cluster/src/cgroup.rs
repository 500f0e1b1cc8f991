//! The cgroups of a node: made under a parent of our own in every hierarchy of the machine (v1, hybrid or v2), joined by
//! the node's init before it enters a cgroup namespace, mounted anew inside the node, and removed when the node is gone.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use crate::{Context as _, Result};

/// All of Keelson's clusters are below this cgroup.
pub const PARENT: &str = "keelson";
/// Where hierarchies are mounted, on the host and in nodes.
pub const MOUNT: &str = "/sys/fs/cgroup";
/// Below the node's cgroup: where its init and components run, so that v2's "no inner processes" holds.
const SYSTEM: &str = "system";

/// One hierarchy of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted, relative to [`MOUNT`]; empty for v2 alone.
    dir: PathBuf,
    /// `memory`, `cpu,cpuacct`, `name=systemd`; `None` for v2.
    controllers: Option<String>,
}

/// The machine's hierarchies, from the text of `/proc/self/cgroup` (which lists them all) and whether v2 is the only one.
pub fn hierarchies(proc_self_cgroup: &str) -> Vec<Hierarchy> {
    let lines: Vec<&str> = proc_self_cgroup.lines().collect();
    let only_v2 = lines.iter().all(|line| line.starts_with("0::"));
    let mut found: Vec<Hierarchy> = lines
        .iter()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers) = (parts.next()?, parts.next()?);
            Some(match controllers {
                "" if only_v2 => Hierarchy::v2_alone(),
                "" => Hierarchy { dir: "unified".into(), controllers: None },
                name if name.starts_with("name=") => {
                    Hierarchy { dir: name.trim_start_matches("name=").into(), controllers: Some(name.into()) }
                }
                list => Hierarchy { dir: list.into(), controllers: Some(list.into()) },
            })
        })
        .collect();
    found.sort_by(|a, b| a.dir.cmp(&b.dir));
    found
}

/// The machine's hierarchies, those that are mounted at the usual place.
pub fn mounted_hierarchies() -> Result<Vec<Hierarchy>> {
    let path = "/proc/self/cgroup";
    let text = fs::read_to_string(path).context(|| format!("reading {path}"))?;
    let mut all = hierarchies(&text);
    all.retain(|h| h.host_dir().join("cgroup.procs").exists());
    Ok(all)
}

impl Hierarchy {
    /// The one hierarchy of a machine without v1.
    pub(crate) fn v2_alone() -> Self {
        Self { dir: PathBuf::new(), controllers: None }
    }

    /// Its controllers as the kernel names them; `v2`.
    pub(crate) fn name(&self) -> String {
        self.controllers.clone().unwrap_or_else(|| "v2".into())
    }

    fn host_dir(&self) -> PathBuf {
        Path::new(MOUNT).join(&self.dir)
    }
}

/// Makes the node's cgroup in every hierarchy and moves the calling process there.
pub fn join(profile: &str, node: &str) -> Result<()> {
    for hierarchy in mounted_hierarchies()? {
        let mut dir = hierarchy.host_dir();
        for name in [PARENT, profile, node] {
            let parent = dir.clone();
            dir = dir.join(name);
            make(&hierarchy, &parent, &dir)?;
        }
        enter(&dir)?;
    }
    Ok(())
}

/// Inside the node, in its cgroup namespace, under a fresh tmpfs: mounts every hierarchy and moves the calling process
/// to the system cgroup.
pub(crate) fn mount_in_node(hierarchies: &[Hierarchy], at: &Path) -> Result<()> {
    for hierarchy in hierarchies {
        let dir = at.join(&hierarchy.dir);
        crate::layout::make_dir(&dir)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
        let (fs, data) = match &hierarchy.controllers {
            None => ("cgroup2", String::new()),
            Some(name) if name.starts_with("name=") => ("cgroup", format!("none,{name}")),
            Some(list) => ("cgroup", list.clone()),
        };
        let data = std::ffi::CString::new(data).unwrap_or_default();
        mount(fs, &dir, fs, flags, Some(data.as_c_str()))
            .context(|| format!("mounting cgroups at {}", dir.display()))?;
        let system = dir.join(SYSTEM);
        make(hierarchy, &dir, &system)?;
        enter(&system)?;
        if hierarchy.controllers.is_none() {
            delegate(&dir);
        }
    }
    Ok(())
}

/// Makes one cgroup below `parent`.
fn make(hierarchy: &Hierarchy, parent: &Path, dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e).context(|| format!("creating cgroup {}", dir.display())),
    }
    match hierarchy.controllers.as_deref() {
        // A new v1 cpuset has no CPUs and takes no process until it gets some.
        Some(list) if list.split(',').any(|c| c == "cpuset") => {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value =
                    fs::read(parent.join(file)).context(|| format!("reading {file} of {}", parent.display()))?;
                fs::write(dir.join(file), value).context(|| format!("writing {file} of {}", dir.display()))?;
            }
            fs::write(dir.join("cgroup.clone_children"), "1").context(|| format!("writing to {}", dir.display()))
        }
        Some(_) => Ok(()),
        None => {
            delegate(parent);
            Ok(())
        }
    }
}

/// v2: hands every controller that `dir` has on to its children, all or none. While processes are in a group the kernel
/// hands on some controllers only, after which no process could join its children. What is not handed on is missing below,
/// which the kubelet reports.
fn delegate(dir: &Path) {
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let all: Vec<String> = controllers.split_whitespace().map(|controller| format!("+{controller}")).collect();
    let _ = fs::write(dir.join("cgroup.subtree_control"), all.join(" "));
}

fn enter(dir: &Path) -> Result<()> {
    fs::write(dir.join("cgroup.procs"), std::process::id().to_string())
        .context(|| format!("joining cgroup {}", dir.display()))
}

/// Removes the node's cgroups (of all nodes with `None`), deepest first. Its processes must be dead.
pub fn remove(profile: &str, node: Option<&str>) -> Result<()> {
    for hierarchy in mounted_hierarchies()? {
        let profile_dir = hierarchy.host_dir().join(PARENT).join(profile);
        match node {
            Some(node) => remove_tree(&profile_dir.join(node))?,
            None => remove_tree(&profile_dir)?,
        }
        // The parents go with their last child; while they have others this fails, as it should.
        let _ = fs::remove_dir(&profile_dir);
        let _ = fs::remove_dir(hierarchy.host_dir().join(PARENT));
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).context(|| format!("reading {}", dir.display())),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    // A process that was killed leaves its cgroup a moment after it is reaped.
    for _ in 0..200 {
        match fs::remove_dir(dir) {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => return other.context(|| format!("removing cgroup {}", dir.display())),
        }
    }
    fs::remove_dir(dir).context(|| format!("removing cgroup {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::hierarchies;

    fn check(text: &str, expected: &[(&str, Option<&str>)]) {
        let found = hierarchies(text);
        let found: Vec<_> = found.iter().map(|h| (h.dir.to_str().unwrap(), h.controllers.as_deref())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn hierarchies_of_every_layout() {
        check("0::/\n", &[("", None)]);
        check(
            "3:cpu,cpuacct:/\n2:memory:/a\n1:name=systemd:/\n0::/\n",
            &[
                ("cpu,cpuacct", Some("cpu,cpuacct")),
                ("memory", Some("memory")),
                ("systemd", Some("name=systemd")),
                ("unified", None),
            ],
        );
        check("2:memory:/\n", &[("memory", Some("memory"))]);
    }
}
