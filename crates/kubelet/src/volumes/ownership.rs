//! `fsGroup`: the volume's files get the group, group permissions, and directories the setgid bit.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use crate::error::Error;

/// Gives `path` and all below it to group `gid`. With `once`, a root that is already as it should be is left alone
/// (`fsGroupChangePolicy: OnRootMismatch`).
pub(super) fn give_to_group(path: &Path, gid: u32, read_only: bool, once: bool) -> Result<(), Error> {
    if once {
        let metadata = fs::symlink_metadata(path).map_err(Error::file("stat", path))?;
        let wanted = mode(metadata.mode(), true, read_only);
        if metadata.gid() == gid && metadata.mode() & 0o7777 == wanted {
            return Ok(());
        }
    }
    descend(path, gid, read_only)
}

fn mode(current: u32, is_dir: bool, read_only: bool) -> u32 {
    let mut mode = current & 0o7777 | if read_only { 0o440 } else { 0o660 };
    if is_dir {
        mode |= 0o2110;
    }
    mode
}

fn descend(path: &Path, gid: u32, read_only: bool) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).map_err(Error::file("stat", path))?;
    lchown(path, None, Some(gid)).map_err(Error::file("chown", path))?;
    if metadata.file_type().is_symlink() {
        return Ok(());
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(Error::file("read", path))? {
            descend(&entry.map_err(Error::file("read", path))?.path(), gid, read_only)?;
        }
    }
    let wanted = mode(metadata.mode(), metadata.is_dir(), read_only);
    fs::set_permissions(path, fs::Permissions::from_mode(wanted)).map_err(Error::file("chmod", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_modes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("d/file");
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        give_to_group(dir.path(), 4321, false, false).unwrap();
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.gid(), metadata.mode() & 0o7777), (4321, 0o660));
        let metadata = fs::metadata(dir.path().join("d")).unwrap();
        assert_eq!((metadata.gid(), metadata.mode() & 0o2070), (4321, 0o2070));
        assert_ne!(fs::metadata("/etc/passwd").unwrap().gid(), 4321, "links are not followed");
    }
}
