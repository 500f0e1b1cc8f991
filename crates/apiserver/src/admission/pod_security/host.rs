//! What reaches from a pod into its node: namespaces, ports, probes of other hosts, kernel settings, Windows host processes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{Finding, Pod, failing, finding, named, plural, quoted, setters, uses};
use super::policy::Version;

pub(super) fn namespaces(pod: Pod<'_>, _: Version) -> Option<Finding> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec[*field] == true);
    let shared: Vec<_> = shared.map(|field| format!("{field}=true")).collect();
    finding("host namespaces", (!shared.is_empty()).then(|| shared.join(", ")))
}

pub(super) fn ports(pod: Pod<'_>, _: Version) -> Option<Finding> {
    // In the order of their texts, as upstream.
    let mut taken = BTreeSet::new();
    let bad = failing(pod, |container| {
        let ports = container.0["ports"].as_array().into_iter().flatten();
        let ports = ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0);
        ports.map(|port| taken.insert(port.to_string())).count() > 0
    });
    let detail = named("container", &bad).map(|who| {
        let (uses, plural) = (uses(bad.len()), plural(taken.len()));
        format!("{who} {uses} hostPort{plural} {}", taken.into_iter().collect::<Vec<_>>().join(", "))
    });
    finding("hostPort", detail)
}

pub(super) fn probes(pod: Pod<'_>, _: Version) -> Option<Finding> {
    let (mut bad, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for container in pod.containers() {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container.0[probe]);
        let hooks = ["postStart", "preStop"].map(|hook| &container.0["lifecycle"][hook]);
        for handler in probes.into_iter().chain(hooks) {
            for way in ["httpGet", "tcpSocket"] {
                if let Some(host) = handler[way]["host"].as_str().filter(|host| !host.is_empty()) {
                    hosts.insert(host);
                    bad.insert(container.name());
                }
            }
        }
    }
    let bad: Vec<_> = bad.into_iter().collect();
    let detail = named("container", &bad).map(|who| {
        let (uses, plural) = (uses(bad.len()), plural(hosts.len()));
        format!("{who} {uses} probe or lifecycle host{plural} {}", quoted(hosts.into_iter()))
    });
    finding("probe or lifecycle host", detail)
}

/// Settings of the kernel that are the pod's own, and the 1.x since which they are allowed.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

pub(super) fn sysctls(pod: Pod<'_>, version: Version) -> Option<Finding> {
    let list = pod.security()["sysctls"].as_array().into_iter().flatten();
    let names = list.filter_map(|sysctl| sysctl.get("name").and_then(Value::as_str));
    let safe = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && version.since(*since));
    let unsafe_ones: Vec<_> = names.filter(|name| !safe(name)).collect();
    finding("forbidden sysctls", (!unsafe_ones.is_empty()).then(|| unsafe_ones.join(", ")))
}

pub(super) fn windows_process(pod: Pod<'_>, _: Version) -> Option<Finding> {
    let is_host = |security: &Value| security["windowsOptions"]["hostProcess"] == true;
    let bad = failing(pod, |container| is_host(container.security()));
    let detail = setters(is_host(pod.security()), &bad);
    finding(
        "hostProcess",
        detail.map(|who| format!("{who} must not set securityContext.windowsOptions.hostProcess=true")),
    )
}
