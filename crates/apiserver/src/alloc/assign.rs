//! The allocated fields of one Service: `clusterIP(s)`, `ipFamilies`, `ipFamilyPolicy`, `nodePort`s and
//! `healthCheckNodePort`, by its type. The cluster has one address family.

use std::net::IpAddr;

use keelson_api::status::FieldError;
use serde_json::{Map, Value, json};

use super::addresses::{at, pick, reserved_addresses, reserved_ports, size};
use super::{Item, Ranges, Taken};

/// Addresses and ports that a stored Service holds.
pub(super) fn uses(object: &Value) -> Vec<Item> {
    let Some(spec) = object.get("spec") else { return Vec::new() };
    let address = |value: &Value| Some(Item::Address(value.as_str()?.parse().ok()?));
    let mut items: Vec<Item> = match spec.get("clusterIPs").and_then(Value::as_array) {
        Some(all) => all.iter().filter_map(address).collect(),
        None => spec.get("clusterIP").and_then(address).into_iter().collect(),
    };
    let ports = spec.get("ports").and_then(Value::as_array).into_iter().flatten();
    let ports = ports.map(|port| port.get("nodePort")).chain([spec.get("healthCheckNodePort")]);
    for port in ports.filter_map(port_number).map(Item::Port) {
        if !items.contains(&port) {
            items.push(port);
        }
    }
    items
}

fn port_number(value: Option<&Value>) -> Option<u16> {
    value.and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}

/// What is to be chosen from.
pub(super) struct Limits<'a> {
    pub(super) ranges: &'a Ranges,
    /// What the Service has.
    pub(super) held: &'a [Item],
    /// What is taken though it is not in [`Taken`].
    pub(super) avoid: &'a [Item],
}

/// One Service's choice.
struct Choice<'a> {
    limits: &'a Limits<'a>,
    taken: &'a mut Taken,
    claimed: &'a mut Vec<Item>,
}

impl Choice<'_> {
    fn is_free(&self, item: Item) -> bool {
        self.taken.is_free(item) && !self.limits.avoid.contains(&item)
    }

    /// Whether the Service has it already.
    fn has(&self, item: Item) -> bool {
        self.limits.held.contains(&item) || self.claimed.contains(&item)
    }

    fn take(&mut self, item: Item) {
        self.taken.claimed.insert(item);
        self.claimed.push(item);
    }
}

/// Fills in `object`; `old` is the version that it replaces. What was claimed, in whole or up to an error, is added to
/// `claimed`.
pub(super) fn assign(
    limits: &Limits<'_>,
    taken: &mut Taken,
    claimed: &mut Vec<Item>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), FieldError> {
    let mut choice = Choice { limits, taken, claimed };
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
    assign_address(&mut choice, spec, old_spec)?;
    let allocate = spec.get("allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true);
    if type_ == "NodePort" || type_ == "LoadBalancer" {
        let must = type_ == "NodePort" || allocate;
        assign_node_ports(&mut choice, spec, must)?;
    }
    let local = spec.get("externalTrafficPolicy").is_some_and(|p| p == "Local");
    if type_ == "LoadBalancer" && local {
        let have = port_number(spec.get("healthCheckNodePort"));
        let port = claim_port(&mut choice, have, "spec.healthCheckNodePort".to_owned())?;
        spec.insert("healthCheckNodePort".into(), port.into());
    }
    Ok(())
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
    choice: &mut Choice<'_>,
    spec: &mut Map<String, Value>,
    old: Option<&Value>,
) -> Result<(), FieldError> {
    let cidr = &choice.limits.ranges.cidr;
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
            let free = |n| choice.is_free(Item::Address(at(cidr, n)));
            let Some(n) = pick(all, reserved_addresses(all), free) else {
                return Err(FieldError {
                    reason: "InternalError",
                    field: "spec.clusterIPs".into(),
                    message: "Internal error: failed to allocate a serviceIP: range is full".into(),
                });
            };
            let found = at(cidr, n);
            choice.take(Item::Address(found));
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
            let item = Item::Address(wanted);
            if !choice.has(item) {
                if !choice.is_free(item) {
                    return Err(invalid("provided IP is already allocated"));
                }
                choice.take(item);
            }
        }
    }
    spec.insert("clusterIP".into(), address.clone().into());
    spec.insert("clusterIPs".into(), json!([address]));
    Ok(())
}

fn assign_node_ports(choice: &mut Choice<'_>, spec: &mut Map<String, Value>, must: bool) -> Result<(), FieldError> {
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
        let number = claim_port(choice, have, format!("spec.ports[{i}].nodePort"))?;
        if let Some(map) = port.as_object_mut() {
            map.insert("nodePort".into(), number.into());
        }
    }
    Ok(())
}

fn claim_port(choice: &mut Choice<'_>, have: Option<u16>, path: String) -> Result<u16, FieldError> {
    let range = &choice.limits.ranges.node_ports;
    let (low, high) = (*range.start(), *range.end());
    let number = match have {
        Some(number) if !range.contains(&number) => {
            let detail = format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
            return Err(FieldError::invalid(path, number, &detail));
        }
        // Two ports of one Service may share a number (TCP and UDP); an update keeps its own.
        Some(number) if choice.has(Item::Port(number)) => return Ok(number),
        Some(number) if !choice.is_free(Item::Port(number)) => {
            return Err(FieldError::invalid(path, number, "provided port is already allocated"));
        }
        Some(number) => number,
        None => {
            let count = u32::from(high - low) + 1;
            let to_port = |n: u32| u16::try_from(u32::from(low) + n).unwrap_or(high);
            let free = |n| choice.is_free(Item::Port(to_port(n)));
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
    choice.take(Item::Port(number));
    Ok(number)
}
