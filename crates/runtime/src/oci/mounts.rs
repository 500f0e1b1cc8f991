//! Mounts of a container: what every one has, what its pod brings, and which of them `libcontainer` is not to make.

use std::path::Path;

use keelson_cri::v1::{LinuxContainerSecurityContext, Mount, MountPropagation};
use serde_json::{Value, json};

use super::Input;
use crate::{
    Error, cdi,
    shim::late::{LateMount, LateMounts},
};

/// The container's own control groups at the usual place.
///
/// On v1 `libcontainer` is not asked for them: it looks for itself in the node's `/proc` by the PID that it has in the
/// container's PID namespace, so that a container that joins another's starts only if some process of the node has that
/// number; and what it mounts can be written to by everybody.
fn cgroup_mounts(input: &Input<'_>, mode: &str) -> Vec<Value> {
    const PLACE: &str = "/sys/fs/cgroup";
    let options = ["nosuid", "noexec", "nodev", "relatime", mode];
    if input.machine.unified_cgroups || input.external {
        return vec![json!({"destination": PLACE, "type": "cgroup", "source": "cgroup", "options": options})];
    }
    let place = json!({"destination": PLACE, "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "noexec", "nodev", "mode=755", "size=64k"]});
    let group = input.cgroup.strip_prefix("/").unwrap_or(input.cgroup);
    let bind = |name: &String| {
        let options = [["rbind", "rprivate"].as_slice(), &options].concat();
        json!({"destination": format!("{PLACE}/{name}"), "type": "bind",
            "source": Path::new(PLACE).join(name).join(group), "options": options})
    };
    std::iter::once(place).chain(input.machine.cgroup_hierarchies.iter().map(bind)).collect()
}

/// The mounts of a specification, parents before children, and the propagation of its root: the widest that any mount asks for.
pub(super) fn list(input: &Input<'_>, security: &LinuxContainerSecurityContext) -> (Vec<Value>, &'static str) {
    let given = |destination: &str| {
        input.config.mounts.iter().any(|mount| Path::new(&mount.container_path) == Path::new(destination))
    };
    let mode = if security.privileged { "rw" } else { "ro" };
    let mut list = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", mode]}),
    ];
    list.extend(cgroup_mounts(input, mode));
    // Parents before children, whatever order they came in, or a volume would hide what is below it.
    let mut nested: Vec<(usize, Value)> = Vec::new();
    let depth = |path: &str| Path::new(path).components().count();
    for (destination, source) in input.files.iter().filter(|(destination, _)| !given(destination)) {
        let mut options = vec!["rbind", "rprivate"];
        options.push(if security.readonly_rootfs && *destination != "/dev/shm" { "ro" } else { "rw" });
        let mount = json!({"destination": destination, "type": "bind", "source": source, "options": options});
        nested.push((depth(destination), mount));
    }
    let mut propagation = "private";
    for mount in &input.config.mounts {
        let own = match mount.propagation() {
            MountPropagation::PropagationPrivate => "rprivate",
            MountPropagation::PropagationHostToContainer => "rslave",
            MountPropagation::PropagationBidirectional => "rshared",
        };
        propagation = match (own, propagation) {
            ("rshared", _) | (_, "shared") => "shared",
            ("rslave", _) | (_, "slave") => "slave",
            _ => "private",
        };
        nested.push((depth(&mount.container_path), bind_mount(mount, own)));
    }
    nested.sort_by_key(|(depth, _)| *depth);
    list.extend(nested.into_iter().map(|(_, mount)| mount));
    for device in &input.devices {
        if let Some(source) = &device.bound {
            list.push(json!({"destination": device.path, "type": "bind", "source": source, "options": ["bind"]}));
        }
    }
    (list, propagation)
}

/// Paths that nobody in the container may write to.
pub(super) fn readonly_paths(input: &Input<'_>, security: &LinuxContainerSecurityContext) -> Vec<String> {
    if security.privileged {
        return Vec::new();
    }
    // The directory around the control groups is a file system of this runtime's own on v1.
    let own = !input.machine.unified_cgroups && !input.external;
    let around = own.then(|| "/sys/fs/cgroup".to_owned());
    security.readonly_paths.iter().cloned().chain(around).collect()
}

fn bind_mount(mount: &Mount, propagation: &str) -> Value {
    let access = match (mount.readonly, mount.recursive_read_only) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, _) => "rw",
    };
    let mut options = vec!["rbind", propagation, access];
    if mount.image.as_ref().is_some_and(|image| !image.image.is_empty()) {
        // What an image brings as a volume is not to be run (KEP-4639).
        options.extend(["noexec", "nosuid", "nodev"]);
    }
    json!({"destination": mount.container_path, "type": "bind", "source": mount.host_path, "options": options})
}

/// Leaves to a hook (see [`crate::shim::late`]) the mounts of `spec` that `libcontainer` would not make as they are asked for: all that
/// show something of the node, if the pod brings a `/dev` of its own or lets mounts travel. Other
/// runtimes do both. Whether there are such mounts.
pub(crate) fn defer(spec: &mut Value, rootfs: &Path) -> Result<bool, Error> {
    let is_bind = |mount: &Value| mount["type"] == "bind";
    let own_dev =
        |mount: &Value| is_bind(mount) && mount["destination"].as_str().map(Path::new) == Some(Path::new("/dev"));
    let travels = spec["linux"]["rootfsPropagation"] != "private";
    let Some(mounts) = spec.get_mut("mounts").and_then(Value::as_array_mut) else { return Ok(false) };
    if !travels && !mounts.iter().any(own_dev) {
        return Ok(false);
    }
    let (late, kept): (Vec<Value>, Vec<Value>) = mounts.drain(..).partition(is_bind);
    *mounts = kept;
    let say = |error: serde_json::Error| Error::Other(format!("put off a mount: {error}"));
    let mounts = late.into_iter().map(serde_json::from_value::<LateMount>).collect::<Result<_, _>>().map_err(say)?;
    let text = serde_json::to_string(&LateMounts { root: rootfs.into(), mounts }).map_err(say)?;
    // Of the node: the hook runs before the container's file system is the root.
    let hook = json!({"path": "/proc/self/exe", "args": ["keelson", "shim", "late-mounts", text]});
    // Others find the file system complete.
    cdi::list(spec, &["hooks", "createContainer"]).insert(0, hook);
    Ok(true)
}
