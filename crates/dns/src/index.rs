//! What the cluster looks like to the name service: the informers' own objects, findable by what is asked for.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::Ipv4Addr,
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Pod, Service},
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// Label that names a slice's service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Namespace and name.
pub type ServiceName = (String, String);

/// The index.
#[derive(Debug, Default)]
pub struct Index {
    services: HashMap<ServiceName, Entry>,
    cluster_ips: HashMap<Ipv4Addr, ServiceName>,
    /// Services with an endpoint of that address, and how many of their slices have it.
    endpoint_ips: HashMap<Ipv4Addr, BTreeMap<ServiceName, usize>>,
    namespaces: HashSet<String>,
    pods: HashMap<ServiceName, Ipv4Addr>,
    pod_ips: HashSet<(String, Ipv4Addr)>,
}

/// A service with its slices; either may come first.
#[derive(Debug, Default)]
pub struct Entry {
    service: Option<Arc<Service>>,
    slices: BTreeMap<String, Arc<EndpointSlice>>,
}

/// What kind of answer a service gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Its own addresses; none of them may be IPv4.
    ClusterIps(Vec<Ipv4Addr>),
    /// Its endpoints' addresses.
    Headless,
    /// Another name.
    External(String),
}

/// A port with a name, lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Empty when it has none.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The number.
    pub number: u16,
}

/// An endpoint that is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its address.
    pub ip: Ipv4Addr,
    /// The first label of its name: its hostname, or its address with dashes.
    pub label: String,
    /// Its ports.
    pub ports: Vec<Port>,
}

impl Entry {
    /// The service's kind; `None` when there are only slices so far.
    pub fn kind(&self) -> Option<Kind> {
        let spec = self.service.as_ref()?.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return Some(Kind::External(spec.external_name.clone()?));
        }
        if spec.cluster_ip.as_deref() == Some("None") {
            return Some(Kind::Headless);
        }
        Some(Kind::ClusterIps(cluster_ips(self.service.as_ref()?)))
    }

    /// The service's own ports.
    pub fn ports(&self) -> Vec<Port> {
        let ports = self.service.iter().filter_map(|s| s.spec.as_ref()).flat_map(|spec| spec.ports.iter().flatten());
        ports.filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port)).collect()
    }

    /// The endpoints that are ready, or all with `publishNotReadyAddresses`; each once per address and name.
    pub fn endpoints(&self) -> Vec<Address> {
        let spec = self.service.as_ref().and_then(|s| s.spec.as_ref());
        let all = spec.and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
        let mut found: Vec<Address> = Vec::new();
        for slice in self.slices.values() {
            let ports = slice.ports.iter().flatten();
            let ports: Vec<Port> =
                ports.filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port?)).collect();
            for endpoint in slice.endpoints.iter().filter(|e| all || is_ready(e)) {
                for ip in addresses(endpoint) {
                    let label = endpoint.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| dashed(ip));
                    match found.iter_mut().find(|a| a.ip == ip && a.label == label) {
                        // In two slices: moving between them, or with other ports.
                        Some(same) => {
                            let new: Vec<Port> = ports.iter().filter(|p| !same.ports.contains(p)).cloned().collect();
                            same.ports.extend(new);
                        }
                        None => found.push(Address { ip, label, ports: ports.clone() }),
                    }
                }
            }
        }
        found
    }
}

impl Index {
    /// The service of that name (lower case).
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Entry> {
        let entry = self.services.get(&(namespace.to_owned(), name.to_owned()))?;
        entry.service.is_some().then_some(entry)
    }

    /// The service that has that cluster IP.
    pub fn by_cluster_ip(&self, ip: Ipv4Addr) -> Option<&ServiceName> {
        self.cluster_ips.get(&ip)
    }

    /// The services with an endpoint of that address, each with the endpoint's label.
    pub fn by_endpoint_ip(&self, ip: Ipv4Addr) -> Vec<(&ServiceName, String)> {
        let services = self.endpoint_ips.get(&ip).into_iter().flat_map(BTreeMap::keys);
        let mut found = Vec::new();
        for name in services {
            let endpoints = self.service(&name.0, &name.1).map(Entry::endpoints).unwrap_or_default();
            found.extend(endpoints.into_iter().filter(|e| e.ip == ip).map(|e| (name, e.label)));
        }
        found
    }

    /// Whether there is such a namespace.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// Whether a pod of the namespace has that address. Known only while pods are watched.
    pub fn has_pod(&self, namespace: &str, ip: Ipv4Addr) -> bool {
        self.pod_ips.contains(&(namespace.to_owned(), ip))
    }

