//! The slices a Service should have, as the smallest change to those it has.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::ports::{Port, pod_ports};
use crate::common::objects::{is_deleting, label, name, namespace, uid};
use crate::common::owners::controller_reference;
use crate::common::pods;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Our value of [`MANAGED_BY`].
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Set on slices (and Endpoints) of headless Services.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// What to do about the slices of one Service.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    /// As they should be, each under its own name and version.
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<EndpointSlice>,
}

/// What the plan is made from.
pub struct Observed<'a> {
    pub service: &'a Service,
    /// Pods that the selector matches.
    pub pods: &'a [&'a Pod],
    /// This controller's slices of the Service.
    pub slices: &'a [&'a EndpointSlice],
    /// `topology.kubernetes.io/zone` by node.
    pub zones: &'a HashMap<String, String>,
    pub max_endpoints: usize,
}

/// Address types a Service is served with.
fn address_types(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let families: Vec<&str> =
        spec.iter().flat_map(|spec| spec.ip_families.iter().flatten()).map(String::as_str).collect();
    if families.is_empty() {
        // A headless Service from before families, or one whose address has yet to be given out.
        let is_v6 = spec.and_then(|spec| spec.cluster_ip.as_deref()).is_some_and(|ip| ip.contains(':'));
        return vec![if is_v6 { "IPv6" } else { "IPv4" }];
    }
    families
        .into_iter()
        .filter_map(|family| match family {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect()
}

/// Whether the Service has no address of its own.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).is_some_and(|ip| ip == "None")
}

/// A pod's address of a family.
pub(crate) fn pod_ip<'a>(pod: &'a Pod, address_type: &str) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    listed.chain(status.pod_ip.as_deref()).find(|ip| !ip.is_empty() && ip.contains(':') == (address_type == "IPv6"))
}

/// The hostname a pod gives itself within the Service's domain.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_deref().filter(|hostname| !hostname.is_empty())?;
    let matches = spec.subdomain.as_deref() == Some(name(&service.metadata))
        && namespace(&service.metadata) == namespace(&pod.metadata);
    matches.then(|| hostname.to_owned())
}

fn endpoint(service: &Service, pod: &Pod, address_type: &str, zones: &HashMap<String, String>) -> Option<Endpoint> {
    let serving = pods::is_ready(pod);
    let terminating = is_deleting(&pod.metadata);
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let node = pods::node(pod);
    Some(Endpoint {
        addresses: vec![pod_ip(pod, address_type)?.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publish || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: node.map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone: node.and_then(|node| zones.get(node)).cloned(),
        ..Endpoint::default()
    })
}

/// What tells one endpoint from another.
fn identity(endpoint: &Endpoint) -> (String, Option<String>) {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (endpoint.addresses.first().cloned().unwrap_or_default(), uid)
}

/// Decides.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let service = observed.service;
    let mut plan = Plan::default();
    let types = address_types(service);
    for slice in observed.slices.iter().filter(|slice| !types.contains(&slice.address_type.as_str())) {
        plan.delete.push((*slice).clone());
    }
    for address_type in types {
        // Endpoints with the same ports share slices.
        let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
        for pod in observed.pods.iter().filter(|pod| !pods::is_finished(pod)) {
            if let Some(endpoint) = endpoint(service, pod, address_type, observed.zones) {
                let mut ports = pod_ports(service, pod);
                ports.sort();
                groups.entry(ports).or_default().push(endpoint);
            }
        }
        let slices = observed.slices.iter().filter(|slice| slice.address_type == address_type);
        let mut existing: BTreeMap<Vec<Port>, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices {
            existing.entry(slice_ports(slice)).or_default().push(slice);
        }
        if groups.is_empty() {
            // A Service without endpoints keeps one empty slice, so that readers know it has been looked at.
            groups.insert(Vec::new(), Vec::new());
        }
        let mut spare: Vec<&EndpointSlice> = Vec::new();
        existing.retain(|ports, slices| {
            groups.contains_key(ports) || {
                spare.append(slices);
                false
            }
        });
        for (ports, endpoints) in groups {
            let known = existing.remove(&ports).unwrap_or_default();
            let fill = Fill { observed, address_type, ports };
            fill.place(endpoints, known, &mut spare, &mut plan);
        }
        plan.delete.extend(spare.into_iter().cloned());
    }
    plan
}

fn slice_ports(slice: &EndpointSlice) -> Vec<Port> {
    let mut ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            port: port.port.unwrap_or(0),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    ports
}

