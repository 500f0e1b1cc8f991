//! `subPath`: a part of a volume as a mount of its own. The volume's content belongs to containers, so every step is
//! resolved by the kernel inside the volume (`openat2` with `RESOLVE_IN_ROOT`), and what is mounted is the opened thing
//! itself, not its name.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::mounts;
use crate::error::Error;

/// A directory itself, and no link to one.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Opens `sub_path` in `volume`, making missing directories.
fn open(volume: &Path, sub_path: &str) -> Result<OwnedFd, Error> {
    let relative = Path::new(sub_path);
    if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(Error::message(format!("subPath {sub_path:?} must be relative and without '..'")));
    }
    let failed = |errno: rustix::io::Errno| Error::file("open subPath", volume.join(relative))(errno.into());
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    match open_in(&root, relative, OFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => {}
        other => return other.map_err(failed),
    }
    // As upstream: what is made here may be used by whoever may use the volume.
    let mode =
        rustix::fs::fstat(&open_in(&root, Path::new("."), OFlags::empty()).map_err(failed)?).map_err(failed)?.st_mode;
    let mode = Mode::from_raw_mode(mode & 0o777);
    let mut prefix = PathBuf::new();
    let mut parent = open_in(&root, Path::new("."), OFlags::DIRECTORY).map_err(failed)?;
    for part in relative.components() {
        prefix.push(part);
        let next = match open_in(&root, &prefix, OFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => {
                let made = match rustix::fs::mkdirat(&parent, part.as_os_str(), mode) {
                    Ok(()) => true,
                    Err(rustix::io::Errno::EXIST) => false,
                    Err(errno) => return Err(failed(errno)),
                };
                if made {
                    // The umask must not have a say; a link that took the directory's place is not followed.
                    let own =
                        rustix::fs::openat(&parent, part.as_os_str(), DIRECTORY, Mode::empty()).map_err(failed)?;
                    rustix::fs::fchmod(&own, mode).map_err(failed)?;
                }
                open_in(&root, &prefix, OFlags::empty()).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        parent = next;
    }
    Ok(parent)
}

/// Mounts `sub_path` of `volume` on `target` (below the pod's own directory) and gives `target`.
pub(crate) fn mount(volume: &Path, sub_path: &str, target: &Path) -> Result<PathBuf, Error> {
    let opened = open(volume, sub_path)?;
    mounts::unmount_below(target)?;
    let _ = fs::remove_file(target).or_else(|_| fs::remove_dir(target));
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    }
    let metadata = rustix::fs::fstat(&opened).map_err(|errno| Error::file("stat", target)(errno.into()))?;
    if rustix::fs::FileType::from_raw_mode(metadata.st_mode).is_dir() {
        fs::create_dir(target).map_err(Error::file("create", target))?;
    } else {
        fs::File::create(target).map_err(Error::file("create", target))?;
    }
    mounts::bind_fd(&opened, target)?;
    Ok(target.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_inside_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        fs::create_dir(dir.path().join("secret")).unwrap();
        fs::write(dir.path().join("secret/key"), "outside").unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("evil")).unwrap();
        std::os::unix::fs::symlink("/", volume.join("root")).unwrap();
        let target = dir.path().join("subpaths/0");
        assert!(mount(&volume, "../secret", &target).is_err());
        // Links lead somewhere inside the volume or nowhere.
        if mount(&volume, "evil", &target).is_ok() {
            assert!(!target.join("key").exists());
        }
        mount(&volume, "root/made/deep", &target).unwrap();
        fs::write(target.join("file"), "x").unwrap();
        let mode = |path: &Path| std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap()) & 0o777;
        assert_eq!((mode(&volume.join("made")), mode(&volume.join("made/deep"))), (0o777, 0o777));
        assert_eq!(fs::read_to_string(volume.join("made/deep/file")).unwrap(), "x");
        fs::write(volume.join("plain"), "y").unwrap();
        mount(&volume, "plain", &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "y");
        mounts::remove_tree(&dir.path().join("subpaths")).unwrap();
        assert!(mounts::below(dir.path()).unwrap().is_empty());
    }
}
