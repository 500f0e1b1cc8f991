//! The OCI runtime specification of a container, from its CRI configuration, the pod's, and the image's. Pure: everything
//! that must be looked up on the machine comes in through [`Input`].

pub(crate) mod mounts;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use keelson_cri::v1::{
    ContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, SecurityProfile, security_profile::ProfileType,
};
use serde_json::{Value, json};

use crate::{
    Error, huge_pages,
    idmap::Ids,
    image::manifest::ImageConfig,
    refusals,
    shim::{SECCOMP_ANNOTATION, SECCOMP_PROFILE_ANNOTATION, seccomp::runtime_default_profile},
    user::User,
};

/// What Docker and containerd give a container that asks for nothing.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// What it takes to install a seccomp filter without `no_new_privs`, and to give that up again.
const FILTER_INSTALLERS: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SETPCAP"];

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What this machine and process can do.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Capabilities the runtime itself has, and so can give.
    pub capabilities: Vec<String>,
    pub unified_cgroups: bool,
    /// On v1, names of the hierarchies that `libcontainer` puts containers into; see [`crate::cgroup::hierarchies`].
    pub cgroup_hierarchies: Vec<String>,
    /// Whether memory and swap can be limited together.
    pub swap_limit: bool,
    /// Whether huge pages can be limited: by a hierarchy that `libcontainer` uses, or by the unified one beside v1's.
    pub hugetlb: bool,
    pub hugetlb_beside: bool,
    /// Whether the kernel has AppArmor, and whether SELinux is enabled.
    pub apparmor: bool,
    pub selinux: bool,
    pub user_namespaces: bool,
    /// Lowest OOM score adjustment the runtime may set.
    pub oom_score_adj_floor: i64,
}

/// A device node to appear in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceNode {
    pub path: String,
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub permissions: String,
    /// The node's own file of the device.
    pub host: PathBuf,
    /// Mounted on `path` in place of a new file: where files of devices cannot be made, and the runtimes' way out, to mount the
    /// node's file of the same path, leads nowhere.
    pub bound: Option<PathBuf>,
}

pub(crate) struct Input<'a> {
    pub config: &'a ContainerConfig,
    pub sandbox: &'a PodSandboxConfig,
    pub image: &'a ImageConfig,
    pub user: &'a User,
    pub machine: &'a Machine,
    pub rootfs: &'a Path,
    /// Directory of the sandbox's pinned namespaces.
    pub namespaces: &'a Path,
    /// Namespace file of the process namespace to join, for the modes that join one.
    pub pid_namespace: Option<PathBuf>,
    pub cgroup: &'a Path,
    /// `resolv.conf`, `hostname` and such: destination, source.
    pub files: Vec<(&'static str, PathBuf)>,
    pub devices: Vec<DeviceNode>,
    /// The seccomp profile of the node's own that the container asks for.
    pub seccomp: Option<Value>,
    /// Whether another OCI runtime than `libcontainer` runs it, which makes seccomp filters itself.
    pub external: bool,
}

/// The container's security context, or none's.
pub(crate) fn security(config: &ContainerConfig) -> LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default()
}

/// The pod's namespace options; by default everything is the pod's own, and processes the container's.
pub(crate) fn namespaces(sandbox: &PodSandboxConfig) -> NamespaceOption {
    let linux = sandbox.linux.as_ref();
    let options = linux.and_then(|linux| linux.security_context.as_ref()?.namespace_options.clone());
    options.unwrap_or(NamespaceOption { pid: NamespaceMode::Container as i32, ..Default::default() })
}

/// Whether the pod uses the node's network.
pub(crate) fn host_network(sandbox: &PodSandboxConfig) -> bool {
    namespaces(sandbox).network() == NamespaceMode::Node
}

