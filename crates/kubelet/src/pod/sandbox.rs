//! The CRI configuration of a pod's sandbox. Pure.

use std::collections::HashMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, SELinuxOptions, SeccompProfile};
use keelson_cri::v1 as cri;

use super::view;
use crate::logs;
use crate::runtime::labels;
use crate::sysctl;

/// Most search paths and nameservers a resolver takes (upstream's limits).
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

/// What a sandbox depends on besides its pod.
pub(crate) struct Facts<'a> {
    pub attempt: u32,
    pub pod_logs_dir: &'a Path,
    pub cluster_dns: &'a [String],
    pub cluster_domain: &'a str,
    /// The node's resolver configuration.
    pub node_dns: &'a Resolver,
    pub cgroup_parent: String,
}

/// A resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads resolv.conf text.
    pub(crate) fn parse(text: &str) -> Resolver {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.servers.extend(words.next().map(str::to_string)),
                Some("search") => resolver.searches = words.map(str::to_string).collect(),
                Some("domain") if resolver.searches.is_empty() => {
                    resolver.searches = words.take(1).map(str::to_string).collect();
                }
                Some("options") => resolver.options = words.map(str::to_string).collect(),
                _ => {}
            }
        }
        resolver
    }
}

/// The sandbox's configuration.
pub(crate) fn config(pod: &Pod, facts: &Facts<'_>) -> cri::PodSandboxConfig {
    let (namespace, name, uid) = (view::namespace(pod), view::name(pod), view::uid(pod));
    let spec = view::spec(pod);
    let host_network = view::host_network(pod);
    // The node's own name is not the pod's to set: with one, containerd's runc refuses a sandbox in the node's network.
    let own_name = || view::hostname_in_pod(pod, facts.cluster_domain).unwrap_or_else(|_| view::hostname(pod));
    let hostname = if host_network { String::new() } else { own_name() };
    let mut own_labels: HashMap<String, String> = pod.metadata.labels.clone().into_iter().flatten().collect();
    own_labels.insert(labels::POD_NAME.into(), name.into());
    own_labels.insert(labels::POD_NAMESPACE.into(), namespace.into());
    own_labels.insert(labels::POD_UID.into(), uid.into());
    let mut annotations: HashMap<String, String> = pod.metadata.annotations.clone().into_iter().flatten().collect();
    annotations.entry(view::CONFIG_SOURCE.into()).or_insert_with(|| "api".into());
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.into(),
            uid: uid.into(),
            namespace: namespace.into(),
            attempt: facts.attempt,
        }),
        hostname,
        log_directory: logs::pod_directory(facts.pod_logs_dir, namespace, name, uid).to_string_lossy().into_owned(),
        dns_config: Some(dns(pod, facts)),
        port_mappings: if host_network { Vec::new() } else { port_mappings(pod) },
        labels: own_labels,
        annotations,
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: facts.cgroup_parent.clone(),
            security_context: Some(security(pod)),
            sysctls: spec
                .and_then(|spec| spec.security_context.as_ref())
                .and_then(|context| context.sysctls.as_ref())
                .into_iter()
                .flatten()
                .map(|sysctl| (sysctl::dotted(&sysctl.name), sysctl.value.clone()))
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Which namespaces a pod's containers share with the node.
pub(crate) fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let spec = view::spec(pod);
    let node_if = |is: Option<bool>, otherwise: cri::NamespaceMode| {
        if is == Some(true) { cri::NamespaceMode::Node as i32 } else { otherwise as i32 }
    };
    let shared = spec.and_then(|spec| spec.share_process_namespace) == Some(true);
    let own_pid = if shared { cri::NamespaceMode::Pod } else { cri::NamespaceMode::Container };
    cri::NamespaceOption {
        network: node_if(spec.and_then(|spec| spec.host_network), cri::NamespaceMode::Pod),
        ipc: node_if(spec.and_then(|spec| spec.host_ipc), cri::NamespaceMode::Pod),
        pid: node_if(spec.and_then(|spec| spec.host_pid), own_pid),
        ..Default::default()
    }
}

fn security(pod: &Pod) -> cri::LinuxSandboxSecurityContext {
    let context = view::spec(pod).and_then(|spec| spec.security_context.as_ref());
    let int = |value: Option<i64>| value.map(|value| cri::Int64Value { value });
    let mut supplemental_groups = context.and_then(|c| c.supplemental_groups.clone()).unwrap_or_default();
    supplemental_groups.extend(context.and_then(|context| context.fs_group));
    let any_privileged = view::init_containers(pod)
        .iter()
        .chain(view::containers(pod))
        .any(|container| container.security_context.as_ref().and_then(|context| context.privileged) == Some(true));
    let run_as_user = context.and_then(|context| context.run_as_user);
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: int(run_as_user),
        // CRI takes a group only with a user.
        run_as_group: int(context.and_then(|context| context.run_as_group).filter(|_| run_as_user.is_some())),
        supplemental_groups,
        privileged: any_privileged,
        selinux_options: context.and_then(|context| context.se_linux_options.as_ref()).map(selinux),
        // The sandbox's own process always runs under the runtime's default profile, as upstream's.
        seccomp: Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::RuntimeDefault as i32,
            localhost_ref: String::new(),
        }),
        ..Default::default()
    }
}

