//! `pods/proxy`, `services/proxy`, `nodes/proxy`: any HTTP request, passed on with the rest of the path. Names are
//! `[scheme:]name[:port]`.

use std::net::IpAddr;

use http::Request;
use keelson_api::status::Status;
use serde_json::{Value, json};

use super::{admitted, kubelet};
use crate::dispatch::Call;
use crate::endpoint::{allowed, service_endpoint};
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
    backend.forward(request, &call.core.draining).await
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
    let endpoint = service_endpoint(&call.core, &call.target.namespace, name, port)?;
    Ok(Backend { address: endpoint.ip(), port: endpoint.port(), tls: None, path })
}
