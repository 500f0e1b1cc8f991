//! The kubelet's own cgroups, cgroupfs driver: `<root>/kubepods[/burstable|/besteffort]/pod<uid>`, in every v1 controller
//! (also on hybrid machines) or in the unified hierarchy. Containers' groups below are the runtime's.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::resources::{CPU_PERIOD_US, PodCgroup, QosClass, page_size_name, weight};

/// v2 controllers pods need.
const V2_CONTROLLERS: [&str; 6] = ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"];

/// Where the hierarchies are.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    hierarchies: Hierarchies,
    /// Relative, without a leading slash; may be empty.
    root: PathBuf,
    per_qos: bool,
}

#[derive(Clone, Debug)]
enum Hierarchies {
    /// Mount point of each controller.
    V1(Vec<(Vec<String>, PathBuf)>),
    V2(PathBuf),
}

impl Cgroups {
    /// Finds the hierarchies under `mount`.
    pub(crate) fn new(mount: &Path, root: &str, per_qos: bool) -> Self {
        let hierarchies = if mount.join("cgroup.controllers").exists() {
            Hierarchies::V2(mount.to_path_buf())
        } else {
            let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let mut found: Vec<(Vec<String>, PathBuf)> = Vec::new();
            for line in mountinfo.lines() {
                let Some((left, right)) = line.split_once(" - ") else { continue };
                let mut right = right.split(' ');
                let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
                if right.next() != Some("cgroup") || !point.starts_with(mount) {
                    continue;
                }
                let options = right.nth(1).unwrap_or_default();
                let controllers = options.split(',').map(str::to_string).collect();
                if found.iter().all(|(_, known)| *known != point) {
                    found.push((controllers, point));
                }
            }
            Hierarchies::V1(found)
        };
        Cgroups { hierarchies, root: PathBuf::from(root.trim_matches('/')), per_qos }
    }

    /// Whether the unified hierarchy is in use.
    pub(crate) fn is_v2(&self) -> bool {
        matches!(self.hierarchies, Hierarchies::V2(_))
    }

    /// Whether the kernel counts and limits swap by group.
    pub(crate) fn counts_swap(&self) -> bool {
        match &self.hierarchies {
            // The root has no such file, whoever is in it.
            Hierarchies::V2(mount) => {
                let own = self.own().unwrap_or_default();
                let groups = [mount.join(own), mount.join(&self.root), mount.join(self.kubepods())];
                groups.iter().any(|group| group.join("memory.swap.max").exists())
                    || fs::read_dir(mount)
                        .into_iter()
                        .flatten()
                        .flatten()
                        .any(|entry| entry.path().join("memory.swap.max").exists())
            }
            Hierarchies::V1(_) => {
                self.file("memory", Path::new(""), "memory.memsw.limit_in_bytes").is_some_and(|file| file.exists())
            }
        }
    }

    /// The node's own group.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file of a group is; `None` when `controller` (v1) is not mounted.
    pub(crate) fn file(&self, controller: &str, group: &Path, name: &str) -> Option<PathBuf> {
        let dir = match &self.hierarchies {
            Hierarchies::V2(mount) => mount,
            Hierarchies::V1(found) => &found.iter().find(|(names, _)| names.iter().any(|known| known == controller))?.1,
        };
        Some(dir.join(group).join(name))
    }

    /// A process of a group, if it has one.
    pub(crate) fn any_process(&self, group: &Path) -> Option<u32> {
        let file = self.file("pids", group, "cgroup.procs").or_else(|| self.file("memory", group, "cgroup.procs"))?;
        fs::read_to_string(file).ok()?.lines().find_map(|line| line.parse().ok().filter(|pid| *pid != 0))
    }

