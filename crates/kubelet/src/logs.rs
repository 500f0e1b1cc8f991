//! Container log files as the CRI lays them down: where they are, how they are read and followed, how they are rotated.

pub(crate) mod follow;
pub(crate) mod line;
pub(crate) mod read;
pub(crate) mod rotate;

use std::path::{Path, PathBuf};

/// Directory of a pod's logs below the logs root.
pub(crate) fn pod_directory(root: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    root.join(format!("{namespace}_{name}_{uid}"))
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
