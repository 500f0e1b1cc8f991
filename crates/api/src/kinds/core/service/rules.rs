//! Rules of a service.

use std::collections::HashSet;

use serde_json::Value;

use crate::kind::Write;
use crate::kinds::core::special_address;
use crate::kinds::pod_spec::port_or_name;
use crate::kinds::print::items;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, labels, names, one_of, port, required, required_one_of};

/// Not to be opened to the world by a cloud that forwards a whole port of its nodes.
const KUBELET_PORT: i64 = 10250;
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";

pub(super) fn validate(object: &Value, write: Write<'_>) -> Errors {
    let mut errors = Errors::new();
    let root = View::root(object);
    let (spec, status) = (root.get("spec"), root.get("status"));
    if let Write::Subresource("status", _) = write {
        validate_status(status, &mut errors);
        return errors;
    }
    if let Write::Update(old) = write {
        validate_update(spec, &old["spec"], &mut errors);
    }
    let kind = spec.get("type").str();
    let cluster_ip = spec.get("clusterIP").str();
    let headless = cluster_ip == "None" || spec.get("clusterIPs").value[0] == "None";
    let ports = spec.get("ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(ports.required(""));
    }
    let addresses = spec.get("clusterIPs");
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let first = format!("{}[0]", addresses.path());
            errors.push(FieldError::invalid(first, "None", &format!("may not be set to 'None' for {kind} services")));
        }
        "ExternalName" => external_name(spec, &mut errors),
        _ => {}
    }
    validate_ports(ports, kind, &mut errors);
    labels::validate(spec.get("selector"), &mut errors);
    affinity(spec, &mut errors);
    if kind != "ExternalName" {
        validate_addresses(spec, &mut errors);
    }
    for ip in spec.get("externalIPs").items() {
        checked(ip, names::ip, &mut errors);
        if names::ip(ip.str()).is_empty() {
            special_address(ip, &mut errors);
        }
    }
    required_one_of(spec.get("type"), &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &mut errors);
    balancer(spec, kind, &mut errors);
    traffic(spec, kind, &mut errors);
    errors
}

fn external_name(spec: View, errors: &mut Errors) {
    for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !spec.get(name).is_empty() {
            errors.push(spec.get(name).forbidden("may not be set for ExternalName services"));
        }
    }
    let target = spec.get("externalName");
    let name = target.str().strip_suffix('.').unwrap_or(target.str());
    if name.is_empty() {
        errors.push(target.required(""));
    } else {
        errors.extend(names::subdomain(name).iter().map(|c| FieldError::invalid(target.path(), name, c)));
    }
}

fn validate_ports(ports: View, kind: &str, errors: &mut Errors) {
    let mut seen_names = HashSet::new();
    let mut seen_ports = HashSet::new();
    let mut seen_node_ports = HashSet::new();
    for entry in ports.items() {
        let name = entry.get("name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(name.required(""));
            }
        } else {
            checked(name, names::label, errors);
            if !seen_names.insert(name.str()) {
                errors.push(name.duplicate());
            }
        }
        let number = entry.get("port");
        port(number, errors);
        if kind == "LoadBalancer" && number.int() == Some(KUBELET_PORT) {
            let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
            errors.push(FieldError::invalid(entry.path(), KUBELET_PORT, &detail));
        }
        let protocol = entry.get("protocol");
        required_one_of(protocol, &["SCTP", "TCP", "UDP"], errors);
        port_or_name(entry.get("targetPort"), errors);
        if !entry.get("appProtocol").is_empty() {
            checked(entry.get("appProtocol"), names::qualified, errors);
        }
        let node_port = entry.get("nodePort");
        let node_port_number = node_port.int().unwrap_or(0);
        if node_port_number != 0 {
            if kind == "ClusterIP" {
                errors.push(node_port.forbidden(&format!("may not be used when `type` is '{kind}'")));
            } else if !seen_node_ports.insert((protocol.str(), node_port_number)) {
                errors.push(node_port.duplicate());
            }
        }
        if !seen_ports.insert((protocol.str(), number.int())) {
            let shown = format!(
                r#"{{"Name":"","Protocol":{},"AppProtocol":null,"Port":{},"TargetPort":0,"NodePort":0}}"#,
                Value::from(protocol.str()),
                number.value
            );
            errors.push(FieldError::of_struct("FieldValueDuplicate", entry.path(), &shown, ""));
        }
    }
}