/// The slices of one address type and one set of ports.
struct Fill<'a> {
    observed: &'a Observed<'a>,
    address_type: &'a str,
    ports: Vec<Port>,
}

impl Fill<'_> {
    /// Keeps endpoints where they are, puts new ones into slices that change anyway, then into those with the most room
    /// that holds them all, then into new ones.
    fn place<'s>(
        &self,
        endpoints: Vec<Endpoint>,
        known: Vec<&'s EndpointSlice>,
        spare: &mut Vec<&'s EndpointSlice>,
        plan: &mut Plan,
    ) {
        let max = self.observed.max_endpoints.max(1);
        let mut wanted: BTreeMap<_, _> =
            endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
        let mut kept: Vec<(&'s EndpointSlice, Vec<Endpoint>, bool)> = Vec::new();
        for slice in known {
            let mut changed = false;
            let mut endpoints = Vec::new();
            for endpoint in &slice.endpoints {
                match wanted.remove(&identity(endpoint)) {
                    Some(new) => {
                        changed |= new != *endpoint;
                        endpoints.push(new);
                    }
                    None => changed = true,
                }
            }
            kept.push((slice, endpoints, changed));
        }
        let mut left: Vec<Endpoint> = wanted.into_values().collect();
        kept.sort_by_key(|(_, endpoints, changed)| (!*changed, std::cmp::Reverse(endpoints.len())));
        for (_, endpoints, changed) in &mut kept {
            if left.is_empty() {
                break;
            }
            let room = max.saturating_sub(endpoints.len());
            // A slice that would otherwise stay as it is is opened only for all that is left.
            if *changed || room >= left.len() {
                let count = room.min(left.len());
                endpoints.extend(left.drain(..count));
                *changed |= count > 0;
            }
        }
        let nothing = left.is_empty() && kept.iter().all(|(_, endpoints, _)| endpoints.is_empty());
        let mut placeholder = nothing;
        for (slice, endpoints, changed) in kept {
            if endpoints.is_empty() && !std::mem::take(&mut placeholder) {
                spare.push(slice);
                continue;
            }
            self.put(slice, endpoints, changed, plan);
        }
        while !left.is_empty() || placeholder {
            placeholder = false;
            let rest = left.split_off(left.len().min(max));
            match spare.pop() {
                Some(slice) => self.put(slice, left, true, plan),
                None => plan.create.push(self.new_slice(left)),
            }
            left = rest;
        }
    }

    fn put(&self, slice: &EndpointSlice, endpoints: Vec<Endpoint>, changed: bool, plan: &mut Plan) {
        let fresh = self.new_slice(endpoints);
        let same_labels = fresh.metadata.labels == slice.metadata.labels;
        if !changed && same_labels && slice_ports(slice) == self.ports {
            return;
        }
        let mut updated = slice.clone();
        updated.metadata.labels = fresh.metadata.labels;
        updated.endpoints = fresh.endpoints;
        updated.ports = fresh.ports;
        plan.update.push(updated);
    }

    fn new_slice(&self, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let service = self.observed.service;
        let ports = self.ports.iter().map(|port| EndpointPort {
            name: Some(port.name.clone()),
            protocol: Some(port.protocol.clone()),
            port: Some(port.port),
            app_protocol: port.app_protocol.clone(),
        });
        EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", name(&service.metadata))),
                namespace: service.metadata.namespace.clone(),
                labels: Some(labels(service)),
                owner_references: Some(vec![controller_reference("v1", "Service", &service.metadata)]),
                ..ObjectMeta::default()
            },
            address_type: self.address_type.to_owned(),
            endpoints,
            ports: Some(ports.collect()),
        }
    }
}

/// The Service's labels and ours. Labels of the Service that look like ours do not pass.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&key.as_str()));
    labels.insert(SERVICE_NAME.into(), name(&service.metadata).to_owned());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// Whether a slice is this controller's.
pub fn is_ours(slice: &EndpointSlice) -> bool {
    label(&slice.metadata, MANAGED_BY) == Some(MANAGER)
}

/// Whether a slice belongs to this very Service and not to an earlier one of its name.
pub fn belongs(slice: &EndpointSlice, service: &Service) -> bool {
    let owners = slice.metadata.owner_references.iter().flatten();
    let mut services = owners.filter(|owner| owner.kind == "Service").peekable();
    services.peek().is_none() || services.any(|owner| owner.uid == uid(&service.metadata))
}

#[cfg(test)]
mod tests;
