//! Control groups by path, on v1 (also hybrid) and v2: what `libcontainer` leaves to its caller. Used by shims and by the
//! runtime; the groups themselves are made by the kubelet and `libcontainer`.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use crate::shim::sys;

pub(crate) const SIGKILL: i32 = nix::libc::SIGKILL;

const ROOT: &str = "/sys/fs/cgroup";

/// Whether the machine has the unified hierarchy only.
pub(crate) fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Directory of `group` under `controller`; the controller's name does not matter on v2.
pub(crate) fn dir(controller: &str, group: &Path) -> PathBuf {
    let relative = group.strip_prefix("/").unwrap_or(group);
    if is_unified() { Path::new(ROOT).join(relative) } else { Path::new(ROOT).join(controller).join(relative) }
}

/// Names of the v1 hierarchies, and of the links to them, in which `libcontainer` makes groups: those with controllers that it
/// knows. None on v2.
pub(crate) fn hierarchies() -> Vec<String> {
    const KNOWN: [&str; 12] = [
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "hugetlb",
        "memory",
        "pids",
        "perf_event",
        "blkio",
        "net_prio",
        "net_cls",
        "freezer",
    ];
    if is_unified() {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(ROOT) else { return Vec::new() };
    let names = entries.flatten().filter(|entry| entry.path().join("cgroup.procs").exists());
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name.split(',').all(|controller| KNOWN.contains(&controller))).collect();
    names.sort();
    names
}

/// Every directory of `group` that exists, one per mounted hierarchy.
pub(crate) fn dirs(group: &Path) -> Vec<PathBuf> {
    if is_unified() {
        return [dir("", group)].into_iter().filter(|dir| dir.is_dir()).collect();
    }
    let Ok(entries) = std::fs::read_dir(ROOT) else { return Vec::new() };
    let relative = group.strip_prefix("/").unwrap_or(group);
    entries
        .flatten()
        // `cpu,cpuacct` style aliases are links to the same directory.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path().join(relative))
        .filter(|dir| dir.is_dir())
        .collect()
}

/// How many processes of `group` the kernel killed for want of memory.
pub(crate) fn oom_kills(group: &Path) -> u64 {
    let memory = dir("memory", group);
    let file = if is_unified() { memory.join("memory.events") } else { memory.join("memory.oom_control") };
    std::fs::read_to_string(file).ok().and_then(|text| keyed(&text, "oom_kill")).unwrap_or(0)
}

/// The value beside `key` in a file of `key value` lines.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Sends `signal`, a number, to every process of `group` and of the groups inside it. Looks again for what was forked meanwhile;
/// what forks faster than this is for callers that do so until the group [`is_empty`].
pub(crate) fn signal_all(group: &Path, signal: i32) {
    const ROUNDS: usize = 8;
    if signal == SIGKILL && is_unified() && std::fs::write(dir("", group).join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let mut signalled = HashSet::new();
    for _ in 0..ROUNDS {
        let before = signalled.len();
        for dir in dirs(group).into_iter().flat_map(tree) {
            let Ok(procs) = std::fs::read_to_string(dir.join("cgroup.procs")) else { continue };
            for pid in procs.lines().filter_map(|line| line.parse().ok()) {
                if signalled.insert(pid) {
                    let _ = sys::signal(pid, signal);
                }
            }
        }
        if signalled.len() == before {
            return;
        }
    }
}

/// Whether no process is left in `group` and in the groups inside it.
pub(crate) fn is_empty(group: &Path) -> bool {
    let mut files = dirs(group).into_iter().flat_map(tree).map(|dir| dir.join("cgroup.procs"));
    files.all(|file| std::fs::read_to_string(file).map_or(true, |text| text.is_empty()))
}

/// Removes `group` from every hierarchy; `false` while it still holds processes.
pub(crate) fn remove(group: &Path) -> bool {
    let mut gone = true;
    for dir in dirs(group) {
        for inner in tree(dir.clone()).into_iter().rev() {
            let _ = std::fs::remove_dir(inner);
        }
        gone &= !dir.exists();
    }
    gone
}

/// `dir` and the groups inside it, outermost first: a container may have made some of its own, however deep.
fn tree(dir: PathBuf) -> Vec<PathBuf> {
    let mut found = vec![dir];
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        next += 1;
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        found.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::keyed;

    #[test]
    fn keyed_values() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "under_oom"), Some(0));
        assert_eq!(keyed(text, "low"), None);
    }
}