fn affinity(spec: View, errors: &mut Errors) {
    let affinity = spec.get("sessionAffinity");
    required_one_of(affinity, &["ClientIP", "None"], errors);
    let config = spec.get("sessionAffinityConfig");
    match affinity.str() {
        "ClientIP" => {
            let client = config.get("clientIP");
            let seconds = client.get("timeoutSeconds");
            match seconds.int() {
                None => errors.push(seconds.required("when session affinity type is ClientIP")),
                Some(n) if n <= 0 || n > 86_400 => {
                    errors.push(seconds.invalid("must be greater than 0 and less than 86400"));
                }
                Some(_) => {}
            }
        }
        "None" if config.is_set() => {
            errors.push(config.forbidden("must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn validate_addresses(spec: View, errors: &mut Errors) {
    let (one, many) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    if !many.is_empty() && many.value[0] != *one.value {
        errors.push(many.invalid("first value must match `clusterIP`"));
    }
    if many.len() > 2 {
        errors.push(many.invalid("may only hold up to 2 values"));
    }
    for (index, address) in many.items().enumerate() {
        match address.str() {
            "" => errors.push(address.required("")),
            "None" if index > 0 || many.len() > 1 => {
                errors.push(address.invalid("'None' must be the first and only value"))
            }
            "None" => {}
            _ => checked(address, names::ip, errors),
        }
    }
    let families = spec.get("ipFamilies");
    let mut seen = HashSet::new();
    for family in families.items() {
        one_of(family, &["IPv4", "IPv6"], errors);
        if !seen.insert(family.str()) {
            errors.push(family.duplicate());
        }
    }
    let policy = spec.get("ipFamilyPolicy");
    if policy.is_set() {
        one_of(policy, &["PreferDualStack", "RequireDualStack", "SingleStack"], errors);
    }
}

fn balancer(spec: View, kind: &str, errors: &mut Errors) {
    let balanced = kind == "LoadBalancer";
    // Upstream reports it with a capital L.
    let ranges = spec.get("LoadBalancerSourceRanges").with(spec.get("loadBalancerSourceRanges").value);
    if !ranges.is_empty() && !balanced {
        errors.push(ranges.forbidden(ONLY_BALANCED));
    }
    for range in ranges.items() {
        errors.extend(names::cidr(range.str().trim()).iter().map(|complaint| range.invalid_str(complaint)));
    }
    let allocate = spec.get("allocateLoadBalancerNodePorts");
    if balanced && !allocate.is_set() {
        errors.push(allocate.required(""));
    } else if !balanced && allocate.is_set() {
        errors.push(allocate.forbidden(ONLY_BALANCED));
    }
    let class = spec.get("loadBalancerClass");
    if class.is_set() {
        if balanced { checked(class, names::qualified, errors) } else { errors.push(class.forbidden(ONLY_BALANCED)) }
    }
}

fn traffic(spec: View, kind: &str, errors: &mut Errors) {
    let external = spec.get("externalTrafficPolicy");
    if super::externally_accessible(spec.value) {
        required_one_of(external, &["Cluster", "Local"], errors);
    } else if !external.is_empty() {
        errors.push(external.invalid("may only be set for externally-accessible services"));
    }
    let health = spec.get("healthCheckNodePort");
    let needed = kind == "LoadBalancer" && external.str() == "Local";
    match (needed, health.int().unwrap_or(0)) {
        (true, 0) => errors.push(health.required("")),
        (true, _) => port(health, errors),
        (false, 0) => {}
        (false, _) => {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(health.invalid(detail));
        }
    }
    let internal = spec.get("internalTrafficPolicy");
    if kind != "ExternalName" || internal.is_set() {
        required_one_of(internal, &["Cluster", "Local"], errors);
    }
    let distribution = spec.get("trafficDistribution");
    if distribution.is_set() {
        one_of(distribution, &["PreferClose", "PreferSameNode", "PreferSameZone"], errors);
    }
}

fn validate_update(spec: View, old: &Value, errors: &mut Errors) {
    let external = |kind: &str| kind == "ExternalName";
    let old_kind = old["type"].as_str().unwrap_or_default();
    let kind = spec.get("type").str();
    if !external(old_kind) && !external(kind) {
        let addresses = spec.get("clusterIPs");
        let (new_first, old_first) = (&addresses.value[0], &old["clusterIPs"][0]);
        let first = format!("{}[0]", addresses.path());
        if old_first.is_string() && addresses.is_empty() {
            errors.push(FieldError::invalid(first, Value::Null, "primary clusterIP can not be unset"));
        } else if old_first.is_string() && new_first != old_first {
            errors.push(FieldError::invalid(first, addresses.value.clone(), "may not change once set"));
        }
        let (families, old_families) = (spec.get("ipFamilies"), &old["ipFamilies"]);
        if items(old_families).len() > 0 && !families.is_empty() && families.value[0] != old_families[0] {
            let first = format!("{}[0]", families.path());
            errors.push(FieldError::invalid(first, families.value.clone(), "may not change once set"));
        }
    }
    let checks_health = |kind: &str, spec: &Value| kind == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local";
    let health = spec.get("healthCheckNodePort");
    let kept = health.value == &old["healthCheckNodePort"];
    if checks_health(old_kind, old) && checks_health(kind, spec.value) && !kept {
        errors.push(health.forbidden("field is immutable"));
    }
    let class = spec.get("loadBalancerClass");
    if old_kind == "LoadBalancer" && kind == "LoadBalancer" && class.value.as_str() != old["loadBalancerClass"].as_str()
    {
        errors.push(class.invalid("may not change once set"));
    }
}

fn validate_status(status: View, errors: &mut Errors) {
    let balancer = status.get("loadBalancer");
    for ingress in balancer.get("ingress").items() {
        let (ip, host) = (ingress.get("ip"), ingress.get("hostname"));
        if !ip.is_empty() {
            checked(ip, names::ip, errors);
        }
        let mode = ingress.get("ipMode");
        if mode.is_set() {
            if ip.is_empty() {
                errors.push(mode.forbidden("may not be specified when `ip` is not set"));
            }
            one_of(mode, &["Proxy", "VIP"], errors);
        } else if !ip.is_empty() {
            errors.push(mode.required("must be specified when `ip` is set"));
        }
        if !host.is_empty() {
            checked(host, names::subdomain, errors);
            if names::ip(host.str()).is_empty() {
                errors.push(host.invalid("must be a DNS name, not an IP address"));
            }
        }
    }
    for condition in status.get("conditions").items() {
        required(condition.get("type"), errors);
    }
}
