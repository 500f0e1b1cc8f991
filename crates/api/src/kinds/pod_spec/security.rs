//! Security contexts of pods and containers.

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
    for sysctl in context.get("sysctls").items() {
        let name = sysctl.get("name");
        if required(name, errors) {
            checked(name, sysctl_name, errors);
        }
    }
    if context.get("fsGroupChangePolicy").is_set() {
        one_of(context.get("fsGroupChangePolicy"), &["Always", "OnRootMismatch"], errors);
    }
    if context.get("supplementalGroupsPolicy").is_set() {
        one_of(context.get("supplementalGroupsPolicy"), &["Merge", "Strict"], errors);
    }
}

/// A container's `securityContext`.
pub(super) fn container(context: View, errors: &mut Errors) {
    if !context.is_set() {
        return;
    }
    identity(context, errors);
    if context.get("procMount").is_set() {
        one_of(context.get("procMount"), &["Default", "Unmasked"], errors);
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
            errors.push(kind.required(if word == "seccomp" {
                ""
            } else {
                "type is required when appArmorProfile is set"
            }));
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
