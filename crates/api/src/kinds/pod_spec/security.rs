//! Security contexts of pods and containers.

use std::collections::HashSet;

use crate::validation::{Errors, View, checked, one_of, required, within};

const MAX_ID: i64 = i32::MAX as i64;

/// The pod's own `securityContext`, and the namespaces it shares.
pub(super) fn pod(spec: View, errors: &mut Errors) {
    let context = spec.get("securityContext");
    identity(context, errors);
    for id in context.get("supplementalGroups").items() {
        within(id, 0, MAX_ID, errors);
    }
    let share = spec.get("shareProcessNamespace");
    if share.bool() && spec.get("hostPID").bool() {
        errors.push(share.invalid("ShareProcessNamespace and HostPID cannot both be enabled"));
    }
    let mut seen = HashSet::new();
    for sysctl in context.get("sysctls").items() {
        let name = sysctl.get("name");
        if required(name, errors) {
            checked(name, sysctl_name, errors);
            if !seen.insert(name.str()) {
                errors.push(name.duplicate());
            }
        }
        let plain = name.str().replace('/', ".");
        if spec.get("hostNetwork").bool() && plain.starts_with("net.") {
            errors.push(name.invalid("may not be specified when 'hostNetwork' is true"));
        }
        let ipc = plain.starts_with("kernel.shm")
            || plain.starts_with("kernel.msg")
            || plain.starts_with("fs.mqueue.")
            || plain == "kernel.sem";
        if spec.get("hostIPC").bool() && ipc {
            errors.push(name.invalid("may not be specified when 'hostIPC' is true"));
        }
    }
    if context.get("seLinuxChangePolicy").is_set() {
        one_of(context.get("seLinuxChangePolicy"), &["MountOption", "Recursive"], errors);
    }
    if context.get("fsGroupChangePolicy").is_set() {
        one_of(context.get("fsGroupChangePolicy"), &["Always", "OnRootMismatch"], errors);
    }
    if context.get("supplementalGroupsPolicy").is_set() {
        one_of(context.get("supplementalGroupsPolicy"), &["Merge", "Strict"], errors);
    }
}

/// A container's `securityContext`.
pub(super) fn container(context: View, host_users: bool, errors: &mut Errors) {
    if !context.is_set() {
        return;
    }
    identity(context, errors);
    if context.get("procMount").is_set() {
        let mount = context.get("procMount");
        one_of(mount, &["Default", "Unmasked"], errors);
        if host_users && mount.str() == "Unmasked" {
            errors.push(mount.invalid("`hostUsers` must be false to use `Unmasked`"));
        }
    }
    let escalation = context.get("allowPrivilegeEscalation");
    if escalation.is_set() && !escalation.bool() {
        if context.get("privileged").bool() {
            errors.push(context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"));
        }
        let capabilities = context.get("capabilities");
        if capabilities.get("add").items().any(|c| c.str() == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(context.invalid(detail));
        }
    }
}

const NOT_WINDOWS_POD: [&str; 11] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const NOT_WINDOWS_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// What a pod that names its operating system may not say.
pub(super) fn operating_system(spec: View, errors: &mut Errors) {
    let (pod_fields, container_fields, detail): (&[&str], &[&str], _) = match spec.value["os"]["name"].as_str() {
        Some("linux") => (&["windowsOptions"], &["windowsOptions"], "windows options cannot be set for a linux pod"),
        Some("windows") => (&NOT_WINDOWS_POD, &NOT_WINDOWS_CONTAINER, "cannot be set for a windows pod"),
        _ => return,
    };
    let mut forbid = |context: View, fields: &[&'static str]| {
        for field in fields.iter().filter(|field| !context.value[**field].is_null()) {
            errors.push(context.get(field).forbidden(detail));
        }
    };
    forbid(spec.get("securityContext"), pod_fields);
    if spec.value["os"]["name"] == "windows" {
        let set = |field: &&'static str| {
            let value = &spec.value[*field];
            // The first two are pointers upstream: false counts.
            if matches!(*field, "hostUsers" | "shareProcessNamespace") { !value.is_null() } else { *value == true }
        };
        let fields = ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
        forbid(spec, &fields.into_iter().filter(|field| set(field)).collect::<Vec<_>>());
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get(list).items() {
            forbid(container.get("securityContext"), container_fields);
        }
    }
}

fn identity(context: View, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if context.get(field).is_set() {
            within(context.get(field), 0, MAX_ID, errors);
        }
    }
    for (field, word) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let profile = context.get(field);
        if !profile.is_set() {
            continue;
        }
        let (kind, path) = (profile.get("type"), profile.get("localhostProfile"));
        if kind.is_empty() {
            errors.push(kind.required(&format!("type is required when {field} is set")));
            continue;
        }
        one_of(kind, &["Localhost", "RuntimeDefault", "Unconfined"], errors);
        match (kind.str() == "Localhost", path.is_set()) {
            (true, false) => errors.push(path.required(&format!("must be set when {word} type is Localhost"))),
            (false, true) => errors.push(path.invalid(&format!("can only be set when {word} type is Localhost"))),
            _ => {}
        }
        if word == "seccomp" && path.is_set() {
            super::containers::descending(path, errors);
        }
    }
}

fn sysctl_name(name: &str) -> Vec<String> {
    let part = |part: &str| {
        let ends = |b: Option<char>| b.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(part.chars().next())
            && ends(part.chars().last())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
    };
    if name.len() <= 253 && name.split(['.', '/']).all(part) {
        return Vec::new();
    }
    vec![
        "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            .to_string(),
    ]
}
