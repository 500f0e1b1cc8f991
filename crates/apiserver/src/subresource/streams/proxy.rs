//! `pods/proxy`, `services/proxy`, `nodes/proxy`: any HTTP request, passed on with the rest of the path. Names are
//! `[scheme:]name[:port]`; schemes are `http` and `https`, whose certificates are not checked, for nobody says by whom they
//! would be signed.
//!
//! Nobody may use the server to reach what only it can reach (CVE-2020-8562): addresses come from pods and nodes, never from
//! names that are looked up, and the address that was checked is the one connected to.

use std::net::{IpAddr, SocketAddr};

use http::header::LOCATION;
use http::{HeaderValue, Method, Request, Response, Uri};
use keelson_api::status::Status;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::{admitted, kubelet, kubelet_place};
use crate::dispatch::Call;
use crate::endpoint::{self, Endpoint, allowed};
use crate::http::body::{Body, RequestBody};
use crate::http::reply::Reply;
use crate::kubelet::Backend;

pub(super) async fn serve(call: &Call, request: Request<RequestBody>) -> Reply {
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let own_path = request.uri().path().to_owned();
    let rest = if call.target.rest.is_empty() { "/" } else { &call.target.rest };
    let options = admitted(call, json!({"path": rest})).await?;
    let path = format!("/{}{query}", options["path"].as_str().unwrap_or_default().trim_start_matches('/'));
    let name = Name::parse(&call.target.name).ok_or_else(|| {
        let resource = call.target.resource.trim_end_matches('s');
        Status::bad_request(format!("invalid {resource} request {:?}", call.target.name))
    })?;
    let upgrades = keelson_streaming::upgrade::is_upgrade(request.headers());
    if call.target.rest.is_empty() && !upgrades && matches!(*request.method(), Method::GET | Method::HEAD) {
        // What a page refers to is below it.
        return redirect(&format!("{own_path}/{query}"));
    }
    let backend = match call.target.resource.as_str() {
        "nodes" => node(call, &name, path)?,
        "pods" => pod(call, &name, path)?,
        _ => service(call, &name, path)?,
    };
    let address = SocketAddr::from((backend.address, backend.port));
    let prefix = own_path.strip_suffix(call.target.rest.as_str()).unwrap_or(&own_path).to_owned();
    let mut response = backend.forward(request, &call.core.draining).await?;
    relocate(&mut response, &prefix, address);
    Ok(response)
}

/// Name, scheme and port of what a path names.
struct Name<'a> {
    https: bool,
    name: &'a str,
    /// Empty when none is given.
    port: &'a str,
}

impl<'a> Name<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https");
        (known && !name.is_empty()).then_some(Self { https: scheme == "https", name, port })
    }

    /// The port's number, or that of the scheme.
    fn number(&self) -> Result<u16, Status> {
        match self.port {
            "" => Ok(if self.https { 443 } else { 80 }),
            port => port.parse().map_err(|_| Status::bad_request(format!("invalid port {port:?}"))),
        }
    }

    fn tls(&self, call: &Call) -> Option<TlsConnector> {
        self.https.then(|| call.core.aggregator.unverified())
    }
}

/// The kubelet with our credentials, or another port of the node without.
fn node(call: &Call, name: &Name, path: String) -> Result<Backend, Status> {
    let (address, port) = kubelet_place(call, name.name)?;
    if name.port.is_empty() || name.port == port.to_string() {
        return kubelet(call, name.name, path);
    }
    allowed(address)?;
    Ok(Backend { address, port: name.number()?, tls: name.tls(call), path })
}

