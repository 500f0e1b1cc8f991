//! Where a Service leads: straight to its ready endpoints, for the machine of the API server need not be able to route
//! ClusterIPs (upstream's `--enable-aggregator-routing`), or to the host that an ExternalName Service names.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use keelson_api::selector::LabelSelector;
use keelson_api::status::Status;
use rand::seq::SliceRandom as _;
use serde_json::Value;

use crate::cache::Entry;
use crate::core::Core;

/// How many endpoints of a Service are tried for one connection.
const TRIED: usize = 3;

/// The addresses to try, in this order, for a port of a Service behind which is a webhook or an aggregated server.
pub(crate) async fn service_addresses(
    core: &Core,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, Status> {
    let service = service(core, namespace, name)?;
    if service["spec"]["type"] == "ExternalName" {
        let host = service["spec"]["externalName"].as_str().unwrap_or_default().to_owned();
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let found = found.map_err(|e| Status::unavailable(format!("dial tcp: lookup {host}: {e}")))?;
        return Ok(found.collect());
    }
    let mut found = ready(core, namespace, name, &service, port, name)?;
    found.shuffle(&mut rand::rng());
    found.truncate(TRIED);
    found.into_iter().map(|endpoint| endpoint.proxyable()).collect()
}

/// The ready endpoints of a Service's port, which is given by its number or name; none means a port without a name. `shown` is
/// what was asked for.
pub(crate) fn of_port(
    core: &Core,
    namespace: &str,
    name: &str,
    port: &str,
    shown: &str,
) -> Result<Vec<Endpoint>, Status> {
    let service = service(core, namespace, name)?;
    match port.parse() {
        Ok(number) => ready(core, namespace, name, &service, number, shown),
        Err(_) => named(core, namespace, name, port, shown),
    }
}

/// The Service itself.
pub(crate) fn service(core: &Core, namespace: &str, name: &str) -> Result<Value, Status> {
    let services = core.registry.known("", "services")?;
    services.cache()?.get(namespace, name).ok_or_else(|| services.not_found(name))?.decode()
}

/// The EndpointSlices of a Service.
pub(crate) fn slices(core: &Core, namespace: &str, name: &str) -> Result<Vec<Arc<Entry>>, Status> {
    let slices = core.registry.known("discovery.k8s.io", "endpointslices")?.cache()?;
    let selector = LabelSelector::parse(&format!("kubernetes.io/service-name={name}"))
        .map_err(|e| Status::bad_request(e.to_string()))?;
    let prefix = slices.namespace_prefix(namespace);
    let snapshot = slices.snapshot();
    Ok(snapshot.range(&prefix, "").filter(|entry| selector.matches(&***entry)).cloned().collect())
}

/// All ready endpoints of a Service's port, by its number.
pub(crate) fn all(
    core: &Core,
    namespace: &str,
    name: &str,
    service: &Value,
    port: u16,
) -> Result<Vec<Endpoint>, Status> {
    let mut found = ready(core, namespace, name, service, port, name)?;
    found.sort();
    Ok(found)
}

/// A place behind a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// The pod that it is said to be, of the Service's namespace.
    pub(crate) pod: Option<String>,
}

impl Endpoint {
    fn proxyable(&self) -> Result<SocketAddr, Status> {
        allowed(self.address)?;
        Ok((self.address, self.port).into())
    }
}

/// The ready endpoints in a slice, of the port with this name.
pub(crate) fn ready_in(slice: &Value, port_name: &str) -> Vec<Endpoint> {
    let items = |key: &str| slice.get(key).and_then(Value::as_array).into_iter().flatten();
    let port = items("ports")
        .find(|p| p.get("name").and_then(Value::as_str).unwrap_or_default() == port_name)
        .and_then(|p| u16::try_from(p.get("port")?.as_u64()?).ok());
    let Some(port) = port else { return Vec::new() };
    let ready = |endpoint: &&Value| endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
    let namespace = slice.pointer("/metadata/namespace");
    let read = |endpoint: &Value| {
        let address = endpoint.pointer("/addresses/0")?.as_str()?.parse().ok()?;
        let target = endpoint.get("targetRef").filter(|target| target["kind"] == "Pod");
        let target = target.filter(|target| target.get("namespace") == namespace);
        let pod = target.and_then(|target| target["name"].as_str()).map(str::to_owned);
        Some(Endpoint { address, port, pod })
    };
    items("endpoints").filter(ready).filter_map(read).collect()
}

fn ready(
    core: &Core,
    namespace: &str,
    name: &str,
    service: &Value,
    port: u16,
    shown: &str,
) -> Result<Vec<Endpoint>, Status> {
    let mut ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let Some(found) = ports.find(|found| found.get("port").and_then(Value::as_u64) == Some(port.into())) else {
        return Err(Status::unavailable(format!("no service port {port} found for service {name:?}")));
    };
    named(core, namespace, name, found.get("name").and_then(Value::as_str).unwrap_or_default(), shown)
}

/// Upstream names the Service where it has no endpoints at all, and what was asked for where it has others.
fn named(core: &Core, namespace: &str, name: &str, port_name: &str, shown: &str) -> Result<Vec<Endpoint>, Status> {
    let (mut endpoints, mut others) = (Vec::new(), false);
    for slice in slices(core, namespace, name)? {
        let slice = slice.decode()?;
        endpoints.extend(ready_in(&slice, port_name));
        others |= slice["endpoints"].as_array().is_some_and(|endpoints| !endpoints.is_empty());
    }
    if endpoints.is_empty() { Err(no_endpoints(if others { shown } else { name })) } else { Ok(endpoints) }
}

fn no_endpoints(service: &str) -> Status {
    Status::unavailable(format!("no endpoints available for service {service:?}"))
}

/// The server may not be made to talk to itself or to link-local metadata services.
pub(crate) fn allowed(address: IpAddr) -> Result<(), Status> {
    // `::ffff:127.0.0.1` is 127.0.0.1.
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_loopback() || link_local || address.is_unspecified() || address.is_multicast() {
        return Err(Status::bad_request("address not allowed"));
    }
    Ok(())
}
