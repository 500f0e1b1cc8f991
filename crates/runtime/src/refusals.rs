//! What a request may ask for and this runtime, or this machine, does not do. It is refused before anything is made, with
//! the field's name: a pod that runs without what it asked for would be worse than one that does not run.

#![allow(deprecated, reason = "what is deprecated is refused, not ignored")]

use std::path::Path;

use keelson_cri::mountinfo;
use keelson_cri::v1::{
    ContainerConfig, LinuxContainerSecurityContext, MountPropagation, NamespaceMode, PodSandboxConfig, SeLinuxOption,
    SecurityProfile, security_profile::ProfileType,
};

use crate::{Error, oci, oci::Machine};

/// Prefix of the names under which profiles of the node are asked for, by an old convention that kubelets keep.
const LOCALHOST_PREFIX: &str = "localhost/";

/// Refuses what no sandbox can have here.
pub(crate) fn sandbox(config: &PodSandboxConfig, machine: &Machine) -> Result<(), Error> {
    if config.windows.is_some() {
        return Err(unsupported("windows", "this is a Linux runtime"));
    }
    let Some(security) = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()) else {
        return Ok(());
    };
    selinux("linux.security_context.selinux_options", security.selinux_options.as_ref(), machine)?;
    apparmor("linux.security_context.apparmor", security.apparmor.as_ref(), machine)?;
    if security.seccomp.is_none() {
        deprecated("linux.security_context.seccomp_profile_path", &security.seccomp_profile_path)?;
    }
    let options = oci::namespaces(config);
    if oci::user_namespace(config)?.is_some() {
        for (name, mode) in [("network", options.network()), ("pid", options.pid()), ("ipc", options.ipc())] {
            if mode == NamespaceMode::Node {
                return Err(Error::Invalid(format!(
                    "linux.security_context.namespace_options.{name}: a pod with a user namespace cannot use the node's"
                )));
            }
        }
    }
    Ok(())
}

/// Refuses what no container can have here, or not in its pod.
pub(crate) fn container(config: &ContainerConfig, pod: &PodSandboxConfig, machine: &Machine) -> Result<(), Error> {
    if config.windows.is_some() {
        return Err(unsupported("windows", "this is a Linux runtime"));
    }
    let security = oci::security(config);
    selinux("linux.security_context.selinux_options", security.selinux_options.as_ref(), machine)?;
    apparmor_profile(&security, machine)?;
    if security.seccomp.is_none() {
        deprecated("linux.security_context.seccomp_profile_path", &security.seccomp_profile_path)?;
    }
    let pod_privileged = pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref()).map(|s| s.privileged);
    if security.privileged && pod_privileged == Some(false) {
        return Err(Error::Invalid("no privileged container allowed in sandbox".into()));
    }
    let userns = oci::user_namespace(pod)?;
    if let Some(own) = &security.namespace_options
        && own.userns_options.is_some()
        && own.userns_options != oci::namespaces(pod).userns_options
    {
        return Err(Error::Invalid(
            "linux.security_context.namespace_options.userns_options: differs from the pod's".into(),
        ));
    }
    let resources = config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    if !machine.unified_cgroups && resources.is_some_and(|resources| !resources.unified.is_empty()) {
        return Err(unsupported("linux.resources.unified", "this machine has cgroup v1"));
    }
    for mount in &config.mounts {
        let at = |field: &str| format!("mounts[{}].{field}", mount.container_path);
        let image = mount.image.as_ref().is_some_and(|image| !image.image.is_empty());
        if image && !mount.host_path.is_empty() {
            return Err(Error::Invalid(format!("{}: an image is mounted, not a path", at("host_path"))));
        }
        if mount.recursive_read_only && !mount.readonly {
            return Err(Error::Invalid(format!("{}: needs readonly as well", at("recursive_read_only"))));
        }
        if mount.recursive_read_only && mount.propagation() != MountPropagation::PropagationPrivate {
            return Err(Error::Invalid(format!("{}: needs private propagation", at("recursive_read_only"))));
        }
        if mount.propagation() == MountPropagation::PropagationBidirectional && userns.is_some() {
            return Err(unsupported(&at("propagation"), "not to the node from a pod with a user namespace"));
        }
        match (&userns, mount.uid_mappings.as_slice(), mount.gid_mappings.as_slice()) {
            (_, [], []) => {}
            (Some(pod), [uids], [gids]) if pod.is(uids) && pod.is(gids) => {}
            _ => {
                return Err(Error::Invalid(format!(
                    "{}: differ from those of the pod",
                    at("uidMappings, gidMappings")
                )));
            }
        }
        if !image {
            propagation(&at("propagation"), &mount.host_path, mount.propagation())?;
        }
    }
    Ok(())
}