/// The pod's hostname; the node's own for a pod in the node's network, which has none. Empty if it has none otherwise.
pub(crate) fn hostname(sandbox: &PodSandboxConfig) -> String {
    if sandbox.hostname.is_empty() && host_network(sandbox) {
        return rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    sandbox.hostname.clone()
}

/// The command line: the container's words replace the image's as Kubernetes documents for `command` and `args`.
pub(crate) fn command_line(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>, Error> {
    let (command, args) = match (config.command.as_slice(), config.args.as_slice()) {
        ([], []) => (image.entrypoint.as_slice(), image.cmd.as_slice()),
        ([], args) => (image.entrypoint.as_slice(), args),
        (command, args) => (command, args),
    };
    let words: Vec<String> = command.iter().chain(args).cloned().collect();
    if words.is_empty() { Err(Error::Invalid("no command specified".into())) } else { Ok(words) }
}

/// Builds `config.json`.
pub(crate) fn spec(input: &Input<'_>) -> Result<Value, Error> {
    let security = security(input.config);
    let options = namespaces(input.sandbox);
    let seccomp = input.seccomp.is_some() || default_seccomp(&security);
    let lend = seccomp && !security.no_new_privs && !input.external;
    let (capabilities, borrowed) = capabilities(&security, input.machine, lend)?;
    let profile = input.seccomp.clone().filter(|_| input.external).or_else(|| {
        let names = |sets: &Value| serde_json::from_value::<Vec<String>>(sets.get("bounding")?.clone()).ok();
        (seccomp && input.external).then(|| runtime_default_profile(&names(&capabilities).unwrap_or_default()))
    });
    let mut process = json!({
        "terminal": input.config.tty,
        "user": {"uid": input.user.uid, "gid": input.user.gid, "additionalGids": input.user.groups},
        "args": command_line(input.config, input.image)?,
        "env": environment(input),
        "cwd": working_dir(input),
        "capabilities": capabilities,
        "noNewPrivileges": security.no_new_privs,
    });
    let resources = input.config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
    if let Some(process) = process.as_object_mut()
        && resources.oom_score_adj >= input.machine.oom_score_adj_floor
    {
        process.insert("oomScoreAdj".into(), json!(resources.oom_score_adj.min(1000)));
    }
    if let Some(profile) = refusals::apparmor_profile(&security, input.machine)?
        && let Some(process) = process.as_object_mut()
    {
        process.insert("apparmorProfile".into(), json!(profile));
    }
    let (mounts, propagation) = mounts::list(input, &security);
    let mut annotations = BTreeMap::new();
    if input.machine.hugetlb_beside
        && !input.external
        && let Some(limits) = huge_pages::annotation(&resources.hugepage_limits)
    {
        annotations.insert(huge_pages::ANNOTATION, limits);
    }
    if seccomp && !input.external {
        annotations.insert(SECCOMP_ANNOTATION, borrowed.join(","));
        if let Some(profile) = &input.seccomp {
            annotations.insert(SECCOMP_PROFILE_ANNOTATION, profile.to_string());
        }
    }
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "annotations": annotations,
        "process": process,
        "root": {"path": input.rootfs, "readonly": security.readonly_rootfs},
        "mounts": mounts,
        "linux": {
            "namespaces": namespace_list(input, &options, security.privileged),
            "cgroupsPath": input.cgroup,
            "resources": resources_json(&resources, input, security.privileged),
            "devices": device_list(&input.devices),
            "maskedPaths": if security.privileged { Vec::new() } else { security.masked_paths.clone() },
            "readonlyPaths": mounts::readonly_paths(input, &security),
            "rootfsPropagation": propagation,
        },
    });
    if let (Some(profile), Some(linux)) = (profile, spec.get_mut("linux").and_then(Value::as_object_mut)) {
        linux.insert("seccomp".into(), profile);
    }
    Ok(spec)
}

/// `process` of a container's specification, for another command in it.
pub(crate) fn exec_process(spec: &Value, command: &[String], tty: bool) -> Value {
    let mut process = spec.get("process").cloned().unwrap_or_default();
    if let Some(process) = process.as_object_mut() {
        process.insert("args".into(), json!(command));
        process.insert("terminal".into(), json!(tty));
        if tty
            && let Some(env) = process.get_mut("env").and_then(Value::as_array_mut)
            && !env.iter().any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with("TERM=")))
        {
            env.push(json!("TERM=xterm"));
        }
    }
    process
}

