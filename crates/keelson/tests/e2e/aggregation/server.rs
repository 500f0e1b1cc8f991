//! An aggregated API server: this very test program, run in a pod to do the one test below, which does not end. It believes
//! who a request is from because of the front proxy's certificate, whose authority it reads from the cluster, asks the
//! cluster whether that user may do it, and keeps `Report`s in memory. One request per connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the test program is told to do in the pod.
pub(super) const ARGUMENTS: &[&str] = &["--exact", "e2e::aggregation::server::serve", "--ignored", "--nocapture"];

const API_VERSION: &str = "weather.example.com/v1";
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// By namespace and name, and those made so far in order.
type All = (BTreeMap<(String, String), Value>, Vec<Value>);

#[derive(Default)]
struct Reports {
    all: Mutex<All>,
    changed: Condvar,
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

#[test]
#[ignore = "is no test but the server, for the pod to run"]
fn serve() -> Result<(), Failure> {
    let trusted = cluster("GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", None)?;
    let authority = trusted["data"]["requestheader-client-ca-file"].as_str().ok_or("no front proxy")?.to_owned();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let chain = CertificateDer::pem_file_iter("/tls/tls.crt")?.collect::<Result<Vec<_>, _>>()?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::from_pem_file("/tls/tls.key")?)?;
    let (config, reports) = (Arc::new(config), Arc::new(Reports::default()));
    let listener = TcpListener::bind("0.0.0.0:8443")?;
    println!("ready");
    for stream in listener.incoming() {
        let (stream, config, reports) = (stream?, config.clone(), reports.clone());
        std::thread::spawn(move || {
            let answered = ServerConnection::new(config)
                .map_err(Failure::from)
                .and_then(|tls| answer(&mut StreamOwned::new(tls, stream), &reports));
            if let Err(error) = answered {
                println!("{error}");
            }
        });
    }
    Ok(())
}

fn answer(stream: &mut (impl Read + Write), reports: &Reports) -> Result<(), Failure> {
    let request = read(stream)?;
    let (path, method) = (request.path.as_str(), request.method.as_str());
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let document = match parts.as_slice() {
        ["apis"] => {
            json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": [{
                "metadata": {"name": "weather.example.com"}, "versions": [{"version": "v1", "freshness": "Current", "resources": [{
                    "resource": "reports", "singularResource": "report", "scope": "Namespaced", "shortNames": ["wr"],
                    "responseKind": {"group": "weather.example.com", "version": "v1", "kind": "Report"},
                    "verbs": ["create", "delete", "deletecollection", "get", "list", "watch"],
                }]}],
            }]})
        }
        ["apis", _, "v1"] => {
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": []})
        }
        ["openapi", "v3"] => json!({"paths": {"apis/weather.example.com/v1": {
            "serverRelativeURL": "/openapi/v3/apis/weather.example.com/v1",
        }}}),
        ["openapi", "v3", ..] => schemas(),
        ["apis", _, "v1", "reports"] => return resource(stream, &request, reports, "", ""),
        ["apis", _, "v1", "namespaces", namespace, "reports"] => {
            return resource(stream, &request, reports, namespace, "");
        }
        ["apis", _, "v1", "namespaces", namespace, "reports", name] => {
            return resource(stream, &request, reports, namespace, name);
        }
        _ => return respond(stream, 404, &status(404, "NotFound", &format!("{method} {path}: nothing there"))),
    };
    respond(stream, 200, &document)
}