/// The AppArmor profile to run under; `None` for the kernel's own choice.
pub(crate) fn apparmor_profile(
    security: &LinuxContainerSecurityContext,
    machine: &Machine,
) -> Result<Option<String>, Error> {
    let field = "linux.security_context.apparmor";
    match &security.apparmor {
        Some(profile) => apparmor(field, Some(profile), machine),
        None => {
            deprecated("linux.security_context.apparmor_profile", &security.apparmor_profile)?;
            Ok(None)
        }
    }
}

fn apparmor(field: &str, profile: Option<&SecurityProfile>, machine: &Machine) -> Result<Option<String>, Error> {
    let Some(profile) = profile else { return Ok(None) };
    match profile.profile_type() {
        ProfileType::Unconfined => Ok(None),
        // containerd's rule: without AppArmor there is no default profile either, and nobody is refused for that.
        ProfileType::RuntimeDefault if !machine.apparmor => Ok(None),
        ProfileType::RuntimeDefault => Err(unsupported(field, "this runtime has no default AppArmor profile")),
        ProfileType::Localhost if !machine.apparmor => Err(unsupported(field, "this node's kernel has no AppArmor")),
        ProfileType::Localhost => {
            let name = profile.localhost_ref.strip_prefix(LOCALHOST_PREFIX).unwrap_or(&profile.localhost_ref);
            Ok(Some(name.to_owned()))
        }
    }
}

fn selinux(field: &str, options: Option<&SeLinuxOption>, machine: &Machine) -> Result<(), Error> {
    let asked = options.is_some_and(|o| [&o.user, &o.role, &o.r#type, &o.level].iter().any(|part| !part.is_empty()));
    match (asked, machine.selinux) {
        (false, _) => Ok(()),
        (true, false) => Err(unsupported(field, "SELinux is not enabled on this node")),
        (true, true) => Err(unsupported(field, "this runtime sets no SELinux labels")),
    }
}

fn deprecated(field: &str, value: &str) -> Result<(), Error> {
    match value {
        "" | "unconfined" | "runtime/default" | "docker/default" => Ok(()),
        _ => Err(unsupported(field, "the field is deprecated; use the profile field of the same context")),
    }
}

fn unsupported(field: &str, why: &str) -> Error {
    Error::Unsupported(format!("{field} is not supported: {why}"))
}

/// Checks that mounts can travel the way that is asked for, in containerd's words.
fn propagation(field: &str, host_path: &str, wanted: MountPropagation) -> Result<(), Error> {
    if wanted == MountPropagation::PropagationPrivate {
        return Ok(());
    }
    let path = std::fs::canonicalize(host_path).unwrap_or_else(|_| host_path.into());
    let table = std::fs::read_to_string(mountinfo::TABLE).map_err(Error::io("read", mountinfo::TABLE))?;
    let Some((point, shared, slave)) = mount_of(&table, &path) else { return Ok(()) };
    let complain = |what: &str| {
        Err(Error::Invalid(format!("{field}: path {host_path:?} is mounted on {point:?} but it is not a {what} mount")))
    };
    match wanted {
        MountPropagation::PropagationBidirectional if !shared => complain("shared"),
        MountPropagation::PropagationHostToContainer if !shared && !slave => complain("shared or slave"),
        _ => Ok(()),
    }
}

/// The mount that `path` is on, by a mount table: its mount point, whether it is shared, whether a slave.
fn mount_of(table: &str, path: &Path) -> Option<(String, bool, bool)> {
    let mounts = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let point = mountinfo::unescaped(fields.get(4)?).to_string_lossy().into_owned();
        let tags = fields.get(6..)?.iter().take_while(|field| **field != "-");
        let has = |tag: &str| tags.clone().any(|field| field.starts_with(tag));
        let flags = (has("shared:"), has("master:"));
        path.starts_with(&point).then_some((point, flags.0, flags.1))
    });
    // Of several on one point the last one is on top.
    mounts.fold(None, |best: Option<(String, bool, bool)>, next| match best {
        Some(best) if best.0.len() > next.0.len() => Some(best),
        _ => Some(next),
    })
}

#[cfg(test)]
mod tests;
