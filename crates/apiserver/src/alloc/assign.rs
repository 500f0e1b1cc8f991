//! The allocated fields of one Service: `clusterIP(s)`, `ipFamilies`, `ipFamilyPolicy`, `nodePort`s and
//! `healthCheckNodePort`, by its type. The cluster has one address family.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use keelson_api::status::FieldError;
use serde_json::{Map, Value, json};

use super::addresses::{at, pick, reserved_addresses, reserved_ports, size};
use super::{Owner, Taken};
use crate::registry::create::text;

/// What was claimed, in whole or up to an error.
type Claimed = (Vec<IpAddr>, Vec<u16>);

/// Addresses and ports that a stored Service holds.
pub(super) fn uses(object: &Value) -> Claimed {
    let Some(spec) = object.get("spec") else { return Default::default() };
    let addresses = match spec.get("clusterIPs").and_then(Value::as_array) {
        Some(all) => all.iter().filter_map(|v| v.as_str()?.parse().ok()).collect(),
        None => spec.get("clusterIP").and_then(Value::as_str).and_then(|v| v.parse().ok()).into_iter().collect(),
    };
    let ports = spec.get("ports").and_then(Value::as_array).into_iter().flatten();
    let mut ports: Vec<u16> = ports.filter_map(|p| port_number(p.get("nodePort"))).collect();
    ports.extend(port_number(spec.get("healthCheckNodePort")));
    (addresses, ports)
}

fn port_number(value: Option<&Value>) -> Option<u16> {
    value.and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}

/// Fills in `object`; `old` is the version that it replaces.
pub(super) fn assign(
    cidr: &IpNet,
    node_ports: &RangeInclusive<u16>,
    taken: &mut Taken,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<Claimed, (Vec<IpAddr>, Vec<u16>, FieldError)> {
    let owner: Owner = Arc::from(format!("{}/{}", text(object, "namespace"), text(object, "name")));
    let mut claimed = Claimed::default();
    let result = (|| {
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        let old_spec = old.and_then(|o| o.get("spec"));
        let type_ = spec.get("type").and_then(Value::as_str).unwrap_or("ClusterIP").to_owned();
        if let Some(old_spec) = old_spec {
            carry_over(spec, old_spec, &type_);
        }
        if type_ == "ExternalName" {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if old_spec.is_some_and(|old| old.get("type") != spec.get("type")) {
                    spec.remove(field);
                }
            }
            return Ok(());
        }
        assign_address(cidr, taken, &owner, spec, old_spec, &mut claimed)?;
        let allocate = spec.get("allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true);
        if type_ == "NodePort" || type_ == "LoadBalancer" {
            let must = type_ == "NodePort" || allocate;
            assign_node_ports(node_ports, taken, &owner, spec, must, &mut claimed)?;
        }
        let local = spec.get("externalTrafficPolicy").is_some_and(|p| p == "Local");
        if type_ == "LoadBalancer" && local {
            let have = port_number(spec.get("healthCheckNodePort"));
            let path = "spec.healthCheckNodePort".to_owned();
            let port = claim_port(node_ports, taken, &owner, have, path, &mut claimed)?;
            spec.insert("healthCheckNodePort".into(), port.into());
        }
        Ok(())
    })();
    match result {
        Ok(()) => Ok(claimed),
        Err(error) => Err((claimed.0, claimed.1, error)),
    }
}

/// An update that leaves out what was allocated keeps it.
fn carry_over(spec: &mut Map<String, Value>, old: &Value, type_: &str) {
    let is_empty = |v: Option<&Value>| match v {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        Some(Value::Array(a)) => a.is_empty(),
        Some(other) => other.as_u64() == Some(0),
    };
    if type_ == "ExternalName" {
        return;
    }
    let old_type = old.get("type").and_then(Value::as_str).unwrap_or("ClusterIP");
    if old_type == "ExternalName" {
        return;
    }
    // `clusterIP` and `clusterIPs` are one thing said twice; one of them may have been cleared or set alone.
    if is_empty(spec.get("clusterIP")) && is_empty(spec.get("clusterIPs")) {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old.get(field) {
                spec.insert(field.into(), value.clone());
            }
        }
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if let (true, Some(value)) = (is_empty(spec.get(field)), old.get(field)) {
            spec.insert(field.into(), value.clone());
        }
    }
    if !matches!(type_, "NodePort" | "LoadBalancer") {
        return;
    }
    let local = spec.get("externalTrafficPolicy").is_some_and(|p| p == "Local");
    let wanted = local && is_empty(spec.get("healthCheckNodePort"));
    if let (true, Some(port)) = (wanted, old.get("healthCheckNodePort")) {
        spec.insert("healthCheckNodePort".into(), port.clone());
    }
    let key =
        |p: &Value| (p.get("port").cloned(), p.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned());
    let old_ports = old.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut used: Vec<Value> = Vec::new();
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return };
    used.extend(ports.iter().filter_map(|p| p.get("nodePort")).filter(|p| p.as_u64() != Some(0)).cloned());
    for port in ports {
        if !is_empty(port.get("nodePort")) {
            continue;
        }
        let same = old_ports.iter().find(|p| key(p) == key(port)).and_then(|p| p.get("nodePort"));
        if let (Some(same), Some(map)) = (same.filter(|p| !used.contains(p)), port.as_object_mut()) {
            map.insert("nodePort".into(), same.clone());
        }
    }
}

