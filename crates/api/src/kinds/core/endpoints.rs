//! Endpoints

use std::net::IpAddr;

use serde_json::Value;

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{each, set_str};
use crate::kinds::prepare_plain;
use crate::kinds::print::{NONE, age, first_three, items};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, port, required, required_one_of};

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "Endpoints", "endpoints", &Endpoints)
        .short("ep")
        .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        .columns(vec![
            Column::string("Endpoints", "Addresses and ports that are ready.", |object, _| addresses(object).into()),
            age(),
        ])
}

fn addresses(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(&object["subsets"]) {
        let addresses = || items(&subset["addresses"]).map(|a| a["ip"].as_str().unwrap_or_default());
        if items(&subset["ports"]).len() == 0 {
            all.extend(addresses().map(String::from));
        }
        for port in items(&subset["ports"]) {
            all.extend(addresses().map(|ip| join_host_port(ip, port["port"].as_i64().unwrap_or(0))));
        }
    }
    if items(&object["subsets"]).len() == 0 { NONE.into() } else { first_three(&all) }
}

fn join_host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// Addresses that no pod and no service can have.
pub(crate) fn special_address(view: View, errors: &mut Errors) {
    let Ok(ip) = view.str().parse::<IpAddr>() else { return };
    let (link_local, link_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments().first().is_some_and(|s| s & 0xff0f == 0xff02)),
    };
    if ip.is_unspecified() {
        errors.push(view.invalid("may not be unspecified (0.0.0.0 or ::)"));
    }
    if ip.is_loopback() {
        errors.push(view.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    if link_local {
        errors.push(view.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
    if link_multicast {
        errors.push(view.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"));
    }
}

#[derive(Debug)]
struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        for subset in each(object, "subsets") {
            each(subset, "ports").for_each(|port| set_str(port, "protocol", "TCP"));
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for subset in View::root(object).get("subsets").items() {
            let (ready, not_ready) = (subset.get("addresses"), subset.get("notReadyAddresses"));
            if ready.is_empty() && not_ready.is_empty() {
                errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
            }
            for address in ready.items().chain(not_ready.items()) {
                let ip = address.get("ip");
                checked(ip, names::ip, &mut errors);
                special_address(ip, &mut errors);
                for (field, check) in [("hostname", names::label as fn(&str) -> _), ("nodeName", names::subdomain)] {
                    if !address.get(field).is_empty() {
                        checked(address.get(field), check, &mut errors);
                    }
                }
            }
            let ports = subset.get("ports");
            for entry in ports.items() {
                let name = entry.get("name");
                if ports.len() > 1 {
                    required(name, &mut errors);
                }
                if !name.is_empty() {
                    checked(name, names::label, &mut errors);
                }
                port(entry.get("port"), &mut errors);
                required_one_of(entry.get("protocol"), &["SCTP", "TCP", "UDP"], &mut errors);
            }
        }
        errors
    }
}