fn pod(call: &Call, name: &Name, path: String) -> Result<Backend, Status> {
    let entry = call.resource.cache()?.get(&call.target.namespace, name.name);
    let pod = entry.ok_or_else(|| call.resource.not_found(name.name))?.decode()?;
    let address = pod.pointer("/status/podIP").and_then(Value::as_str).and_then(|ip| ip.parse::<IpAddr>().ok());
    let address = address.ok_or_else(|| Status::bad_request("address not allowed: the pod has no IP"))?;
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let first = containers.filter_map(|c| c.pointer("/ports/0/containerPort")?.as_u64()).next();
    let port = match first.and_then(|port| u16::try_from(port).ok()).filter(|_| name.port.is_empty()) {
        Some(port) => port,
        None => name.number()?,
    };
    allowed(address)?;
    Ok(Backend { address, port, tls: name.tls(call), path })
}

/// A ready endpoint that is a pod of the namespace: somebody may write endpoints and yet not reach what he writes there.
fn service(call: &Call, name: &Name, path: String) -> Result<Backend, Status> {
    let (core, namespace) = (&call.core, &call.target.namespace);
    let found = endpoint::of_port(core, namespace, name.name, name.port, &call.target.name)?;
    let pods = core.registry.known("", "pods")?.cache()?;
    let is_pod = |endpoint: &Endpoint| -> bool {
        let Some(entry) = endpoint.pod.as_ref().and_then(|pod| pods.get(namespace, pod)) else { return false };
        let Ok(pod) = entry.decode() else { return false };
        let ips = pod.pointer("/status/podIPs").and_then(Value::as_array).into_iter().flatten();
        let ip = |ip: &Value| ip.get("ip")?.as_str()?.parse::<IpAddr>().ok();
        ips.filter_map(ip).any(|ip| ip == endpoint.address)
    };
    let found: Vec<Endpoint> = found.into_iter().filter(is_pod).collect();
    let none = || Status::unavailable(format!("no endpoints available for service {:?}", call.target.name));
    if found.is_empty() {
        return Err(none());
    }
    let Endpoint { address, port, .. } = found.get(rand::random_range(0..found.len())).ok_or_else(none)?;
    allowed(*address)?;
    Ok(Backend { address: *address, port: *port, tls: name.tls(call), path })
}

fn redirect(to: &str) -> Reply {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(to).map_err(Status::internal)?);
    Ok(response)
}

/// A redirect to another path of the same server leads there by way of this one.
fn relocate(response: &mut Response<Body>, prefix: &str, server: SocketAddr) {
    if !response.status().is_redirection() {
        return;
    }
    let text = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
    let Some(to) = text.and_then(|to| relocated(to, prefix, server)) else { return };
    if let Ok(value) = HeaderValue::from_str(&to) {
        response.headers_mut().insert(LOCATION, value);
    }
}

fn relocated(to: &str, prefix: &str, server: SocketAddr) -> Option<String> {
    let uri: Uri = to.parse().ok()?;
    let own = uri.authority().is_none_or(|host| host.as_str() == server.to_string());
    let path = uri.path_and_query()?.as_str();
    (own && path.starts_with('/') && !path.starts_with("//") && !path.starts_with(prefix))
        .then(|| format!("{prefix}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let parse = |text| Name::parse(text).map(|n| (n.https, n.name, n.port));
        assert_eq!(parse("a"), Some((false, "a", "")));
        assert_eq!(parse("a:http"), Some((false, "a", "http")));
        assert_eq!(parse("https:a:"), Some((true, "a", "")));
        assert_eq!(parse(":a:8"), Some((false, "a", "8")));
        for wrong in ["", ":80", "ftp:a:1", "a:b:c:d"] {
            assert!(Name::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn redirects_stay_below_the_proxy() {
        let server = "10.0.0.5:8080".parse().unwrap();
        let check = |to: &str, expected: Option<&str>| {
            assert_eq!(relocated(to, "/api/v1/namespaces/a/pods/p/proxy", server).as_deref(), expected, "{to}");
        };
        check("/login?x=1", Some("/api/v1/namespaces/a/pods/p/proxy/login?x=1"));
        check("http://10.0.0.5:8080/b/", Some("/api/v1/namespaces/a/pods/p/proxy/b/"));
        check("http://elsewhere/b", None);
        check("//elsewhere/b", None);
        check("/api/v1/namespaces/a/pods/p/proxy/b", None);
    }
}
