//! NetworkPolicy

use serde_json::{Value, json};

use super::GROUP;
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{Object, each, make, set};
use crate::kinds::print::{NONE, age, selector_text};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, labels, names};

/// Direction, and where it names its peers.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

pub(crate) fn kind() -> Kind {
    Kind::namespaced(GROUP, "v1", "NetworkPolicy", "networkpolicies", &NetworkPolicy).short("netpol").columns(vec![
        Column::string("Pod-Selector", "The pods it is about.", |object, _| {
            match selector_text(&object["spec"]["podSelector"]) {
                text if text.is_empty() => NONE.into(),
                text => text.into(),
            }
        }),
        age(),
    ])
}

#[derive(Debug)]
struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) else { return };
        set(spec, "podSelector", json!({}));
        for (direction, _) in DIRECTIONS {
            each(spec, direction).for_each(default_ports);
        }
        let has = |spec: &Object, list: &str| spec.get(list).and_then(Value::as_array).is_some_and(|l| !l.is_empty());
        if !has(spec, "policyTypes") {
            let types = if has(spec, "egress") { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            spec.insert("policyTypes".into(), types);
        }
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        labels::validate_selector(spec.get("podSelector"), &mut errors);
        for (direction, peers) in DIRECTIONS {
            for rule in spec.get(direction).items() {
                for port in rule.get("ports").items() {
                    validate_port(port, &mut errors);
                }
                for peer in rule.get(peers).items() {
                    validate_peer(peer, &mut errors);
                }
            }
        }
        let types = spec.get("policyTypes");
        if types.len() > 2 {
            errors.push(types.invalid("may not specify more than two policyTypes"));
            return errors;
        }
        for kind in types.items() {
            if !matches!(kind.str(), "Ingress" | "Egress") {
                errors.push(kind.not_supported(&["Ingress", "Egress"]));
            }
        }
        errors
    }

    fn warnings(&self, object: &Value, _write: Write<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        for (direction, peers) in DIRECTIONS {
            for rule in spec.get(direction).items() {
                for peer in rule.get(peers).items() {
                    let block = peer.get("ipBlock");
                    warn_of_cidr(block.get("cidr"), &mut warnings);
                    for except in block.get("except").items() {
                        warn_of_cidr(except, &mut warnings);
                    }
                }
            }
        }
        warnings
    }
}

fn default_ports(rule: &mut Object) {
    for port in each(rule, "ports") {
        set(port, "protocol", "TCP");
    }
}

fn validate_port(entry: View, errors: &mut Errors) {
    let (protocol, port, end) = (entry.get("protocol"), entry.get("port"), entry.get("endPort"));
    if protocol.is_set() && !matches!(protocol.str(), "TCP" | "UDP" | "SCTP") {
        errors.push(protocol.not_supported(&["TCP", "UDP", "SCTP"]));
    }
    match port.value {
        Value::Null => {
            if end.is_set() {
                errors.push(end.invalid("may not be specified when `port` is not specified"));
            }
        }
        Value::String(_) => {
            if end.is_set() {
                errors.push(end.invalid("may not be specified when `port` is non-numeric"));
            }
            checked(port, names::port_name, errors);
        }
        _ => {
            crate::validation::port(port, errors);
            if let Some(last) = end.int() {
                if last < port.int().unwrap_or(0) {
                    errors.push(end.invalid("must be greater than or equal to `port`"));
                }
                crate::validation::port(end, errors);
            }
        }
    }
}

fn validate_peer(peer: View, errors: &mut Errors) {
    let (pods, namespaces, block) = (peer.get("podSelector"), peer.get("namespaceSelector"), peer.get("ipBlock"));
    for selector in [pods, namespaces] {
        labels::validate_selector(selector, errors);
    }
    let selects = pods.is_set() || namespaces.is_set();
    if block.is_set() {
        validate_block(block, errors);
        if selects {
            errors.push(peer.forbidden("may not specify both ipBlock and another peer"));
        }
    } else if !selects {
        errors.push(peer.required("must specify a peer"));
    }
}

fn validate_block(block: View, errors: &mut Errors) {
    let cidr = block.get("cidr");
    if cidr.is_empty() {
        errors.push(cidr.required(""));
        return;
    }
    checked(cidr, names::cidr, errors);
    let Some((base, bits)) = names::parse_cidr(cidr.str()) else { return };
    for except in block.get("except").items() {
        checked(except, names::cidr, errors);
        let Some((inner, inner_bits)) = names::parse_cidr(except.str()) else { continue };
        let within = inner.is_ipv4() == base.is_ipv4() && names::network(inner, bits) == names::network(base, bits);
        if !within || bits >= inner_bits {
            errors.push(except.invalid("must be a strict subset of `cidr`"));
        }
    }
}

/// Forms of a range that upstream accepts and regrets.
fn warn_of_cidr(cidr: View, warnings: &mut Vec<String>) {
    let (path, text) = (cidr.path(), cidr.str());
    let Some((address, bits)) = names::parse_cidr(text) else { return };
    let network = names::network(address, bits);
    let (all, canonical) = (if address.is_ipv4() { 32 } else { 128 }, format!("{network}/{bits}"));
    if address != network {
        let single = format!("{address}/{all}");
        warnings.push(format!(
            "{path}: CIDR value {text:?} is ambiguous in this context (should be {canonical:?} or {single:?}?)"
        ));
    } else if address.is_ipv6() && text != canonical {
        warnings
            .push(format!("{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({canonical:?})"));
    }
}
