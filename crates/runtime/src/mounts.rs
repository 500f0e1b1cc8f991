//! Mounts the runtime makes for sandboxes and containers, in its own mount namespace.

use std::{
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
    },
};

use crate::Error;

/// Mounts an overlay of `lower` (topmost first) at `target`; writable if `upper` (with a work directory) is given.
pub(crate) fn overlay(lower: &[PathBuf], upper: Option<(&Path, &Path)>, target: &Path) -> Result<(), Error> {
    match overlay_by_descriptor(lower, upper, target) {
        // Before Linux 6.5 layers can only be given in one string, limited to a page.
        Err(Errno::INVAL | Errno::NOSYS) => overlay_by_string(lower, upper, target),
        other => other,
    }
    .map_err(Error::io("mount an overlay on", target))
}

fn overlay_by_descriptor(lower: &[PathBuf], upper: Option<(&Path, &Path)>, target: &Path) -> rustix::io::Result<()> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for dir in lower {
        fsconfig_set_string(&fs, "lowerdir+", dir)?;
    }
    if let Some((upper, work)) = upper {
        fsconfig_set_string(&fs, "upperdir", upper)?;
        fsconfig_set_string(&fs, "workdir", work)?;
    }
    fsconfig_create(&fs)?;
    let attributes = if upper.is_some() { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    let mounted = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&mounted, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn overlay_by_string(lower: &[PathBuf], upper: Option<(&Path, &Path)>, target: &Path) -> rustix::io::Result<()> {
    let lower: Vec<_> = lower.iter().map(|dir| dir.to_string_lossy()).collect();
    let mut options = format!("lowerdir={}", lower.join(":"));
    let mut flags = MountFlags::empty();
    match upper {
        Some((upper, work)) => options += &format!(",upperdir={},workdir={}", upper.display(), work.display()),
        None => flags |= MountFlags::RDONLY,
    }
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    mount("overlay", target, "overlay", flags, options.as_c_str())
}

/// A tmpfs for a pod's `/dev/shm`.
pub(crate) fn shm(target: &Path) -> Result<(), Error> {
    let flags = MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NODEV;
    mount("shm", target, "tmpfs", flags, c"mode=1777,size=65536k").map_err(Error::io("mount a tmpfs on", target))
}

/// Unmounts whatever is mounted on `target`, however often; nothing there is fine.
pub(crate) fn unmount_all(target: &Path) {
    // More than a few layers of mounts on one target mean somebody else's.
    for _ in 0..16 {
        if unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
            return;
        }
    }
}

/// A path of the mount table, in which the kernel writes spaces, tabs, newlines, backslashes and `#` as octal numbers.
pub(crate) fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Mount points at or below `dir`, deepest first.
pub(crate) fn below(dir: &Path) -> Vec<PathBuf> {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return Vec::new() };
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescaped)
        .filter(|point| point.starts_with(dir))
        .collect();
    points.reverse();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_mount_table() {
        for (field, path) in [
            ("/a", "/a"),
            ("/a\\040b\\011c\\012d", "/a b\tc\nd"),
            ("/a\\134040", "/a\\040"),
            ("/a\\043\\9", "/a#\\9"),
            ("/a\\0", "/a\\0"),
        ] {
            assert_eq!(unescaped(field), Path::new(path), "{field}");
        }
    }
}
