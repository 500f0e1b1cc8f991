//! Ingress

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::GROUP;
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{make, set};
use crate::kinds::prepare;
use crate::kinds::print::{age, items, join, or_none};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, port};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const NOT_AN_IP: &str = "must be a DNS name, not an IP address";
/// Hosts that the table shows.
const SHOWN_HOSTS: usize = 3;

pub(crate) fn kind() -> Kind {
    Kind::namespaced(GROUP, "v1", "Ingress", "ingresses", &Ingress).short("ing").with_status().columns(vec![
        Column::string("Class", "The IngressClass whose controller serves it.", |object, _| {
            or_none(&object["spec"]["ingressClassName"])
        }),
        Column::string("Hosts", "Hosts that requests are matched against.", |object, _| hosts(object).into()),
        Column::string("Address", "Where the load balancer takes requests.", |object, _| addresses(object).into()),
        Column::string("Ports", "80, and 443 when it terminates TLS.", |object, _| {
            if items(&object["spec"]["tls"]).len() > 0 { "80, 443" } else { "80" }.into()
        }),
        age(),
    ])
}

fn hosts(object: &Value) -> String {
    let rules = items(&object["spec"]["rules"]);
    let count = rules.len();
    let named = |(i, rule): (usize, &'_ Value)| Some((i, rule["host"].as_str().filter(|h| !h.is_empty())?.to_string()));
    let shown: Vec<(usize, String)> = rules.enumerate().filter_map(named).take(SHOWN_HOSTS).collect();
    let text = join(shown.iter().map(|(_, host)| host.as_str()));
    match shown.get(SHOWN_HOSTS - 1) {
        _ if shown.is_empty() => "*".into(),
        // Upstream counts the rules without a host too.
        Some((last, _)) if last + 1 < count => format!("{text} + {} more...", count - SHOWN_HOSTS),
        _ => text,
    }
}

fn addresses(object: &Value) -> String {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_string();
    let entries = items(&object["status"]["loadBalancer"]["ingress"]);
    let all =
        entries.map(|entry| if text(entry, "ip").is_empty() { text(entry, "hostname") } else { text(entry, "ip") });
    let all: BTreeSet<String> = all.filter(|address| !address.is_empty()).collect();
    join(all.iter().map(String::as_str))
}

#[derive(Debug)]
struct Ingress;

impl Strategy for Ingress {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare(object, write);
        // Always written, also when there is nothing in it.
        if let Some(status) = object.as_object_mut().and_then(|object| make(object, "status")) {
            set(status, "loadBalancer", json!({}));
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        if let Write::Subresource("status", _) = write {
            validate_status(root.get("status"), &mut errors);
            return errors;
        }
        validate_spec(root.get("spec"), &mut errors);
        let annotation = &object["metadata"]["annotations"][CLASS_ANNOTATION];
        let class = &object["spec"]["ingressClassName"];
        if write == Write::Create && annotation.is_string() && class.is_string() && annotation != class {
            let path = format!("annotations.{CLASS_ANNOTATION}");
            let detail = "must match `ingressClassName` when both are specified";
            errors.push(FieldError::invalid(path, annotation.clone(), detail));
        }
        errors
    }

    fn warnings(&self, object: &Value, write: Write<'_>) -> Vec<String> {
        let annotated = object["metadata"]["annotations"][CLASS_ANNOTATION].is_string();
        if write == Write::Create && annotated && object["spec"]["ingressClassName"].is_null() {
            return vec![format!(
                "annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"
            )];
        }
        Vec::new()
    }
}

fn validate_spec(spec: View, errors: &mut Errors) {
    let (backend, rules) = (spec.get("defaultBackend"), spec.get("rules"));
    if rules.is_empty() && !backend.is_set() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(spec.path(), Value::Null, detail));
    }
    if backend.is_set() {
        validate_backend(backend, errors);
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if !host.is_empty() {
            if host.str().parse::<IpAddr>().is_ok() {
                errors.push(host.invalid(NOT_AN_IP));
            }
            validate_host(host, errors);
        }
        let http = rule.get("http");
        if http.is_set() {
            let paths = http.get("paths");
            if paths.is_empty() {
                errors.push(paths.required(""));
            }
            for path in paths.items() {
                validate_path(path, errors);
            }
        }
    }
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            validate_host(host, errors);
        }
        let secret = tls.get("secretName");
        if !secret.is_empty() {
            checked(secret, names::subdomain, errors);
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        checked(class, names::subdomain, errors);
    }
}

fn validate_host(host: View, errors: &mut Errors) {
    checked(host, if host.str().contains('*') { names::wildcard_subdomain } else { names::subdomain }, errors);
}

fn validate_path(entry: View, errors: &mut Errors) {
    let (kind, path) = (entry.get("pathType"), entry.get("path"));
    if !kind.is_set() {
        errors.push(kind.required("pathType must be specified"));
        return;
    }
    let absolute = path.str().starts_with('/');
    match kind.str() {
        "Exact" | "Prefix" => {
            if !absolute {
                errors.push(path.invalid_str("must be an absolute path"));
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if path.str().contains(bad) {
                    errors.push(path.invalid(&format!("must not contain '{bad}'")));
                }
            }
            for bad in ["/..", "/."] {
                if path.str().ends_with(bad) {
                    errors.push(path.invalid(&format!("cannot end with '{bad}'")));
                }
            }
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !absolute {
                errors.push(path.invalid("must be an absolute path"));
            }
        }
        _ => errors.push(kind.not_supported(&["Exact", "ImplementationSpecific", "Prefix"])),
    }
    validate_backend(entry.get("backend"), errors);
}

fn validate_backend(backend: View, errors: &mut Errors) {
    let (resource, service) = (backend.get("resource"), backend.get("service"));
    let fault = |detail: &str| FieldError::invalid(backend.path(), "", detail);
    match (resource.is_set(), service.is_set()) {
        (true, true) => errors.push(fault("cannot set both resource and service backends")),
        (false, false) => errors.push(fault("resource or service backend is required")),
        (true, false) => validate_reference(resource, errors),
        (false, true) => {
            let name = service.get("name");
            if name.is_empty() {
                errors.push(name.required(""));
            } else {
                checked(name, names::label_1035, errors);
            }
            let target = service.get("port");
            let (port_name, number) = (target.get("name"), target.get("number"));
            match (!port_name.is_empty(), number.int().unwrap_or(0) != 0) {
                (true, true) => errors.push(fault("cannot set both port name & port number")),
                (true, false) => checked(port_name, names::port_name, errors),
                (false, true) => port(number, errors),
                (false, false) => errors.push(backend.required("port name or number is required")),
            }
        }
    }
}

/// `apiGroup`, `kind` and `name` of something that is not a service.
pub(super) fn validate_reference(reference: View, errors: &mut Errors) {
    let group = reference.get("apiGroup");
    if group.is_set() {
        checked(group, names::subdomain, errors);
    }
    for field in ["kind", "name"] {
        let part = reference.get(field);
        if part.is_empty() {
            errors.push(part.required(""));
        } else {
            checked(part, names::path_segment, errors);
        }
    }
}

fn validate_status(status: View, errors: &mut Errors) {
    let balancer = status.get("loadBalancer");
    for ingress in balancer.get("ingress").items() {
        let (ip, host) = (ingress.get("ip"), ingress.get("hostname"));
        if !ip.is_empty() {
            checked(ip, names::ip, errors);
        }
        if !host.is_empty() {
            checked(host, names::subdomain, errors);
            if host.str().parse::<IpAddr>().is_ok() {
                errors.push(host.invalid(NOT_AN_IP));
            }
        }
    }
}
