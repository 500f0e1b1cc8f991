//! The subsets a Service's Endpoints should have.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::common::objects::is_deleting;
use crate::common::pods;
use crate::endpointslice::plan::{HEADLESS, hostname, is_headless, pod_ip};
use crate::endpointslice::{Port, pod_ports};

pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Our value of [`MANAGED_BY`].
pub const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses of one object; more are left out, ready ones last.
const MAX_ADDRESSES: usize = 1000;

/// The Endpoints that a Service should have, made from those it has.
pub fn plan(service: &Service, pods: &[&Pod], existing: Option<&Endpoints>) -> Endpoints {
    let (subsets, truncated) = subsets(service, pods);
    let mut wanted = existing.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    wanted.metadata.labels = Some(labels);
    if truncated {
        wanted.metadata.annotations.get_or_insert_default().insert(OVER_CAPACITY.into(), "truncated".into());
    } else if let Some(annotations) = &mut wanted.metadata.annotations {
        annotations.remove(OVER_CAPACITY);
        if annotations.is_empty() {
            wanted.metadata.annotations = None;
        }
    }
    wanted.subsets = (!subsets.is_empty()).then_some(subsets);
    wanted
}

/// Ports that the same addresses answer on share a subset.
fn subsets(service: &Service, pods: &[&Pod]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.as_ref();
    let publish = spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let family = spec.and_then(|spec| spec.ip_families.as_ref()?.first()).map_or("IPv4", String::as_str);
    let has_ports = spec.is_some_and(|spec| spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()));
    let mut addresses: Vec<(bool, EndpointAddress, &Pod)> = Vec::new();
    for pod in pods {
        if pods::is_finished(pod) || is_deleting(&pod.metadata) && !publish {
            continue;
        }
        let Some(ip) = pod_ip(pod, family) else { continue };
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(service, pod),
            node_name: pods::node(pod).map(str::to_owned),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".into()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectReference::default()
            }),
        };
        addresses.push((publish || pods::is_ready(pod), address, pod));
    }
    addresses.sort_by(|a, b| (!a.0, &a.1.ip, &a.2.metadata.uid).cmp(&(!b.0, &b.1.ip, &b.2.metadata.uid)));
    let truncated = addresses.len() > MAX_ADDRESSES;
    addresses.truncate(MAX_ADDRESSES);

    let mut by_port: BTreeMap<Option<Port>, BTreeSet<usize>> = BTreeMap::new();
    for (index, (_, _, pod)) in addresses.iter().enumerate() {
        if has_ports {
            for port in pod_ports(service, pod) {
                by_port.entry(Some(port)).or_default().insert(index);
            }
        } else if is_headless(service) {
            by_port.entry(None).or_default().insert(index);
        }
    }
    let mut by_addresses: BTreeMap<BTreeSet<usize>, Vec<Port>> = BTreeMap::new();
    for (port, set) in by_port {
        by_addresses.entry(set).or_default().extend(port);
    }
    let subsets = by_addresses.into_iter().map(|(set, ports)| {
        let of = |ready: bool| {
            let chosen: Vec<EndpointAddress> = set
                .iter()
                .filter_map(|index| addresses.get(*index))
                .filter(|(is_ready, _, _)| *is_ready == ready)
                .map(|(_, address, _)| address.clone())
                .collect();
            (!chosen.is_empty()).then_some(chosen)
        };
        let ports: Vec<EndpointPort> = ports
            .into_iter()
            .map(|port| EndpointPort {
                name: Some(port.name).filter(|name| !name.is_empty()),
                protocol: Some(port.protocol),
                port: port.port,
                app_protocol: port.app_protocol,
            })
            .collect();
        EndpointSubset {
            addresses: of(true),
            not_ready_addresses: of(false),
            ports: (!ports.is_empty()).then_some(ports),
        }
    });
    (subsets.collect(), truncated)
}

#[cfg(test)]
mod tests;