fn resource(
    stream: &mut (impl Read + Write),
    request: &Request,
    reports: &Reports,
    namespace: &str,
    name: &str,
) -> Result<(), Failure> {
    let watches = request.query.split('&').any(|pair| matches!(pair, "watch=1" | "watch=true"));
    let verb = match (request.method.as_str(), name) {
        ("GET", "") if watches => "watch",
        ("GET", "") => "list",
        ("GET", _) => "get",
        ("POST", "") => "create",
        ("DELETE", "") => "deletecollection",
        _ => return respond(stream, 405, &status(405, "MethodNotAllowed", "not here")),
    };
    let user = request.headers("x-remote-user").next().unwrap_or_default();
    let groups: Vec<&str> = request.headers("x-remote-group").collect();
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": user, "groups": groups,
        "resourceAttributes": {
            "group": "weather.example.com", "version": "v1", "resource": "reports",
            "verb": verb, "namespace": namespace, "name": name,
        },
    }});
    let review = cluster("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", Some(&review))?;
    let allowed = review["status"]["allowed"] == true;
    println!("{user} {verb} {namespace}/{name}: {allowed}");
    if !allowed {
        return respond(stream, 403, &status(403, "Forbidden", "the weather is a secret"));
    }
    let list = |all: &BTreeMap<(String, String), Value>| -> Vec<Value> {
        all.iter()
            .filter(|((of, _), _)| namespace.is_empty() || of == namespace)
            .map(|(_, report)| report.clone())
            .collect()
    };
    match verb {
        "create" => {
            let mut report: Value = serde_json::from_slice(&request.body)?;
            let name = report["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let mut all = reports.all.lock().map_err(|_| "poisoned")?;
            let number = all.1.len() + 1;
            report["metadata"]["namespace"] = namespace.into();
            report["metadata"]["uid"] = format!("report-{number}").into();
            report["metadata"]["resourceVersion"] = number.to_string().into();
            report["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
            all.0.insert((namespace.to_owned(), name), report.clone());
            all.1.push(report.clone());
            drop(all);
            reports.changed.notify_all();
            respond(stream, 201, &report)
        }
        "get" => {
            let found =
                reports.all.lock().map_err(|_| "poisoned")?.0.get(&(namespace.to_owned(), name.to_owned())).cloned();
            match found {
                Some(report) => respond(stream, 200, &report),
                None => respond(stream, 404, &status(404, "NotFound", &format!("reports \"{name}\" not found"))),
            }
        }
        "watch" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")?;
            let from = request.query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse().ok());
            let mut sent: usize = from.unwrap_or(0);
            loop {
                let all = reports.all.lock().map_err(|_| "poisoned")?;
                let all = reports.changed.wait_while(all, |all| all.1.len() <= sent).map_err(|_| "poisoned")?;
                let new = all.1[sent..].to_vec();
                drop(all);
                for report in new {
                    sent += 1;
                    writeln!(stream, "{}", json!({"type": "ADDED", "object": report}))?;
                }
                stream.flush()?;
            }
        }
        "deletecollection" => {
            reports.all.lock().map_err(|_| "poisoned")?.0.retain(|(of, _), _| of != namespace);
            respond(stream, 200, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
        }
        _ => {
            let all = reports.all.lock().map_err(|_| "poisoned")?;
            let (items, version) = (list(&all.0), all.1.len().to_string());
            drop(all);
            let list = json!({
                "kind": "ReportList", "apiVersion": API_VERSION, "metadata": {"resourceVersion": version}, "items": items,
            });
            respond(stream, 200, &list)
        }
    }
}

fn schemas() -> Value {
    let gvk = json!({"group": "weather.example.com", "version": "v1", "kind": "Report"});
    let ok = json!({"200": {"description": "OK"}});
    let operation = json!({"responses": ok, "x-kubernetes-group-version-kind": gvk,
        "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]});
    json!({
        "openapi": "3.0.0", "info": {"title": "Weather", "version": "1"},
        "paths": {
            "/apis/weather.example.com/v1/namespaces/{namespace}/reports": {"get": operation, "post": operation},
            "/apis/weather.example.com/v1/namespaces/{namespace}/reports/{name}": {"get": operation, "patch": operation},
        },
        "components": {"schemas": {"com.example.weather.v1.Report": {
            "description": "What the weather was.", "type": "object", "x-kubernetes-group-version-kind": [gvk],
            "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
                "sky": {"type": "string", "description": "Its colour."},
            },
        }}},
    })
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code})
}

fn respond(stream: &mut impl Write, code: u16, document: &Value) -> Result<(), Failure> {
    let text = document.to_string();
    let head = format!("HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length:");
    write!(stream, "{head} {}\r\n\r\n{text}", text.len())?;
    stream.flush()?;
    Ok(())
}

fn read(stream: &mut impl Read) -> Result<Request, Failure> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut request =
        Request { method, path: path.to_owned(), query: query.to_owned(), headers: Vec::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err("the request ended early".into());
        }
        let Some((name, value)) = line.trim().split_once(':') else { break };
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let length = request.headers("content-length").next().and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    stream.read_exact(&mut request.body)?;
    Ok(request)
}

/// Asks the cluster's API server, as this pod's service account.
fn cluster(method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(format!("{ACCOUNT}/ca.crt"))? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let host = std::env::var("KUBERNETES_SERVICE_HOST")?;
    let port: u16 = std::env::var("KUBERNETES_SERVICE_PORT")?.parse()?;
    let tls = ClientConnection::new(Arc::new(config), ServerName::try_from(host.clone())?)?;
    let mut stream = StreamOwned::new(tls, TcpStream::connect((host.as_str(), port))?);
    let token = std::fs::read_to_string(format!("{ACCOUNT}/token"))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    let mut first = String::new();
    stream.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if !first.contains(" 20") {
        return Err(format!("{method} {path}: {first}{}", String::from_utf8_lossy(&body)).into());
    }
    Ok(serde_json::from_slice(&body)?)
}
