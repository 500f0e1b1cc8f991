//! Container log files as the CRI lays them down: where they are, how they are read and followed, how they are rotated.

pub(crate) mod follow;
pub(crate) mod line;
pub(crate) mod read;
pub(crate) mod rotate;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Directory of a pod's logs below the logs root.
pub(crate) fn pod_directory(root: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    root.join(format!("{namespace}_{name}_{uid}"))
}

/// Pods that have a directory of logs below `root`: uid and directory.
pub(crate) fn pods(root: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // Neither names nor uids have underscores.
            match name.split('_').collect::<Vec<_>>().as_slice() {
                [_, _, uid] if !uid.is_empty() => Some((uid.to_string(), entry.path())),
                _ => None,
            }
        })
        .collect()
}

/// Removes links below `dir` to logs that are gone. Logs of `running` containers (ids) are only away while they are rotated.
pub(crate) fn remove_dangling(dir: &Path, running: &BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name.strip_suffix(".log").and_then(|name| name.rsplit_once('-')).map(|(_, id)| id);
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_symlink())
            && id.is_some_and(|id| !running.contains(id))
            && matches!(std::fs::metadata(&path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A container's log, relative to its pod's directory.
pub(crate) fn relative_path(container: &str, restart_count: u32) -> String {
    format!("{container}/{restart_count}.log")
}

/// Name of the link to a container's log that log shippers look for.
pub(crate) fn link_name(pod: &str, namespace: &str, container: &str, id: &str) -> String {
    let name = format!("{pod}_{namespace}_{container}-{id}");
    let cut = name.floor_char_boundary(251);
    format!("{}.log", name.get(..cut).unwrap_or(&name))
}

/// The highest restart count with a log in `container_dir`.
pub(crate) fn last_restart_count(container_dir: &Path) -> Option<u32> {
    let entries = std::fs::read_dir(container_dir).ok()?;
    let counts = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.split_once(".log")?.0.parse::<u32>().ok()
    });
    counts.max()
}

/// Removes a dead container's log files, rotated ones too.
pub(crate) fn remove(log_path: &Path) {
    let (Some(dir), Some(name)) = (log_path.parent(), log_path.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let Some(found) = found.to_str() else { continue };
        if found == name || found.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_nobody_has_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let (root, links) = (dir.path().join("pods"), dir.path().join("containers"));
        let log = pod_directory(&root, "ns", "web-0", "u-1").join("c/0.log");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        fs::create_dir_all(root.join("somebody-elses")).unwrap();
        fs::create_dir_all(&links).unwrap();
        fs::write(root.join("a_b_c"), "no directory").unwrap();
        assert_eq!(pods(&root), [("u-1".to_string(), root.join("ns_web-0_u-1"))]);
        fs::write(&log, "").unwrap();
        let link = |id: &str, to: &Path| symlink(to, links.join(link_name("web-0", "ns", "c", id))).unwrap();
        link("there", &log);
        link("gone", &root.join("nothing"));
        link("rotated", &root.join("nothing"));
        symlink(root.join("nothing"), links.join("not ours")).unwrap();
        fs::write(links.join("file-x.log"), "").unwrap();
        remove_dangling(&links, &["rotated".to_string()].into());
        let mut left: Vec<_> = fs::read_dir(&links).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["file-x.log", "not ours", "web-0_ns_c-rotated.log", "web-0_ns_c-there.log"]);
    }
}