fn environment(input: &Input<'_>) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let key = entry.split('=').next().unwrap_or_default().to_owned() + "=";
        match env.iter_mut().find(|old| old.starts_with(&key)) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    };
    set(DEFAULT_PATH.into());
    if input.config.tty {
        set("TERM=xterm".into());
    }
    let hostname = hostname(input.sandbox);
    if !hostname.is_empty() {
        set(format!("HOSTNAME={hostname}"));
    }
    if let Some(home) = &input.user.home {
        set(format!("HOME={home}"));
    }
    for entry in &input.image.env {
        set(entry.clone());
    }
    for pair in &input.config.envs {
        set(format!("{}={}", pair.key, pair.value));
    }
    env
}

/// The working directory, absolute.
pub(crate) fn working_dir(input: &Input<'_>) -> String {
    let dir = [&input.config.working_dir, &input.image.working_dir].into_iter().find(|dir| !dir.is_empty());
    match dir {
        Some(dir) if dir.starts_with('/') => dir.clone(),
        Some(dir) => format!("/{dir}"),
        None => "/".into(),
    }
}

/// Whether the container gets the default seccomp profile.
fn default_seccomp(security: &LinuxContainerSecurityContext) -> bool {
    let asked = security.seccomp.as_ref().map(SecurityProfile::profile_type);
    asked == Some(ProfileType::RuntimeDefault) && !security.privileged
}

/// File of the node's own seccomp profile that the container asks for.
pub(crate) fn seccomp_file(security: &LinuxContainerSecurityContext) -> Option<PathBuf> {
    let own = security.seccomp.as_ref().filter(|profile| profile.profile_type() == ProfileType::Localhost);
    let own = own.filter(|_| !security.privileged)?;
    Some(own.localhost_ref.strip_prefix("localhost/").unwrap_or(&own.localhost_ref).into())
}

/// The pod's IDs on the node if it has a user namespace of its own.
pub(crate) fn user_namespace(sandbox: &PodSandboxConfig) -> Result<Option<Ids>, Error> {
    let options = namespaces(sandbox).userns_options;
    let own = options.filter(|userns| userns.mode() == NamespaceMode::Pod);
    own.map(|userns| Ids::new(&userns.uids, &userns.gids)).transpose()
}

/// The capability sets, and those of them that are only lent for installing a seccomp filter.
fn capabilities(
    security: &LinuxContainerSecurityContext,
    machine: &Machine,
    lend: bool,
) -> Result<(Value, Vec<&'static str>), Error> {
    let name = |name: &String| {
        let upper = name.to_ascii_uppercase();
        if upper.starts_with("CAP_") || upper == "ALL" { upper } else { format!("CAP_{upper}") }
    };
    let asked = security.capabilities.clone().unwrap_or_default();
    let (add, drop): (Vec<_>, Vec<_>) =
        (asked.add_capabilities.iter().map(name).collect(), asked.drop_capabilities.iter().map(name).collect());
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    // In containerd's order: all added, all dropped, single ones added, single ones dropped.
    let mut set: Vec<String> = if security.privileged {
        machine.capabilities.clone()
    } else if all(&drop) {
        Vec::new()
    } else if all(&add) {
        machine.capabilities.clone()
    } else {
        DEFAULT_CAPABILITIES.map(String::from).to_vec()
    };
    if !security.privileged {
        for name in add.iter().filter(|name| *name != "ALL") {
            if !machine.capabilities.contains(name) {
                return Err(Error::Invalid(format!("unknown or unavailable capability {name:?} to add")));
            }
            if !set.contains(name) {
                set.push(name.clone());
            }
        }
        set.retain(|name| !drop.contains(name));
    }
    set.retain(|name| machine.capabilities.contains(name));
    let lent: Vec<&'static str> = FILTER_INSTALLERS
        .into_iter()
        .filter(|name| lend && !set.iter().any(|own| own == name))
        .filter(|name| machine.capabilities.iter().any(|own| own == name))
        .collect();
    set.extend(lent.iter().map(|name| (*name).to_owned()));
    let ambient: Vec<String> = asked.add_ambient_capabilities.iter().map(name).collect();
    let sets = json!({
        "bounding": set, "effective": set, "permitted": set,
        "inheritable": ambient, "ambient": ambient,
    });
    Ok((sets, lent))
}

