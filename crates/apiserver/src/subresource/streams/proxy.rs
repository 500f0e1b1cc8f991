//! `pods/proxy`, `services/proxy`, `nodes/proxy`: any HTTP request, passed on with the rest of the path. Names are
//! `[scheme:]name[:port]`.

use std::net::IpAddr;

use http::Request;
use keelson_api::selector::LabelSelector;
use keelson_api::status::Status;
use serde_json::{Value, json};

use super::{admitted, kubelet};
use crate::core::Core;
use crate::dispatch::Call;
use crate::http::body::RequestBody;
use crate::http::reply::Reply;
use crate::kubelet::Backend;

pub(super) async fn serve(call: &Call, request: Request<RequestBody>) -> Reply {
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let rest = if call.target.rest.is_empty() { "/" } else { &call.target.rest };
    let options = admitted(call, json!({"path": rest})).await?;
    let path = format!("/{}{query}", options["path"].as_str().unwrap_or_default().trim_start_matches('/'));
    let (scheme, name, port) = split(&call.target.name).ok_or_else(|| {
        Status::bad_request(format!("invalid {} request {:?}", call.target.resource, call.target.name))
    })?;
    if scheme == "https" && call.target.resource != "nodes" {
        return Err(Status::new(
            501,
            "NotImplemented",
            "proxying to an https backend of a pod or service is not supported",
        ));
    }
    let backend = match call.target.resource.as_str() {
        "nodes" => kubelet(call, name, path)?,
        "pods" => pod(call, name, port, path)?,
        _ => service(call, name, port, path)?,
    };
    backend.forward(request, &call.core.shutdown).await
}

fn split(text: &str) -> Option<(&str, &str, &str)> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [name] => Some(("", name, "")),
        [name, port] => Some(("", name, port)),
        [scheme @ ("http" | "https" | ""), name, port] => Some((scheme, name, port)),
        _ => None,
    }
}

fn pod(call: &Call, name: &str, port: &str, path: String) -> Result<Backend, Status> {
    let entry = call.resource.cache()?.get(&call.target.namespace, name);
    let pod = entry.ok_or_else(|| call.resource.not_found(name))?.decode()?;
    let address = pod.pointer("/status/podIP").and_then(Value::as_str).and_then(|ip| ip.parse::<IpAddr>().ok());
    let address = address.ok_or_else(|| Status::bad_request(format!("address not allowed: pod {name} has no IP")))?;
    let port = if port.is_empty() {
        let first = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
        let first = first.filter_map(|c| c.pointer("/ports/0/containerPort")?.as_u64()).next();
        first.and_then(|p| u16::try_from(p).ok()).unwrap_or(80)
    } else {
        port.parse().map_err(|_| Status::bad_request(format!("invalid port {port:?}")))?
    };
    allowed(address)?;
    Ok(Backend { address, port, tls: None, path })
}

fn service(call: &Call, name: &str, port: &str, path: String) -> Result<Backend, Status> {
    let (address, port) = service_endpoint(&call.core, &call.target.namespace, name, port)?;
    Ok(Backend { address, port, tls: None, path })
}

/// A ready endpoint of a Service's port, which is given by name or number (or not at all, if there is but one).
pub(crate) fn service_endpoint(core: &Core, namespace: &str, name: &str, port: &str) -> Result<(IpAddr, u16), Status> {
    let services = core.registry.known("", "services")?;
    let entry = services.cache()?.get(namespace, name);
    let service = entry.ok_or_else(|| services.not_found(name))?.decode()?;
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let port_name = match (port, ports.as_slice()) {
        ("", [one]) => one.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        _ => {
            let found = ports.iter().find(|p| {
                p.get("name").is_some_and(|n| n == port)
                    || p.get("port").and_then(Value::as_u64).is_some_and(|n| port.parse() == Ok(n))
            });
            match found {
                Some(found) => found.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
                None => {
                    return Err(Status::unavailable(format!("no service port {port:?} found for service {name:?}")));
                }
            }
        }
    };
    let slices = core.registry.known("discovery.k8s.io", "endpointslices")?.cache()?;
    let selector = LabelSelector::parse(&format!("kubernetes.io/service-name={name}"))
        .map_err(|e| Status::bad_request(e.to_string()))?;
    let prefix = slices.namespace_prefix(namespace);
    let snapshot = slices.snapshot();
    let mut found: Vec<(IpAddr, u16)> = Vec::new();
    for entry in snapshot.range(&prefix, "").filter(|entry| selector.matches(&***entry)) {
        let slice = entry.decode()?;
        let ports = slice.get("ports").and_then(Value::as_array);
        let port = ports
            .into_iter()
            .flatten()
            .find(|p| p.get("name").and_then(Value::as_str).unwrap_or_default() == port_name)
            .and_then(|p| u16::try_from(p.get("port")?.as_u64()?).ok());
        let Some(port) = port else { continue };
        for endpoint in slice.get("endpoints").and_then(Value::as_array).into_iter().flatten() {
            if endpoint.pointer("/conditions/ready").and_then(Value::as_bool) == Some(false) {
                continue;
            }
            let address = endpoint.pointer("/addresses/0").and_then(Value::as_str).and_then(|a| a.parse().ok());
            found.extend(address.map(|address| (address, port)));
        }
    }
    if found.is_empty() {
        return Err(Status::unavailable(format!("no endpoints available for service {name:?}")));
    }
    let pick = rand::random_range(0..found.len());
    let Some((address, port)) = found.get(pick).copied() else {
        return Err(Status::unavailable(format!("no endpoints available for service {name:?}")));
    };
    allowed(address)?;
    Ok((address, port))
}

/// The server may not be made to talk to itself or to link-local metadata services.
fn allowed(address: IpAddr) -> Result<(), Status> {
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
