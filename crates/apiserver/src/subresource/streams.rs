//! `log`, `exec`, `attach`, `portforward` and the proxies: finds the node or pod, checks what can be checked here, and
//! forwards.

mod pod;
mod proxy;

use std::net::IpAddr;

use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use keelson_api::kind::Scope;
use keelson_api::status::Status;
use serde_json::Value;

use crate::admission::{self, Judges, Operation, Options};
use crate::authz::Attributes;
use crate::dispatch::Call;
use crate::http::body::RequestBody;
use crate::http::reply::Reply;
use crate::kubelet::{Backend, KUBELET_PORT, Kubelets};
use crate::relay::stream as body_stream;

/// Longest error text read from a kubelet.
const MAX_ERROR_BYTES: usize = 10 << 10;

pub(super) async fn serve(call: Call, request: Request<RequestBody>) -> Reply {
    let kind = &call.resource.kind;
    if kind.scope == Scope::Namespaced && call.target.namespace.is_empty() {
        return Err(Status::unknown_path());
    }
    if call.target.subresource == "proxy" {
        return proxy::serve(&call, request).await;
    }
    if !call.target.rest.is_empty() {
        return Err(Status::unknown_path());
    }
    let method = call.method.clone();
    let wrong = match call.target.subresource.as_str() {
        "log" => method != Method::GET,
        _ => method != Method::GET && method != Method::POST,
    };
    if wrong {
        return Err(Status::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    if call.target.subresource == "log" {
        return pod::log(&call).await;
    }
    if method == Method::GET {
        // A WebSocket opens with GET, but what it does is no reading: upstream's
        // AuthorizePodWebsocketUpgradeCreatePermission.
        let target = &call.target;
        let mut create = Attributes::on("create", "", &target.resource, &target.namespace, &target.name);
        create.subresource.clone_from(&target.subresource);
        call.core.authorizer.check(&call.user, &create).await?;
    }
    pod::connect(&call, request).await
}

/// What a `CONNECT` asks for (`PodExecOptions` and the like), once admission has had its say.
async fn admitted(call: &Call, mut options: Value) -> Result<Value, Status> {
    let Call { core, resource, target, user, notes, .. } = call;
    let request = admission::Request {
        core,
        resource,
        subresource: &target.subresource,
        operation: Operation::Connect,
        namespace: call.object_namespace(),
        name: &target.name,
        shown: &target.name,
        user,
        judges: Judges::All,
        notes,
        options: Options::None,
        old: None,
    };
    let body = resource.kind.subresource(&target.subresource).and_then(|subresource| subresource.body.as_ref());
    if let Some((_, version, kind)) = body {
        options["kind"] = kind.as_ref().into();
        options["apiVersion"] = version.as_ref().into();
    }
    admission::mutate(&request, &mut options).await?;
    admission::validate(&request, &options).await?;
    Ok(options)
}

/// The stored object of a call.
fn object(call: &Call) -> Result<Value, Status> {
    let entry = call.resource.cache()?.get(call.object_namespace(), &call.target.name);
    entry.ok_or_else(|| call.resource.not_found(&call.target.name))?.decode()
}

fn kubelets(call: &Call) -> Result<&Kubelets, Status> {
    call.core.kubelets.as_ref().ok_or_else(|| Status::unavailable("this server has no credentials for kubelets"))
}

/// A node's kubelet, with a path on it.
fn kubelet(call: &Call, node: &str, path: String) -> Result<Backend, Status> {
    let (address, port) = kubelet_place(call, node)?;
    Ok(kubelets(call)?.backend(address, port, path))
}

/// Where a node's kubelet is.
fn kubelet_place(call: &Call, node: &str) -> Result<(IpAddr, u16), Status> {
    let nodes = call.core.registry.known("", "nodes")?;
    let entry = nodes.cache()?.get("", node).ok_or_else(|| nodes.not_found(node))?;
    let node_object = entry.decode()?;
    let port = node_object.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0).unwrap_or(KUBELET_PORT);
    let address = internal_ip(&node_object)
        .ok_or_else(|| Status::internal(format!("no preferred addresses found; known addresses: of node {node}")))?;
    Ok((address, port))
}

fn internal_ip(node: &Value) -> Option<IpAddr> {
    let addresses = node.pointer("/status/addresses")?.as_array()?;
    let internal = addresses.iter().find(|a| a.get("type").is_some_and(|t| t == "InternalIP"))?;
    internal.get("address")?.as_str()?.parse().ok()
}

/// A kubelet's answer to a GET; its errors become `Status`es.
async fn checked(call: &Call, backend: Backend, request: Request<RequestBody>) -> Reply {
    let response = backend.send(request).await?;
    let code = response.status().as_u16();
    if response.status().is_redirection() {
        // A kubelet has no say in what is asked of whom (CVE-2020-8559).
        return Err(Status::internal("redirects forbidden"));
    }
    if code < 400 {
        let (parts, body) = response.into_parts();
        let mut reply = http::Response::new(body_stream(body, call.core.draining.clone()));
        *reply.status_mut() = parts.status;
        if let Some(content_type) = parts.headers.get(http::header::CONTENT_TYPE) {
            reply.headers_mut().insert(http::header::CONTENT_TYPE, content_type.clone());
        }
        return Ok(reply);
    }
    let text = match Limited::new(response.into_body(), MAX_ERROR_BYTES).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(_) => String::new(),
    };
    Err(match code {
        400 => Status::bad_request(text),
        404 => {
            let (resource, name) = (&call.target.resource, &call.target.name);
            Status::new(
                404,
                "NotFound",
                format!("the server could not find the requested resource ({text}; {resource} {name})"),
            )
        }
        _ => Status::internal(text),
    })
}