    /// Takes note of a service as it is now.
    pub fn set_service(&mut self, service: Arc<Service>) {
        let name = name_of(&service.metadata);
        self.forget_cluster_ips(&name);
        if service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() != Some("ExternalName")) {
            self.cluster_ips.extend(cluster_ips(&service).into_iter().map(|ip| (ip, name.clone())));
        }
        self.services.entry(name).or_default().service = Some(service);
    }

    /// Takes note that a service is gone.
    pub fn remove_service(&mut self, service: &Service) {
        let name = name_of(&service.metadata);
        self.forget_cluster_ips(&name);
        if let Some(entry) = self.services.get_mut(&name) {
            entry.service = None;
            self.drop_if_empty(&name);
        }
    }

    /// All services there are; others are gone.
    pub fn resync_services(&mut self, all: Vec<Arc<Service>>) {
        self.cluster_ips.clear();
        self.services.values_mut().for_each(|entry| entry.service = None);
        all.into_iter().for_each(|service| self.set_service(service));
        self.services.retain(|_, entry| entry.service.is_some() || !entry.slices.is_empty());
    }

    /// Takes note of a slice as it is now.
    pub fn set_slice(&mut self, slice: Arc<EndpointSlice>) {
        let Some(name) = service_of(&slice) else { return };
        let slice_name = slice.metadata.name.clone().unwrap_or_default();
        for ip in slice.endpoints.iter().flat_map(addresses) {
            *self.endpoint_ips.entry(ip).or_default().entry(name.clone()).or_default() += 1;
        }
        let old = self.services.entry(name.clone()).or_default().slices.insert(slice_name, slice);
        if let Some(old) = old {
            self.forget_endpoint_ips(&name, &old);
        }
    }

    /// Takes note that a slice is gone.
    pub fn remove_slice(&mut self, slice: &EndpointSlice) {
        let Some(name) = service_of(slice) else { return };
        let slice_name = slice.metadata.name.as_deref().unwrap_or_default();
        let old = self.services.get_mut(&name).and_then(|entry| entry.slices.remove(slice_name));
        if let Some(old) = old {
            self.forget_endpoint_ips(&name, &old);
            self.drop_if_empty(&name);
        }
    }

    /// All slices there are; others are gone.
    pub fn resync_slices(&mut self, all: Vec<Arc<EndpointSlice>>) {
        self.endpoint_ips.clear();
        self.services.values_mut().for_each(|entry| entry.slices.clear());
        all.into_iter().for_each(|slice| self.set_slice(slice));
        self.services.retain(|_, entry| entry.service.is_some() || !entry.slices.is_empty());
    }

    /// Takes note of a namespace.
    pub fn set_namespace(&mut self, namespace: &Namespace) {
        self.namespaces.extend(namespace.metadata.name.clone());
    }

    /// Takes note that a namespace is gone.
    pub fn remove_namespace(&mut self, namespace: &Namespace) {
        self.namespaces.remove(namespace.metadata.name.as_deref().unwrap_or_default());
    }

    /// All namespaces there are.
    pub fn resync_namespaces(&mut self, all: &[Arc<Namespace>]) {
        self.namespaces = all.iter().filter_map(|n| n.metadata.name.clone()).collect();
    }

    /// Takes note of a pod as it is now.
    pub fn set_pod(&mut self, pod: &Pod) {
        self.remove_pod(pod);
        let ip = pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).and_then(|ip| ip.parse().ok());
        if let Some(ip) = ip {
            let name = name_of(&pod.metadata);
            self.pod_ips.insert((name.0.clone(), ip));
            self.pods.insert(name, ip);
        }
    }

    /// Takes note that a pod is gone.
    pub fn remove_pod(&mut self, pod: &Pod) {
        let name = name_of(&pod.metadata);
        if let Some(ip) = self.pods.remove(&name) {
            self.pod_ips.remove(&(name.0, ip));
        }
    }

    /// All pods there are.
    pub fn resync_pods(&mut self, all: &[Arc<Pod>]) {
        self.pods.clear();
        self.pod_ips.clear();
        all.iter().for_each(|pod| self.set_pod(pod));
    }

    fn forget_cluster_ips(&mut self, name: &ServiceName) {
        let old = self.services.get(name).and_then(|entry| entry.service.as_deref()).map(cluster_ips);
        for ip in old.unwrap_or_default() {
            if self.cluster_ips.get(&ip) == Some(name) {
                self.cluster_ips.remove(&ip);
            }
        }
    }

    fn forget_endpoint_ips(&mut self, name: &ServiceName, old: &EndpointSlice) {
        for ip in old.endpoints.iter().flat_map(addresses) {
            let Some(services) = self.endpoint_ips.get_mut(&ip) else { continue };
            if let Some(count) = services.get_mut(name) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    services.remove(name);
                }
            }
            if services.is_empty() {
                self.endpoint_ips.remove(&ip);
            }
        }
    }

    fn drop_if_empty(&mut self, name: &ServiceName) {
        if self.services.get(name).is_some_and(|entry| entry.service.is_none() && entry.slices.is_empty()) {
            self.services.remove(name);
        }
    }
}

/// An address as the first label of a name.
pub fn dashed(ip: Ipv4Addr) -> String {
    ip.to_string().replace('.', "-")
}

fn cluster_ips(service: &Service) -> Vec<Ipv4Addr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let all = match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ips.as_slice(),
        _ => spec.cluster_ip.as_slice(),
    };
    all.iter().filter_map(|ip| ip.parse().ok()).collect()
}

fn port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    let protocol = protocol.filter(|p| !p.is_empty()).unwrap_or("TCP").to_ascii_lowercase();
    let number = u16::try_from(number).ok()?;
    Some(Port { name: name.unwrap_or_default().to_ascii_lowercase(), protocol, number })
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = Ipv4Addr> {
    endpoint.addresses.iter().filter_map(|ip| ip.parse().ok())
}

/// Unknown counts as ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

fn name_of(meta: &ObjectMeta) -> ServiceName {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}
