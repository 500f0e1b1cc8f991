//! User namespaces of pods: the IDs that a pod's are on the node, and mounts that translate between the two.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use keelson_cri::v1::IdMapping;
use libcontainer::syscall::{
    Syscall,
    linux::{LinuxSyscall, MountAttr},
};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::Error;

const AT_EMPTY_PATH: u32 = 0x1000;
const AT_RECURSIVE: u32 = 0x8000;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
const MS_SLAVE: u64 = 1 << 19;

/// A pod's users and groups on the node: container ID 0 is `first` there, and so on for `length` IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub first: u32,
    pub length: u32,
}

impl Ids {
    /// From CRI's lists. Kubelets send one range, the same for users and groups, that begins with the pod's root.
    pub(crate) fn new(uids: &[IdMapping], gids: &[IdMapping]) -> Result<Self, Error> {
        let field = "linux.security_context.namespace_options.userns_options";
        let ([uids], [gids]) = (uids, gids) else {
            return Err(Error::Unsupported(format!("{field}: exactly one range of uids and one of gids is supported")));
        };
        let ids = Self { first: uids.host_id, length: uids.length };
        if ids.length == 0 || ids.first == 0 || ids.first.checked_add(ids.length).is_none() || !ids.is(uids) {
            return Err(Error::Invalid(format!(
                "{field}: uids must map container ID 0 to IDs other than the node's root"
            )));
        }
        if !ids.is(gids) {
            return Err(Error::Unsupported(format!("{field}: uids and gids must be the same range")));
        }
        Ok(ids)
    }

    /// Whether `mapping` says the same.
    pub(crate) fn is(&self, mapping: &IdMapping) -> bool {
        (mapping.host_id, mapping.container_id, mapping.length) == (self.first, 0, self.length)
    }

    /// A container's ID on the node.
    pub(crate) fn on_node(&self, id: u32) -> Result<u32, Error> {
        if id < self.length {
            return Ok(self.first + id);
        }
        Err(Error::Invalid(format!("ID {id} is not mapped in the pod's user namespace of {} IDs", self.length)))
    }
}

/// Mounts what is at `source` (with what is mounted below it) on `target` as well. It follows the source's mounts but tells
/// it nothing, so that unmounting it unmounts nothing else. With `userns`, owners of the topmost mount's files are
/// translated as in that user namespace.
pub(crate) fn bind(source: &Path, target: &Path, userns: Option<&File>) -> Result<(), Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree =
        open_tree(CWD, source, flags | OpenTreeFlags::AT_RECURSIVE).map_err(Error::io("clone the mount of", source))?;
    set(&tree, AT_RECURSIVE, (0, 0), MS_SLAVE, None)
        .map_err(|why| Error::Other(format!("mount {}: {why}", source.display())))?;
    if let Some(userns) = userns {
        set(&tree, 0, (MOUNT_ATTR_IDMAP, 0), 0, Some(userns)).map_err(|why| {
            Error::Other(format!("{}: its file system takes no ID-mapped mount: {why}", source.display()))
        })?;
    }
    move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(Error::io("mount on", target))
}

/// Changes a cloned mount, and those below it if `recursive`: sets and clears MOUNT_ATTR_*, and gives it a propagation (MS_*) other
/// than 0.
pub(crate) fn change(tree: &OwnedFd, recursive: bool, attributes: (u64, u64), propagation: u64) -> Result<(), String> {
    set(tree, if recursive { AT_RECURSIVE } else { 0 }, attributes, propagation, None)
}

fn set(
    tree: &OwnedFd,
    flags: u32,
    (attr_set, attr_clr): (u64, u64),
    propagation: u64,
    userns: Option<&File>,
) -> Result<(), String> {
    use std::os::fd::AsRawFd;
    let userns_fd = userns.map_or(0, |file| file.as_raw_fd() as u64);
    let attributes = MountAttr { attr_set, attr_clr, propagation, userns_fd };
    let (path, size) = (Path::new(""), std::mem::size_of::<MountAttr>());
    LinuxSyscall
        .mount_setattr(tree.as_fd(), path, flags | AT_EMPTY_PATH, &attributes, size)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(host_id: u32, container_id: u32, length: u32) -> Vec<IdMapping> {
        vec![IdMapping { host_id, container_id, length }]
    }

    #[test]
    fn ranges() {
        let good = Ids::new(&ids(1 << 16, 0, 1 << 16), &ids(1 << 16, 0, 1 << 16)).unwrap();
        assert_eq!(good.on_node(5).unwrap(), 65541);
        assert!(good.on_node(1 << 16).is_err());
        for (uids, gids) in [
            (ids(0, 0, 10), ids(0, 0, 10)),
            (ids(9, 1, 10), ids(9, 1, 10)),
            (ids(9, 0, 10), ids(9, 0, 11)),
            (ids(9, 0, 0), ids(9, 0, 0)),
            (ids(u32::MAX, 0, 2), ids(u32::MAX, 0, 2)),
            (Vec::new(), Vec::new()),
        ] {
            assert!(Ids::new(&uids, &gids).is_err(), "{uids:?} {gids:?}");
        }
    }
}
