//! How much disk a tree of files takes, as a container may have made it: of any depth, and changing while it is looked at.

use std::{collections::HashSet, ffi::CString, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat},
    io::Result,
};

/// Bytes allocated and inodes below `dir`, each inode counted once, links not followed. One descriptor or two are open at a time,
/// and nothing recurses. Where a directory moves away under it, the walk ends with what it has.
pub(crate) fn disk_usage(dir: &Path) -> (u64, u64) {
    let mut total = (0, 0);
    let _ = walk(dir, &mut total);
    total
}

/// A directory that is being walked: which it is, and which of those in it are still to be.
struct Level {
    identity: (u64, u64),
    left: Vec<CString>,
}

fn walk(dir: &Path, total: &mut (u64, u64)) -> Result<()> {
    let mut seen = HashSet::new();
    let mut current = openat(CWD, dir, FLAGS, Mode::empty())?;
    let mut levels = vec![enter(&current, total, &mut seen)?];
    while let Some(level) = levels.last_mut() {
        match level.left.pop() {
            Some(name) => {
                // Gone, or something else by now.
                let Ok(inner) = openat(&current, &name, FLAGS, Mode::empty()) else { continue };
                levels.push(enter(&inner, total, &mut seen)?);
                current = inner;
            }
            None => {
                levels.pop();
                let Some(parent) = levels.last() else { break };
                let above = openat(&current, "..", FLAGS, Mode::empty())?;
                if identity(&fstat(&above)?) != parent.identity {
                    break;
                }
                current = above;
            }
        }
    }
    Ok(())
}

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Counts what is in a directory.
fn enter(dir: &OwnedFd, total: &mut (u64, u64), seen: &mut HashSet<(u64, u64)>) -> Result<Level> {
    let mut level = Level { identity: identity(&fstat(dir)?), left: Vec::new() };
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_dir && stat.st_nlink > 1 && !seen.insert(identity(&stat)) {
            continue;
        }
        *total = (total.0 + u64::try_from(stat.st_blocks).unwrap_or(0) * 512, total.1 + 1);
        if is_dir {
            level.left.push(name);
        }
    }
    Ok(level)
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_any_depth_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(dir.path().join("file"), dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("beside")).unwrap();
        // Deeper than any path can say.
        let mut current = openat(CWD, dir.path(), FLAGS, Mode::empty()).unwrap();
        let name = "d".repeat(100);
        for _ in 0..3000 {
            rustix::fs::mkdirat(&current, &name, Mode::RWXU).unwrap();
            current = openat(&current, &name, FLAGS, Mode::empty()).unwrap();
        }
        drop(openat(&current, "last", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap());
        let (bytes, inodes) = disk_usage(dir.path());
        // One file of two names, a link, a directory, those within each other, and the file in the last.
        assert_eq!(inodes, 3 + 3000 + 1);
        assert!(bytes >= 100_000, "{bytes}");
        crate::image::layer::remove_tree(dir.path()).unwrap();
    }
}
