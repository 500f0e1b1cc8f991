//! Sysctls that pods may set: the safe ones, which reach nobody else, and those that the node's administrator allows
//! (`allowedUnsafeSysctls`). Pure but for the kernel's version; words are upstream's.

use k8s_openapi::api::core::v1::Pod;

use crate::pod::status::Ended;
use crate::pod::view;

/// Safe sysctls and the kernel version from which they are per namespace.
const SAFE: [(&str, (u32, u32)); 12] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_wmem", (4, 15)),
];
/// Longest name.
const MAX_LENGTH: usize = 253;

/// Which of a pod's namespaces a sysctl belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

fn namespace(name: &str) -> Option<Namespace> {
    if name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
    {
        Some(Namespace::Ipc)
    } else {
        name.starts_with("net.").then_some(Namespace::Net)
    }
}

/// A name with dots between its parts; one written with slashes may have dots in an interface's name, which become slashes.
pub(crate) fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes().get(at)) {
        Some(Some(b'/')) => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_string(),
    }
}

/// Whether the administrator's patterns can be used.
pub(crate) fn validate_patterns(patterns: &[String]) -> Result<(), String> {
    for pattern in patterns {
        let name = pattern.strip_suffix('*').unwrap_or(pattern);
        let good_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | '/');
        if pattern.len() > MAX_LENGTH || name.is_empty() || !name.chars().all(good_char) {
            return Err(format!("sysctl {pattern:?} is not a name or a name's beginning with \"*\""));
        }
        if namespace(&dotted(name)).is_none() {
            return Err(format!("the sysctl {pattern:?} are not known to be namespaced"));
        }
    }
    Ok(())
}

/// Why the pod may not run here because of its sysctls. `kernel` is the running kernel's version.
pub(crate) fn refuse(pod: &Pod, allowed_unsafe: &[String], kernel: (u32, u32)) -> Option<Ended> {
    let spec = view::spec(pod)?;
    let sysctls = spec.security_context.as_ref()?.sysctls.as_deref()?;
    let (host_net, host_ipc) = (spec.host_network == Some(true), spec.host_ipc == Some(true));
    sysctls.iter().find_map(|sysctl| {
        let name = dotted(&sysctl.name);
        let safe = SAFE.iter().any(|(known, since)| *known == name && kernel >= *since);
        let allowed = || {
            allowed_unsafe.iter().map(|pattern| dotted(pattern)).any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == pattern,
            })
        };
        let why = if !safe && !allowed() {
            format!("{name:?} not allowlisted")
        } else {
            match namespace(&name) {
                Some(Namespace::Ipc) if host_ipc => format!("{name:?} not allowed with host ipc enabled"),
                Some(Namespace::Net) if host_net => format!("{name:?} not allowed with host net enabled"),
                _ => return None,
            }
        };
        Some(Ended::rejection("SysctlForbidden", format!("forbidden sysctl: {why}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_may_set_what() {
        let allowed = ["kernel.msg*".to_string(), "net.core.somaxconn".to_string()];
        for (spec, name, complaint) in [
            (json!({}), "kernel.shm_rmid_forced", None),
            (json!({}), "net/ipv4/tcp_syncookies", None),
            (json!({}), "kernel.msgmax", None),
            (json!({}), "net.core.somaxconn", None),
            (json!({}), "kernel.sem", Some("forbidden sysctl: \"kernel.sem\" not allowlisted")),
            (json!({}), "vm.swappiness", Some("forbidden sysctl: \"vm.swappiness\" not allowlisted")),
            (json!({}), "net.ipv4.tcp_rmem", Some("forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowlisted")),
            (
                json!({"hostIPC": true}),
                "kernel.msgmax",
                Some("forbidden sysctl: \"kernel.msgmax\" not allowed with host ipc enabled"),
            ),
            (
                json!({"hostNetwork": true}),
                "net.ipv4.tcp_syncookies",
                Some("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled"),
            ),
        ] {
            let mut spec = spec;
            spec["containers"] = json!([]);
            spec["securityContext"] = json!({"sysctls": [{"name": name, "value": "1"}]});
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            let refused = refuse(&pod, &allowed, (4, 14));
            assert_eq!(refused.as_ref().map(|refused| refused.message.as_str()), complaint, "{name}");
        }
        assert_eq!(dotted("net/ipv4/conf/eno2.100/rp_filter"), "net.ipv4.conf.eno2/100.rp_filter");
    }

    #[test]
    fn patterns() {
        for (pattern, good) in [
            ("kernel.shm*", true),
            ("net.*", true),
            ("kernel.sem", true),
            ("*", false),
            ("vm.*", false),
            ("Net.x", false),
        ] {
            assert_eq!(validate_patterns(&[pattern.to_string()]).is_ok(), good, "{pattern}");
        }
    }
}
