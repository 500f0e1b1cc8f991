//! Which port of a pod a Service's port means.

use k8s_openapi::api::core::v1::{Container, Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// One port as it appears in slices and subsets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Port {
    /// Empty for a Service's only, unnamed port.
    pub name: String,
    pub protocol: String,
    pub port: i32,
    pub app_protocol: Option<String>,
}

/// The ports a pod offers to a Service, in the Service's order. A named port that no container has is left out.
pub(crate) fn pod_ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol.to_owned(),
                port: target(port.target_port.as_ref(), port.port, protocol, pod)?,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn target(target: Option<&IntOrString>, port: i32, protocol: &str, pod: &Pod) -> Option<i32> {
    match target {
        None => Some(port),
        Some(IntOrString::Int(0)) => Some(port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
            spec.containers.iter().chain(sidecars).find_map(|container| named(container, name, protocol))
        }
    }
}

fn named(container: &Container, name: &str, protocol: &str) -> Option<i32> {
    let matches = |port: &&k8s_openapi::api::core::v1::ContainerPort| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    container.ports.iter().flatten().find(matches).map(|port| port.container_port)
}
