//! Mount points below the kubelet's directories: made, found and removed. Removal never descends into something that is
//! still mounted.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use keelson_cri::mountinfo;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::Error;

/// Mounts a tmpfs on `path`, unless something is mounted there.
pub(crate) fn tmpfs(path: &Path) -> Result<(), Error> {
    memory(path, "tmpfs", "mode=0777")
}

/// Mounts `filesystem`, which lives in memory, on `path` with its own `options`, unless something is mounted there.
pub(crate) fn memory(path: &Path, filesystem: &str, options: &str) -> Result<(), Error> {
    if is_mount_point(path) {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let with = |options: &str| {
        let options = std::ffi::CString::new(options).unwrap_or_default();
        rustix::mount::mount(filesystem, path, filesystem, flags, Some(options.as_c_str()))
    };
    // What is only to be in memory, secrets above all, is not to be swapped out. Kernels before 6.4 do not know the word.
    let mounted = match filesystem {
        "tmpfs" => with(&format!("{options},noswap")).or_else(|errno| match errno {
            rustix::io::Errno::INVAL => with(options),
            other => Err(other),
        }),
        _ => with(options),
    };
    mounted.map_err(|errno| Error::file("mount a filesystem in memory on", path)(errno.into()))
}

/// Bind-mounts the open file or directory `source` on `target`.
pub(crate) fn bind_fd(source: &impl std::os::fd::AsRawFd, target: &Path) -> Result<(), Error> {
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    rustix::mount::mount_bind(&source, target).map_err(|errno| Error::file("bind mount on", target)(errno.into()))
}

/// Whether `path` is the root of a mount, judged by its device and its parent's.
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let Some(parent) = path.parent() else { return true };
    match (std::fs::symlink_metadata(path), std::fs::symlink_metadata(parent)) {
        (Ok(own), Ok(parent)) => own.dev() != parent.dev(),
        _ => false,
    }
}

/// Mount points at or below `dir`, deepest first.
pub(crate) fn below(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    mountinfo::below(dir).map_err(Error::file("read", mountinfo::TABLE))
}

/// Takes everything at or below `dir` off. What is busy is detached and goes when its last user does.
pub(crate) fn unmount_below(dir: &Path) -> Result<(), Error> {
    for point in below(dir)? {
        match rustix::mount::unmount(&point, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(_) => rustix::mount::unmount(&point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
                .map_err(|errno| Error::file("unmount", &point)(errno.into()))?,
        }
    }
    Ok(())
}

/// Unmounts and removes `dir` with everything in it.
pub(crate) fn remove_tree(dir: &Path) -> Result<(), Error> {
    if !dir.exists() {
        return Ok(());
    }
    unmount_below(dir)?;
    if !below(dir)?.is_empty() {
        return Err(Error::message(format!("{} still has mounts", dir.display())));
    }
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", dir)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("pods/x");
        std::fs::create_dir_all(&inner).unwrap();
        tmpfs(&inner).unwrap();
        tmpfs(&inner).unwrap();
        assert_eq!(below(dir.path()).unwrap(), std::slice::from_ref(&inner), "mounted once");
        assert!(is_mount_point(&inner));
        std::fs::write(inner.join("file"), "x").unwrap();
        remove_tree(&dir.path().join("pods")).unwrap();
        assert!(below(dir.path()).unwrap().is_empty() && !inner.exists());
    }
}