/// SELinux labels for CRI.
pub(crate) fn selinux(options: &SELinuxOptions) -> cri::SeLinuxOption {
    cri::SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

/// A seccomp profile for CRI; `Localhost` names a file below `<root>/seccomp`.
pub(crate) fn seccomp(profile: Option<&SeccompProfile>, root_dir: &Path) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (profile_type, localhost_ref) = match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, String::new()),
        Some("Localhost") => {
            let name = profile.and_then(|profile| profile.localhost_profile.as_deref()).unwrap_or_default();
            (ProfileType::Localhost, root_dir.join("seccomp").join(name).to_string_lossy().into_owned())
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile { profile_type: profile_type as i32, localhost_ref }
}

fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    let sidecars = view::init_containers(pod).iter().filter(|container| view::is_sidecar(container));
    let ports = sidecars.chain(view::containers(pod)).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let host_port = port.host_port.filter(|port| *port > 0)?;
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp,
                Some("SCTP") => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            };
            Some(cri::PortMapping {
                protocol: protocol as i32,
                container_port: port.container_port,
                host_port,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// The pod's resolver configuration, by its policy and its own additions.
pub(crate) fn dns(pod: &Pod, facts: &Facts<'_>) -> cri::DnsConfig {
    let spec = view::spec(pod);
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !view::host_network(pod),
        _ => false,
    } && !facts.cluster_dns.is_empty();
    let mut dns = if cluster {
        let domain = facts.cluster_domain;
        let namespace = view::namespace(pod);
        let mut searches = vec![
            format!("{namespace}.svc.{domain}"),
            format!("svc.{domain}"),
            domain.trim_end_matches('.').to_string(),
        ];
        searches.extend(facts.node_dns.searches.iter().cloned());
        Resolver { servers: facts.cluster_dns.to_vec(), searches, options: vec!["ndots:5".into()] }
    } else if policy == "None" {
        Resolver::default()
    } else {
        facts.node_dns.clone()
    };
    if let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        dns.servers.extend(own.nameservers.iter().flatten().cloned());
        dns.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let Some(name) = option.name.as_deref() else { continue };
            // A pod's own option replaces the one of the same name.
            dns.options.retain(|known| known.split(':').next() != Some(name));
            dns.options.push(match option.value.as_deref().filter(|value| !value.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name.to_string(),
            });
        }
    }
    let mut seen = std::collections::HashSet::new();
    dns.searches.retain(|search| seen.insert(search.clone()));
    seen.clear();
    dns.servers.retain(|server| seen.insert(server.clone()));
    dns.servers.truncate(MAX_NAMESERVERS);
    dns.searches.truncate(MAX_SEARCHES);
    cri::DnsConfig { servers: dns.servers, searches: dns.searches, options: dns.options }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn make(spec: serde_json::Value) -> cri::PodSandboxConfig {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x"}}, "spec": spec}),
        )
        .unwrap();
        let node_dns = Resolver::parse("# c\nnameserver 10.0.0.2\nsearch corp.example\noptions timeout:1\n");
        config(
            &pod,
            &Facts {
                attempt: 2,
                pod_logs_dir: Path::new("/logs"),
                cluster_dns: &["10.96.0.10".to_string()],
                cluster_domain: "cluster.local",
                node_dns: &node_dns,
                cgroup_parent: "/kubepods/podu".into(),
            },
        )
    }

    #[test]
    fn names_and_ports() {
        let config = make(json!({"containers": [{"name": "c", "ports": [
            {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}, {"containerPort": 81}]}]}));
        assert_eq!(config.log_directory, "/logs/ns_p_u");
        assert_eq!(config.hostname, "p");
        assert_eq!(config.labels.get("io.kubernetes.pod.uid").map(String::as_str), Some("u"));
        assert_eq!(config.labels.get("app").map(String::as_str), Some("x"));
        assert_eq!(config.port_mappings.len(), 1);
        assert_eq!(config.metadata.unwrap().attempt, 2);
        assert_eq!(make(json!({"containers": [], "hostNetwork": true})).hostname, "");
    }

    #[test]
    fn dns_policies() {
        let cluster = (
            vec!["10.96.0.10"],
            vec!["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"],
            vec!["ndots:5"],
        );
        let node = (vec!["10.0.0.2"], vec!["corp.example"], vec!["timeout:1"]);
        for (spec, (servers, searches, options)) in [
            (json!({"containers": []}), cluster.clone()),
            (json!({"containers": [], "dnsPolicy": "Default"}), node.clone()),
            (json!({"containers": [], "hostNetwork": true}), node.clone()),
            (json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), cluster),
            (
                json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.2.3.4"],
                    "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                (vec!["1.2.3.4"], vec!["a.b"], vec!["ndots:2", "edns0"]),
            ),
        ] {
            let dns = make(spec.clone()).dns_config.unwrap();
            assert_eq!(
                (dns.servers, dns.searches, dns.options),
                (
                    servers.iter().map(|s| s.to_string()).collect(),
                    searches.iter().map(|s| s.to_string()).collect(),
                    options.iter().map(|s| s.to_string()).collect(),
                ),
                "{spec}"
            );
        }
    }
}
