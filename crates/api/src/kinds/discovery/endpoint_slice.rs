//! EndpointSlice

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::core::special_address;
use crate::kinds::mutate::{Rules, each, make, prepare, set, set_str};
use crate::kinds::print::{age, first_three, items, or, size};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, immutable, names, port, required_one_of, same};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;
const MAX_TOPOLOGY: usize = 16;
const UNSET: &str = "<unset>";

pub(crate) fn kind() -> Kind {
    Kind::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", &EndpointSlice).columns(vec![
        Column::string("AddressType", "IPv4, IPv6 or FQDN.", |object, _| or(&object["addressType"], "")),
        Column::string("Ports", "Its ports.", |object, _| ports(object).into()),
        Column::string("Endpoints", "Its addresses.", |object, _| endpoints(object).into()),
        age(),
    ])
}

fn ports(object: &Value) -> String {
    let name = |port: &Value| match (port["port"].as_i64(), port["name"].as_str()) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) if !name.is_empty() => name.to_string(),
        _ => "*".to_string(),
    };
    let all: Vec<String> = items(&object["ports"]).map(name).collect();
    if all.is_empty() { UNSET.into() } else { first_three(&all) }
}

fn endpoints(object: &Value) -> String {
    let addresses = items(&object["endpoints"]).flat_map(|endpoint| items(&endpoint["addresses"]));
    let all: Vec<String> = addresses.map(|a| a.as_str().unwrap_or_default().to_string()).collect();
    if size(&object["endpoints"]) == 0 { UNSET.into() } else { first_three(&all) }
}

#[derive(Debug)]
struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        for port in each(object, "ports") {
            set(port, "name", "");
            set_str(port, "protocol", "TCP");
        }
        // Both lists are always written, also when there is nothing in them.
        set(object, "endpoints", json!([]));
        set(object, "ports", json!([]));
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare(object, write, Rules { generation: true, create_with_status: false });
        if let Write::Update(old) = write {
            let labels = &object["metadata"]["labels"];
            if !same(labels, &old["metadata"]["labels"]) {
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
                if let Some(meta) = object.as_object_mut().and_then(|object| make(object, "metadata")) {
                    meta.insert("generation".into(), json!(generation.saturating_add(1)));
                }
            }
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let kind = root.get("addressType");
        required_one_of(kind, &["FQDN", "IPv4", "IPv6"], &mut errors);
        let endpoints = root.get("endpoints");
        if endpoints.len() > MAX_ENDPOINTS {
            errors.push(endpoints.too_many(MAX_ENDPOINTS));
            return errors;
        }
        for endpoint in endpoints.items() {
            validate_endpoint(endpoint, kind.str(), &mut errors);
        }
        validate_ports(root.get("ports"), &mut errors);
        if let Write::Update(old) = write {
            immutable(kind, &old["addressType"], &mut errors);
        }
        errors
    }
}

fn validate_endpoint(endpoint: View, kind: &str, errors: &mut Errors) {
    let addresses = endpoint.get("addresses");
    if addresses.is_empty() {
        errors.push(addresses.required("must contain at least 1 address"));
    } else if addresses.len() > MAX_ADDRESSES {
        errors.push(addresses.too_many(MAX_ADDRESSES));
    }
    for address in addresses.items() {
        match (kind, address.str().parse::<std::net::IpAddr>()) {
            ("IPv4", Ok(ip)) if ip.is_ipv4() => special_address(address, errors),
            ("IPv6", Ok(ip)) if ip.is_ipv6() => special_address(address, errors),
            ("IPv4", _) => errors.push(address.invalid("must be a valid IPv4 address")),
            ("IPv6", _) => errors.push(address.invalid("must be a valid IPv6 address")),
            ("FQDN", _) => checked(address, names::subdomain, errors),
            _ => {}
        }
    }
    for (field, check) in [("nodeName", names::subdomain as fn(&str) -> Vec<String>), ("hostname", names::label)] {
        if endpoint.get(field).is_set() {
            checked(endpoint.get(field), check, errors);
        }
    }
    let topology = endpoint.get("deprecatedTopology");
    if topology.len() > MAX_TOPOLOGY {
        errors.push(topology.too_many(MAX_TOPOLOGY));
    }
    let hints = endpoint.get("hints");
    for field in ["forZones", "forNodes"] {
        let list = hints.get(field);
        if list.len() > MAX_HINTS {
            errors.push(list.too_many(MAX_HINTS));
            continue;
        }
        let mut seen = HashSet::new();
        for hint in list.items() {
            let name = hint.get("name");
            if name.is_empty() {
                errors.push(name.required(""));
            } else if !seen.insert(name.str().to_string()) {
                errors.push(name.duplicate());
            }
        }
    }
}

fn validate_ports(ports: View, errors: &mut Errors) {
    if ports.len() > MAX_PORTS {
        errors.push(ports.too_many(MAX_PORTS));
        return;
    }
    let mut seen = HashSet::new();
    for entry in ports.items() {
        let name = entry.get("name");
        if !name.is_empty() {
            checked(name, names::label, errors);
        }
        if !seen.insert(name.str().to_string()) {
            errors.push(FieldError::duplicate(name.path(), name.str()));
        }
        required_one_of(entry.get("protocol"), &["SCTP", "TCP", "UDP"], errors);
        if entry.get("port").is_set() {
            port(entry.get("port"), errors);
        }
        if entry.get("appProtocol").is_set() {
            checked(entry.get("appProtocol"), names::qualified, errors);
        }
    }
}
