//! Log rotation: a log that has grown past its limit is renamed with a time stamp, the runtime opens a new one, and the
//! oldest are removed. Upstream compresses all but the newest rotated file; here they stay plain text.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::error::Error;
use crate::runtime::Runtime;

/// Rotates `log` of container `id` when it is larger than `max_size_bytes`.
pub(crate) async fn rotate_if_large(
    runtime: &Runtime,
    id: &str,
    log: &Path,
    max_size_bytes: u64,
    max_files: u32,
    now: Timestamp,
) -> Result<bool, Error> {
    let size = std::fs::metadata(log).map(|metadata| metadata.len()).unwrap_or(0);
    if size <= max_size_bytes {
        return Ok(false);
    }
    // One of the files is the current one, and one is about to come.
    for old in excess(rotated(log), max_files.saturating_sub(2) as usize) {
        std::fs::remove_file(&old).map_err(Error::file("remove", &old))?;
    }
    let renamed = PathBuf::from(format!("{}.{}", log.display(), now.strftime("%Y%m%d-%H%M%S")));
    std::fs::rename(log, &renamed).map_err(Error::file("rename", log))?;
    if let Err(error) = runtime.reopen_container_log(id).await {
        // The container writes on into the renamed file: give it its name back, so that nothing is lost from view.
        std::fs::rename(&renamed, log).map_err(Error::file("rename", &renamed))?;
        return Err(error);
    }
    Ok(true)
}

/// Rotated files of `log`, oldest first.
fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// The oldest of `files`, all but `keep`.
fn excess(mut files: Vec<PathBuf>, keep: usize) -> Vec<PathBuf> {
    files.truncate(files.len().saturating_sub(keep));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("3.log");
        for name in ["3.log", "3.log.20260101-000003", "3.log.20260101-000001", "3.log.20260101-000002", "31.log.x"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names = |files: Vec<PathBuf>| -> Vec<String> {
            files.iter().map(|file| file.extension().unwrap().to_str().unwrap().to_string()).collect()
        };
        assert_eq!(names(rotated(&log)), ["20260101-000001", "20260101-000002", "20260101-000003"]);
        assert_eq!(names(excess(rotated(&log), 2)), ["20260101-000001"]);
        assert!(excess(rotated(&log), 5).is_empty());
    }
}