    /// The group this process is in.
    pub(crate) fn own(&self) -> Option<PathBuf> {
        let text = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let wanted = if self.is_v2() { "" } else { "memory" };
            controllers.split(',').any(|controller| controller == wanted).then_some(path)
        })?;
        Some(PathBuf::from(path.trim_start_matches('/')))
    }

    /// The groups above pods' own; none when the kubelet makes no groups.
    pub(crate) fn pod_parents(&self) -> Vec<PathBuf> {
        if !self.per_qos {
            return Vec::new();
        }
        vec![self.kubepods(), self.qos(QosClass::Burstable), self.qos(QosClass::BestEffort)]
    }

    fn kubepods(&self) -> PathBuf {
        self.root.join("kubepods")
    }

    fn qos(&self, class: QosClass) -> PathBuf {
        match class {
            QosClass::Guaranteed => self.kubepods(),
            QosClass::Burstable => self.kubepods().join("burstable"),
            QosClass::BestEffort => self.kubepods().join("besteffort"),
        }
    }

    /// A pod's group.
    pub(crate) fn pod(&self, class: QosClass, uid: &str) -> PathBuf {
        self.qos(class).join(format!("pod{uid}"))
    }

    /// The pod's CRI `cgroup_parent`; empty when the kubelet makes no groups.
    pub(crate) fn parent_of(&self, class: QosClass, uid: &str) -> String {
        if self.per_qos { format!("/{}", self.pod(class, uid).display()) } else { String::new() }
    }

    fn controllers(&self) -> Vec<(Option<&[String]>, &Path)> {
        match &self.hierarchies {
            Hierarchies::V1(found) => {
                found.iter().map(|(names, point)| (Some(names.as_slice()), point.as_path())).collect()
            }
            Hierarchies::V2(mount) => vec![(None, mount.as_path())],
        }
    }

    fn make(&self, group: &Path) -> Result<(), Error> {
        for (controllers, mount) in self.controllers() {
            let mut path = mount.to_path_buf();
            for part in group.components() {
                if controllers.is_none() {
                    delegate(&path);
                }
                let parent = path.clone();
                path.push(part);
                match fs::create_dir(&path) {
                    Ok(()) => inherit_cpuset(&parent, &path),
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(Error::file("create cgroup", &path)(error)),
                }
            }
            if controllers.is_none() {
                delegate(&path);
            }
        }
        Ok(())
    }

    fn set(
        &self,
        group: &Path,
        v1: Option<(&str, &str)>,
        v2: &str,
        v1_value: String,
        v2_value: String,
    ) -> Result<(), Error> {
        for (controllers, mount) in self.controllers() {
            let (file, value) = match (controllers, v1) {
                (None, _) => (v2, &v2_value),
                (Some(names), Some((controller, file))) if names.iter().any(|name| name == controller) => {
                    (file, &v1_value)
                }
                _ => continue,
            };
            if file.is_empty() {
                continue;
            }
            let path = mount.join(group).join(file);
            match fs::write(&path, value) {
                // A kernel without this controller has no such file.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(Error::file("write", &path))?,
            }
        }
        Ok(())
    }

    fn set_shares(&self, group: &Path, shares: i64) -> Result<(), Error> {
        self.set(group, Some(("cpu", "cpu.shares")), "cpu.weight", shares.to_string(), weight(shares).to_string())
    }

    fn set_memory(&self, group: &Path, bytes: i64) -> Result<(), Error> {
        self.set(group, Some(("memory", "memory.limit_in_bytes")), "memory.max", bytes.to_string(), bytes.to_string())
    }

    fn set_pids(&self, group: &Path, limit: u64) -> Result<(), Error> {
        self.set(group, Some(("pids", "pids.max")), "pids.max", limit.to_string(), limit.to_string())
    }

    /// Sets what a pod may have of huge pages: by page size, bytes.
    pub(crate) fn set_huge_pages(&self, class: QosClass, uid: &str, limits: &[(i64, i64)]) -> Result<(), Error> {
        if !self.per_qos {
            return Ok(());
        }
        for (size, limit) in limits {
            let (size, limit) = (page_size_name(*size), limit.to_string());
            // Pages in use, and those that are reserved.
            for of in ["", "rsvd."] {
                let (v1, v2) = (format!("hugetlb.{size}.{of}limit_in_bytes"), format!("hugetlb.{size}.{of}max"));
                self.set(&self.pod(class, uid), Some(("hugetlb", &v1)), &v2, limit.clone(), limit.clone())?;
            }
        }
        Ok(())
    }

    /// Makes the groups that hold all pods. `cpu_shares` and `memory_bytes` are what pods may use of the node.
    pub(crate) fn set_up(&self, cpu_shares: i64, memory_bytes: i64) -> Result<(), Error> {
        if !self.per_qos {
            return Ok(());
        }
        self.make(&self.qos(QosClass::Burstable))?;
        self.make(&self.qos(QosClass::BestEffort))?;
        self.set_shares(&self.kubepods(), cpu_shares)?;
        self.set_memory(&self.kubepods(), memory_bytes)?;
        self.set_shares(&self.qos(QosClass::BestEffort), 2)
    }

    /// Sets the CPU weight of all burstable pods together.
    pub(crate) fn set_burstable_shares(&self, shares: i64) -> Result<(), Error> {
        if self.per_qos { self.set_shares(&self.qos(QosClass::Burstable), shares) } else { Ok(()) }
    }

    /// Makes a pod's group, or updates its limits.
    pub(crate) fn set_up_pod(
        &self,
        class: QosClass,
        uid: &str,
        limits: &PodCgroup,
        pids: Option<u64>,
    ) -> Result<(), Error> {
        if !self.per_qos {
            return Ok(());
        }
        let group = self.pod(class, uid);
        self.make(&group)?;
        self.set_shares(&group, limits.cpu_shares)?;
        if let Some(quota) = limits.cpu_quota_us {
            let period = Some(("cpu", "cpu.cfs_period_us"));
            self.set(&group, period, "", CPU_PERIOD_US.to_string(), String::new())?;
            let both = format!("{quota} {CPU_PERIOD_US}");
            self.set(&group, Some(("cpu", "cpu.cfs_quota_us")), "cpu.max", quota.to_string(), both)?;
        }
        if let Some(bytes) = limits.memory_limit_bytes {
            self.set_memory(&group, bytes)?;
        }
        if let Some(pids) = pids {
            self.set_pids(&group, pids)?;
        }
        Ok(())
    }

    /// Removes a pod's group, whatever its class was.
    pub(crate) fn remove_pod(&self, uid: &str) -> Result<(), Error> {
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            for (_, mount) in self.controllers() {
                let path = mount.join(self.pod(class, uid));
                if path.exists() {
                    remove_tree(&path).map_err(Error::file("remove cgroup", &path))?;
                }
            }
        }
        Ok(())
    }

    /// Uids of pods that have a group.
    pub(crate) fn pods(&self) -> Vec<String> {
        let mut uids = Vec::new();
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            for (_, mount) in self.controllers() {
                for entry in fs::read_dir(mount.join(self.qos(class))).into_iter().flatten().flatten() {
                    if let Some(uid) = entry.file_name().to_str().and_then(|name| name.strip_prefix("pod")) {
                        uids.push(uid.to_string());
                    }
                }
            }
        }
        uids.sort();
        uids.dedup();
        uids
    }

    /// Removes everything the kubelet made, for nodes that go away.
    #[cfg(test)]
    pub(crate) fn remove_all(&self) {
        for (_, mount) in self.controllers() {
            let _ = remove_tree(&mount.join(self.kubepods()));
            let mut path = self.root.as_path();
            while path.components().next().is_some() {
                let _ = fs::remove_dir(mount.join(path));
                path = path.parent().unwrap_or(Path::new(""));
            }
        }
    }
}

