//! `shim late-mounts`: mounts that `libcontainer` does not make as they are asked for. It gives all mounts of a container the same
//! propagation, the widest; and it makes nodes and links in `/dev` whatever a pod mounts there, which in the node's own `/dev`
//! would be left behind, or fail. So such mounts are made by this hook, once the rest of the container's file system is complete
//! and before it becomes the root, each with its own propagation before it is in its place.

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::libc::{MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};
use serde::{Deserialize, Serialize};

use crate::{idmap, image::layer};

const ERROR_FILE: &str = "late-mounts.error";
const MAX_ERROR_BYTES: u64 = 8 << 10;

/// What is to be mounted, parents first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LateMounts {
    pub root: PathBuf,
    pub mounts: Vec<LateMount>,
}

/// A bind mount of the OCI runtime specification; the destination is as the container sees it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LateMount {
    source: PathBuf,
    destination: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

/// What a mount's options come to, in the kernel's terms.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    recursive: bool,
    /// To set and to clear on the mount, and on all below it.
    attributes: (u64, u64),
    attributes_below: (u64, u64),
    propagation: u64,
    propagates_below: bool,
}

/// Runs in the container's mount namespace; `text` is a [`LateMounts`] as JSON.
pub(super) fn mount_all(text: &Path) -> Result<(), String> {
    let late: LateMounts = serde_json::from_slice(text.as_os_str().as_encoded_bytes())
        .map_err(|error| format!("read what is to be mounted: {error}"))?;
    let outcome = late.mounts.iter().try_for_each(|mount| {
        put(&late.root, mount)
            .map_err(|why| format!("mount {} on {}: {why}", mount.source.display(), mount.destination.display()))
    });
    if let (Err(why), Some(bundle)) = (&outcome, late.root.parent()) {
        // The file is there already: in a user namespace none could be made.
        let file = std::fs::OpenOptions::new().write(true).open(bundle.join(ERROR_FILE));
        let _ = file.and_then(|mut file| file.write_all(why.as_bytes()));
    }
    outcome
}

/// Makes the file in which the hook says what went wrong, for whoever starts the container of `bundle`.
pub(crate) fn prepare(bundle: &Path) -> std::io::Result<()> {
    let file = std::fs::File::create(bundle.join(ERROR_FILE))?;
    file.set_permissions(std::fs::Permissions::from_mode(0o666))
}

/// What the hook said, if it failed.
pub(super) fn complaint(bundle: &Path) -> Option<String> {
    let bytes = layer::read_small(&bundle.join(ERROR_FILE), MAX_ERROR_BYTES).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|text| !text.is_empty())
}

fn put(root: &Path, mount: &LateMount) -> Result<(), String> {
    let say = |error: Errno| error.to_string();
    let io = |error: std::io::Error| error.to_string();
    let options = options(&mount.options)?;
    let is_dir = std::fs::metadata(&mount.source).map_err(io)?.is_dir();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, options.recursive);
    let tree = open_tree(CWD, &mount.source, flags).map_err(say)?;
    idmap::change(&tree, options.propagates_below, (0, 0), options.propagation)?;
    idmap::change(&tree, false, options.attributes, 0)?;
    idmap::change(&tree, true, options.attributes_below, 0)?;
    let path = mount.destination.strip_prefix("/").unwrap_or(&mount.destination);
    let dir = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(say)?;
    let inside = |path: &Path, flags| {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    // In a user namespace its root is who makes these.
    if is_dir {
        layer::make_directory_in(root, path, 0).map_err(io)?;
    } else if let (Err(Errno::NOENT), Some(parent), Some(name)) =
        (inside(path, OFlags::PATH), path.parent(), path.file_name())
    {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        layer::make_directory_in(root, parent, 0).map_err(io)?;
        let parent = inside(parent, OFlags::PATH | OFlags::DIRECTORY).map_err(say)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent, name, flags, Mode::from_raw_mode(0o644)).map_err(say)?;
    }
    let target = inside(path, OFlags::PATH).map_err(say)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &target, "", flags).map_err(say)
}

fn options(words: &[String]) -> Result<Options, String> {
    const RDONLY: u64 = 0x1;
    const NOSUID: u64 = 0x2;
    const NODEV: u64 = 0x4;
    const NOEXEC: u64 = 0x8;
    const ATIME: u64 = 0x70;
    const NOATIME: u64 = 0x10;
    const STRICTATIME: u64 = 0x20;
    const NODIRATIME: u64 = 0x80;
    const NOSYMFOLLOW: u64 = 0x20_0000;
    let mut all = Options::default();
    for word in words {
        let (set, clear) = match word.as_str() {
            "rbind" => {
                all.recursive = true;
                continue;
            }
            "bind" | "rw" | "suid" | "dev" | "exec" | "diratime" => continue,
            "ro" => (RDONLY, 0),
            "nosuid" => (NOSUID, 0),
            "nodev" => (NODEV, 0),
            "noexec" => (NOEXEC, 0),
            "nodiratime" => (NODIRATIME, 0),
            "nosymfollow" => (NOSYMFOLLOW, 0),
            "relatime" => (0, ATIME),
            "noatime" => (NOATIME, ATIME),
            "strictatime" => (STRICTATIME, ATIME),
            "rro" => {
                all.attributes_below.0 |= RDONLY;
                continue;
            }
            other => {
                let (kind, below) = other.strip_prefix('r').map_or((other, false), |kind| (kind, true));
                all.propagates_below = below;
                all.propagation = match kind {
                    "private" => MS_PRIVATE,
                    "slave" => MS_SLAVE,
                    "shared" => MS_SHARED,
                    "unbindable" => MS_UNBINDABLE,
                    _ => return Err(format!("unknown option {word:?}")),
                };
                continue;
            }
        };
        all.attributes.0 |= set;
        all.attributes.1 |= clear;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_options() {
        let check = |words: &str, expected| {
            let words: Vec<String> = words.split(' ').map(String::from).collect();
            assert_eq!(options(&words).ok(), expected, "{words:?}");
        };
        let rbind = || Options { recursive: true, propagates_below: true, ..Options::default() };
        check("rbind rprivate rw", Some(Options { propagation: MS_PRIVATE, ..rbind() }));
        check("rbind rslave ro nodev", Some(Options { propagation: MS_SLAVE, attributes: (5, 0), ..rbind() }));
        check("rbind rprivate rro", Some(Options { propagation: MS_PRIVATE, attributes_below: (1, 0), ..rbind() }));
        check("bind relatime nosuid", Some(Options { attributes: (2, 0x70), ..Options::default() }));
        check("bind shared", Some(Options { propagation: MS_SHARED, ..Options::default() }));
        check("rbind size=4k", None);
        check("rbind r", None);
    }
}
