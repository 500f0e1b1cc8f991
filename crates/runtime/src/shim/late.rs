//! `shim late-mounts`: mounts that cover the `/dev` that `libcontainer` makes. It makes nodes and links there whatever a pod
//! mounts on it, which in the node's own `/dev` would be left behind, or fail. So what belongs at and below `/dev` is mounted
//! by this hook, once the container's file system is complete and before it becomes the root.

use std::path::{Path, PathBuf};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};
use serde::{Deserialize, Serialize};

use crate::{idmap, image::layer};

/// What is to be mounted, parents first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct LateMounts {
    pub root: PathBuf,
    /// What the owner of made mount points is on the node.
    pub owner: u32,
    pub mounts: Vec<LateMount>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LateMount {
    pub source: PathBuf,
    /// As the container sees it.
    pub destination: PathBuf,
    /// As in the specification: `rw`, `ro`, or `rro` for what is mounted below, too.
    pub access: String,
}

/// Runs in the container's mount namespace; `text` is a [`LateMounts`] as JSON.
pub(super) fn mount_all(text: &Path) -> Result<(), String> {
    let late: LateMounts = serde_json::from_slice(text.as_os_str().as_encoded_bytes())
        .map_err(|error| format!("read what is to be mounted: {error}"))?;
    late.mounts.iter().try_for_each(|mount| {
        put(&late, mount)
            .map_err(|why| format!("mount {} on {}: {why}", mount.source.display(), mount.destination.display()))
    })
}

fn put(late: &LateMounts, mount: &LateMount) -> Result<(), String> {
    let say = |error: Errno| error.to_string();
    let io = |error: std::io::Error| error.to_string();
    let is_dir = std::fs::metadata(&mount.source).map_err(io)?.is_dir();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, &mount.source, flags).map_err(say)?;
    if mount.access != "rw" {
        idmap::make_readonly(&tree, mount.access == "rro")?;
    }
    let path = mount.destination.strip_prefix("/").unwrap_or(&mount.destination);
    let root =
        openat(CWD, &late.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(say)?;
    let inside = |path: &Path, flags| {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    if is_dir {
        layer::make_directory_in(&late.root, path, late.owner).map_err(io)?;
    } else if let (Err(Errno::NOENT), Some(parent), Some(name)) =
        (inside(path, OFlags::PATH), path.parent(), path.file_name())
    {
        layer::make_directory_in(&late.root, parent, late.owner).map_err(io)?;
        let parent = inside(parent, OFlags::PATH | OFlags::DIRECTORY).map_err(say)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent, name, flags, Mode::from_raw_mode(0o644)).map_err(say)?;
    }
    let target = inside(path, OFlags::PATH).map_err(say)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &target, "", flags).map_err(say)
}