/// v2: hands what pods need of the group's controllers down to its children, all or none. While processes are in a group the
/// kernel hands down some controllers only, after which no process could join its children.
fn delegate(group: &Path) {
    let available = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    let wanted = V2_CONTROLLERS.iter().filter(|name| available.split_whitespace().any(|found| found == **name));
    let all: Vec<String> = wanted.map(|name| format!("+{name}")).collect();
    let _ = fs::write(group.join("cgroup.subtree_control"), all.join(" "));
}

/// A new v1 cpuset is empty, and nothing can run in it.
fn inherit_cpuset(parent: &Path, child: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = child.join(file);
        if fs::read_to_string(&own).is_ok_and(|value| value.trim().is_empty())
            && let Ok(value) = fs::read_to_string(parent.join(file))
        {
            let _ = fs::write(own, value.trim());
        }
    }
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs root and real hierarchies: fails, not skips, without.
    #[test]
    fn groups_come_and_go() {
        let root = format!("/keelson-test-kubelet/cgroup-{}", std::process::id());
        let cgroups = Cgroups::new(Path::new("/sys/fs/cgroup"), &root, true);
        let limits = PodCgroup { cpu_shares: 512, cpu_quota_us: Some(50_000), memory_limit_bytes: Some(64 << 20) };
        let result = (|| {
            cgroups.set_up(2048, 1 << 30)?;
            cgroups.set_up_pod(QosClass::Burstable, "u1", &limits, Some(100))?;
            Ok::<_, Error>(cgroups.pods())
        })();
        let memory = cgroups.controllers().into_iter().find_map(|(names, mount)| match names {
            None => Some(mount.join("x").with_file_name("")),
            Some(names) => names.iter().any(|name| name == "memory").then(|| mount.to_path_buf()),
        });
        let file = if cgroups.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
        let limit = memory.map(|mount| {
            fs::read_to_string(mount.join(cgroups.pod(QosClass::Burstable, "u1")).join(file)).unwrap_or_default()
        });
        let removed = cgroups.remove_pod("u1");
        let left = cgroups.pods();
        cgroups.remove_all();
        assert_eq!(result.expect("cgroups are writable"), ["u1"]);
        assert_eq!(limit.as_deref().map(str::trim), Some("67108864"));
        removed.unwrap();
        assert!(left.is_empty());
        assert_eq!(cgroups.parent_of(QosClass::Guaranteed, "u"), format!("{root}/kubepods/podu"));
    }
}
