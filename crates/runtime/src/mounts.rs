//! Mounts the runtime makes for sandboxes and containers, in its own mount namespace.

use std::path::{Path, PathBuf};

use keelson_cri::mountinfo;
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

/// Mount points at or below `dir`, deepest first; none when the table cannot be read.
pub(crate) fn below(dir: &Path) -> Vec<PathBuf> {
    mountinfo::below(dir).unwrap_or_default()
}
