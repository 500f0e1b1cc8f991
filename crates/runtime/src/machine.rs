//! What this machine and process can do, looked up once.

use std::{
    collections::BTreeSet,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use caps::{CapSet, Capability};
use keelson_cri::v1::Device;

use crate::{
    Error, cgroup, huge_pages,
    oci::{DeviceNode, Machine},
};

/// Looks the machine over.
pub(crate) fn inspect() -> Machine {
    let own = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let bounding = caps::read(None, CapSet::Bounding).unwrap_or_default();
    let capabilities: BTreeSet<String> = own.intersection(&bounding).map(ToString::to_string).collect();
    let unified = cgroup::is_unified();
    let swap_file = Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
    let adjustment = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    let floor = if own.contains(&Capability::CAP_SYS_RESOURCE) { -1000 } else { adjustment.unwrap_or(0) };
    if floor > -1000 {
        tracing::warn!(floor, "without CAP_SYS_RESOURCE, OOM score adjustments of containers are not set below this");
    }
    let (hugetlb, hugetlb_beside) = (has_hugetlb(unified), huge_pages::is_beside());
    if !hugetlb && !hugetlb_beside {
        tracing::warn!("without the control group controller hugetlb, containers' limits of huge pages are not kept");
    }
    Machine {
        capabilities: capabilities.into_iter().collect(),
        unified_cgroups: unified,
        cgroup_hierarchies: cgroup::hierarchies(),
        swap_limit: unified || swap_file.exists(),
        hugetlb,
        hugetlb_beside: hugetlb_beside && !hugetlb,
        apparmor: std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y")),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        user_namespaces: has_user_namespaces(),
        oom_score_adj_floor: floor,
    }
}

/// Whether pods can have user namespaces: they must be allowed, and overlayfs must take ID-mapped layers (Linux 5.19).
fn has_user_namespaces() -> bool {
    let limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces");
    let allowed = limit.is_ok_and(|limit| limit.trim().parse::<u64>().is_ok_and(|limit| limit > 0));
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    allowed && (parts.next(), parts.next()) >= (Some(5), Some(19))
}

fn has_hugetlb(unified: bool) -> bool {
    if unified {
        let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        return controllers.split_whitespace().any(|controller| controller == "hugetlb");
    }
    Path::new("/sys/fs/cgroup/hugetlb").is_dir()
}

/// The nodes a container is to have for `device`: itself, or everything in it if it is a directory.
pub(crate) fn device_nodes(device: &Device) -> Result<Vec<DeviceNode>, Error> {
    let host = std::fs::canonicalize(&device.host_path).map_err(Error::io("resolve the device", &device.host_path))?;
    let permissions = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
    let mut nodes = Vec::new();
    collect(&host, &device.container_path, permissions, 0, &mut nodes);
    if nodes.is_empty() {
        return Err(Error::Invalid(format!("{} is not a device node", device.host_path)));
    }
    Ok(nodes)
}

/// Every device of the machine, for a privileged container.
pub(crate) fn all_devices() -> Vec<DeviceNode> {
    let mut nodes = Vec::new();
    collect(Path::new("/dev"), "/dev", "rwm", 0, &mut nodes);
    nodes
}

fn collect(host: &Path, inside: &str, permissions: &str, depth: usize, nodes: &mut Vec<DeviceNode>) {
    /// Made afresh in every container, or not a device at all.
    const SKIPPED: [&str; 8] =
        ["/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/ptmx", "/dev/.lxc", "/dev/.udev"];
    let Ok(metadata) = std::fs::symlink_metadata(host) else { return };
    let kind = metadata.file_type();
    if kind.is_dir() && depth < 8 && !SKIPPED.contains(&inside) {
        let Ok(entries) = std::fs::read_dir(host) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            collect(&entry.path(), &format!("{inside}/{name}"), permissions, depth + 1, nodes);
        }
    } else if (kind.is_char_device() || kind.is_block_device()) && !SKIPPED.contains(&inside) {
        let device = metadata.rdev();
        nodes.push(DeviceNode {
            path: inside.into(),
            kind: if kind.is_char_device() { 'c' } else { 'b' },
            major: rustix::fs::major(device),
            minor: rustix::fs::minor(device),
            mode: metadata.mode() & 0o777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            permissions: permissions.into(),
            host: host.into(),
            bound: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_described() {
        let device =
            |host: &str| Device { host_path: host.into(), container_path: "/dev/x".into(), permissions: "r".into() };
        let nodes = device_nodes(&device("/dev/null")).unwrap();
        let [null] = nodes.as_slice() else { panic!("{nodes:?}") };
        assert_eq!((null.kind, null.major, null.minor, null.permissions.as_str()), ('c', 1, 3, "r"));
        // As on the node, whose groups supplementary ones are.
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("node");
        let made = std::process::Command::new("mknod").arg(&node).args(["c", "1", "3"]).status().unwrap();
        assert!(made.success());
        std::os::unix::fs::chown(&node, Some(7), Some(8)).unwrap();
        let nodes = device_nodes(&device(node.to_str().unwrap())).unwrap();
        assert_eq!((nodes[0].uid, nodes[0].gid), (7, 8));
        assert!(device_nodes(&device("/etc/passwd")).is_err());
        assert!(device_nodes(&device("/dev/none")).is_err());
        assert!(all_devices().iter().any(|node| node.path == "/dev/null"));
    }
}