fn assign_address(
    cidr: &IpNet,
    taken: &mut Taken,
    owner: &Owner,
    spec: &mut Map<String, Value>,
    old: Option<&Value>,
    claimed: &mut Claimed,
) -> Result<(), FieldError> {
    let family = if cidr.addr().is_ipv4() { "IPv4" } else { "IPv6" };
    let first =
        spec.get("clusterIPs").and_then(|all| all.get(0)).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut address = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    if address.is_empty() {
        address = first;
    }
    let headless = address == "None";
    let asked_families: Vec<String> = spec
        .get("ipFamilies")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    let selectorless = spec.get("selector").and_then(Value::as_object).is_none_or(Map::is_empty);
    let policy = spec.get("ipFamilyPolicy").and_then(Value::as_str).unwrap_or_default().to_owned();
    let other = if family == "IPv4" { "IPv6" } else { "IPv4" };
    // Upstream treats a headless Service without selector as dual-stack even in a cluster of one family.
    let free_choice = headless && selectorless;
    if !free_choice {
        if policy == "RequireDualStack" {
            return Err(FieldError::invalid(
                "spec.ipFamilyPolicy",
                policy,
                "this cluster is not configured for dual-stack services",
            ));
        }
        if let Some((i, wrong)) = asked_families.iter().enumerate().find(|(_, f)| *f != family) {
            return Err(FieldError::invalid(
                format!("spec.ipFamilies[{i}]"),
                wrong.clone(),
                "not configured on this cluster",
            ));
        }
    }
    if policy.is_empty() {
        let policy = if free_choice && asked_families.len() != 1 { "RequireDualStack" } else { "SingleStack" };
        spec.insert("ipFamilyPolicy".into(), policy.into());
    }
    if asked_families.is_empty() {
        let dual = free_choice && spec.get("ipFamilyPolicy").is_some_and(|p| p == "RequireDualStack");
        let families = if dual { json!([family, other]) } else { json!([family]) };
        spec.insert("ipFamilies".into(), families);
    }
    if headless {
        spec.insert("clusterIP".into(), "None".into());
        spec.insert("clusterIPs".into(), json!(["None"]));
        return Ok(());
    }
    let unchanged =
        !address.is_empty() && old.and_then(|o| o.get("clusterIP")).and_then(Value::as_str) == Some(address.as_str());
    if !unchanged {
        let all = size(cidr);
        if address.is_empty() {
            let free = |n| !taken.addresses.contains_key(&at(cidr, n));
            let Some(n) = pick(all, reserved_addresses(all), free) else {
                return Err(FieldError {
                    reason: "InternalError",
                    field: "spec.clusterIPs".into(),
                    message: "Internal error: failed to allocate a serviceIP: range is full".into(),
                });
            };
            let found = at(cidr, n);
            taken.addresses.insert(found, owner.clone());
            claimed.0.push(found);
            address = found.to_string();
        } else if let Ok(wanted) = address.parse::<IpAddr>() {
            let invalid = |why: &str| {
                let detail = format!("failed to allocate IP {wanted}: {why}");
                FieldError::invalid("spec.clusterIPs", json!([address]), &detail)
            };
            if !cidr.contains(&wanted) || wanted == cidr.network() || wanted == cidr.broadcast() {
                return Err(invalid(&format!(
                    "the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {cidr}"
                )));
            }
            match taken.addresses.get(&wanted) {
                Some(by) if by != owner => return Err(invalid("provided IP is already allocated")),
                Some(_) => {}
                None => {
                    taken.addresses.insert(wanted, owner.clone());
                    claimed.0.push(wanted);
                }
            }
        }
    }
    spec.insert("clusterIP".into(), address.clone().into());
    spec.insert("clusterIPs".into(), json!([address]));
    Ok(())
}

fn assign_node_ports(
    range: &RangeInclusive<u16>,
    taken: &mut Taken,
    owner: &Owner,
    spec: &mut Map<String, Value>,
    must: bool,
    claimed: &mut Claimed,
) -> Result<(), FieldError> {
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return Ok(()) };
    let count = ports.len();
    let named = |port: &Value| port_number(port.get("nodePort")).is_some();
    // Those that the Service names first, so that none of them is given to another of its ports.
    let mut order: Vec<(usize, &mut Value)> = ports.iter_mut().enumerate().collect();
    order.sort_by_key(|(i, port)| if named(port) { *i } else { count + *i });
    for (i, port) in order {
        let have = port_number(port.get("nodePort"));
        if have.is_none() && !must {
            continue;
        }
        let number = claim_port(range, taken, owner, have, format!("spec.ports[{i}].nodePort"), claimed)?;
        if let Some(map) = port.as_object_mut() {
            map.insert("nodePort".into(), number.into());
        }
    }
    Ok(())
}

fn claim_port(
    range: &RangeInclusive<u16>,
    taken: &mut Taken,
    owner: &Owner,
    have: Option<u16>,
    path: String,
    claimed: &mut Claimed,
) -> Result<u16, FieldError> {
    let (low, high) = (*range.start(), *range.end());
    let number = match have {
        Some(number) if !range.contains(&number) => {
            let detail = format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
            return Err(FieldError::invalid(path, number, &detail));
        }
        Some(number) => match taken.ports.get(&number) {
            // Two ports of one Service may share a number (TCP and UDP); an update keeps its own.
            Some(by) if by == owner => return Ok(number),
            Some(_) => return Err(FieldError::invalid(path, number, "provided port is already allocated")),
            None => number,
        },
        None => {
            let count = u32::from(high - low) + 1;
            let to_port = |n: u32| u16::try_from(u32::from(low) + n).unwrap_or(high);
            let free = |n| !taken.ports.contains_key(&to_port(n));
            let Some(n) = pick(count, reserved_ports(count), free) else {
                return Err(FieldError {
                    reason: "InternalError",
                    field: path,
                    message: "Internal error: failed to allocate a nodePort: range is full".into(),
                });
            };
            to_port(n)
        }
    };
    taken.ports.insert(number, owner.clone());
    claimed.1.push(number);
    Ok(number)
}