fn namespace_list(input: &Input<'_>, options: &NamespaceOption, privileged: bool) -> Vec<Value> {
    let pinned = |kind: &str| input.namespaces.join(kind);
    let mut list = vec![json!({"type": "mount"})];
    if options.userns_options.as_ref().is_some_and(|userns| userns.mode() == NamespaceMode::Pod) {
        list.push(json!({"type": "user", "path": pinned("user")}));
    }
    if options.network() != NamespaceMode::Node {
        list.push(json!({"type": "network", "path": pinned("net")}));
        list.push(json!({"type": "uts", "path": pinned("uts")}));
    }
    if options.ipc() != NamespaceMode::Node {
        list.push(json!({"type": "ipc", "path": pinned("ipc")}));
    }
    let own = security(input.config).namespace_options.map_or(options.pid(), |own| own.pid());
    match (own, &input.pid_namespace) {
        (NamespaceMode::Node, _) => {}
        (NamespaceMode::Container, _) | (_, None) => list.push(json!({"type": "pid"})),
        (_, Some(path)) => list.push(json!({"type": "pid", "path": path})),
    }
    if input.machine.unified_cgroups && !privileged {
        list.push(json!({"type": "cgroup"}));
    }
    list
}

fn resources_json(resources: &LinuxContainerResources, input: &Input<'_>, privileged: bool) -> Value {
    let mut rules = Vec::new();
    if privileged {
        rules.push(json!({"allow": true, "access": "rwm"}));
    } else {
        rules.push(json!({"allow": false, "access": "rwm"}));
        for device in &input.devices {
            rules.push(json!({
                "allow": true, "type": device.kind.to_string(), "major": device.major, "minor": device.minor,
                "access": device.permissions,
            }));
        }
    }
    let mut value = linux_resources(resources, input.machine);
    if let Some(value) = value.as_object_mut() {
        value.insert("devices".into(), rules.into());
    }
    value
}

/// CPU, memory, huge page and unified limits in OCI's shape; what is zero or empty in CRI is not set.
pub(crate) fn linux_resources(resources: &LinuxContainerResources, machine: &Machine) -> Value {
    let mut cpu = serde_json::Map::new();
    for (key, value) in
        [("period", resources.cpu_period), ("quota", resources.cpu_quota), ("shares", resources.cpu_shares)]
    {
        if value != 0 {
            cpu.insert(key.into(), json!(value));
        }
    }
    for (key, value) in [("cpus", &resources.cpuset_cpus), ("mems", &resources.cpuset_mems)] {
        if !value.is_empty() {
            cpu.insert(key.into(), json!(value));
        }
    }
    let mut memory = serde_json::Map::new();
    if resources.memory_limit_in_bytes != 0 {
        memory.insert("limit".into(), json!(resources.memory_limit_in_bytes));
        if resources.memory_swap_limit_in_bytes != 0 && machine.swap_limit {
            memory.insert("swap".into(), json!(resources.memory_swap_limit_in_bytes));
        }
    }
    let mut value = json!({"cpu": cpu, "memory": memory});
    if let Some(value) = value.as_object_mut() {
        if machine.hugetlb && !resources.hugepage_limits.is_empty() {
            let limits =
                resources.hugepage_limits.iter().map(|page| json!({"pageSize": page.page_size, "limit": page.limit}));
            value.insert("hugepageLimits".into(), limits.collect());
        }
        if machine.unified_cgroups && !resources.unified.is_empty() {
            value.insert("unified".into(), json!(resources.unified));
        }
    }
    value
}

fn device_list(devices: &[DeviceNode]) -> Vec<Value> {
    let node = |device: &DeviceNode| {
        json!({
            "path": device.path, "type": device.kind.to_string(), "major": device.major, "minor": device.minor,
            "fileMode": device.mode, "uid": device.uid, "gid": device.gid,
        })
    };
    devices.iter().filter(|device| device.bound.is_none()).map(node).collect()
}

#[cfg(test)]
mod tests;
