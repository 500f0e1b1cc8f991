//! What an update of a service may leave out: addresses and ports that were allocated before; and what it drops when
//! the type no longer has a use for it.

use serde_json::Value;

use crate::kinds::mutate::{Object, each};
use crate::kinds::print::items;
use crate::validation::same;

fn kind(spec: &Value) -> &str {
    spec["type"].as_str().unwrap_or_default()
}

fn has_cluster_ip(kind: &str) -> bool {
    matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn has_node_ports(kind: &str, spec: &Object) -> bool {
    kind == "NodePort"
        || (kind == "LoadBalancer" && spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)))
}

fn copy(spec: &mut Object, old: &Value, name: &str) {
    let missing = spec.get(name).is_none_or(|v| matches!(v, Value::Null) || v == "" || v == &Value::Array(Vec::new()));
    if let (true, Some(value)) = (missing, old.get(name)) {
        spec.insert(name.into(), value.clone());
    }
}

/// Makes `clusterIP` and `clusterIPs` agree where the client wrote only one of them.
pub(super) fn normalize_addresses(spec: &mut Object, old: &Value) {
    let one = spec.get("clusterIP").cloned().unwrap_or_default();
    let many = spec.get("clusterIPs").cloned().unwrap_or_default();
    let given = one.as_str().is_some_and(|ip| !ip.is_empty());
    if items(&many).len() == 0 && given && old.is_null() {
        spec.insert("clusterIPs".into(), Value::Array(vec![one]));
    } else if !old.is_null() && !same(&one, &old["clusterIP"]) && same(&many, &old["clusterIPs"]) {
        if given {
            spec.insert("clusterIPs".into(), Value::Array(vec![one]));
        } else {
            spec.remove("clusterIPs");
        }
    }
}

/// All that an update does to the spec before its rules are checked.
pub(super) fn carry_over(spec: &mut Object, old: &Value) {
    let new_kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_string();
    let old_kind = kind(old).to_string();
    let old_map = old.as_object().cloned().unwrap_or_default();
    if has_cluster_ip(&new_kind) && has_cluster_ip(&old_kind) {
        copy(spec, old, "clusterIP");
        if spec.get("clusterIP") == old.get("clusterIP") {
            copy(spec, old, "clusterIPs");
        }
        copy(spec, old, "ipFamilies");
        copy(spec, old, "ipFamilyPolicy");
    }
    if has_node_ports(&new_kind, spec) && has_node_ports(&old_kind, &old_map) {
        let used: Vec<i64> =
            spec.get("ports").into_iter().flat_map(items).filter_map(|p| p["nodePort"].as_i64()).collect();
        for port in each(spec, "ports") {
            if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0 {
                continue;
            }
            let twin = |old: &&Value| ["protocol", "port"].iter().all(|f| port.get(*f) == old.get(*f));
            let before = items(&old["ports"]).find(twin).and_then(|old| old["nodePort"].as_i64());
            if let Some(number) = before.filter(|number| !used.contains(number)) {
                port.insert("nodePort".into(), number.into());
            }
        }
    }
    let checks_health = |kind: &str, spec: &Object| {
        kind == "LoadBalancer" && spec.get("externalTrafficPolicy").is_some_and(|policy| policy == "Local")
    };
    if checks_health(&new_kind, spec) && checks_health(&old_kind, &old_map) {
        copy(spec, old, "healthCheckNodePort");
    }
    normalize_addresses(spec, old);
    drop_unused(spec, old, &new_kind, &old_kind, &checks_health);
}

/// Fields of the old type that the client sent back as they were.
fn drop_unused(
    spec: &mut Object,
    old: &Value,
    new_kind: &str,
    old_kind: &str,
    checks_health: &dyn Fn(&str, &Object) -> bool,
) {
    let old_map = old.as_object().cloned().unwrap_or_default();
    let unchanged = |spec: &Object, name: &str| spec.get(name) == old.get(name);
    if has_cluster_ip(old_kind) && !has_cluster_ip(new_kind) {
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if unchanged(spec, name) {
                spec.remove(name);
            }
        }
    }
    let old_ports: Vec<_> = items(&old["ports"]).filter_map(|p| p["nodePort"].as_i64()).collect();
    if has_node_ports(old_kind, &old_map) && !has_node_ports(new_kind, spec) {
        for port in each(spec, "ports") {
            if port.get("nodePort").and_then(Value::as_i64).is_some_and(|n| old_ports.contains(&n)) {
                port.remove("nodePort");
            }
        }
    }
    if checks_health(old_kind, &old_map) && !checks_health(new_kind, spec) && unchanged(spec, "healthCheckNodePort") {
        spec.remove("healthCheckNodePort");
    }
    if old_kind == "LoadBalancer" && new_kind != "LoadBalancer" {
        for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if unchanged(spec, name) {
                spec.remove(name);
            }
        }
    }
    let accessible = super::externally_accessible(&Value::Object(spec.clone()));
    if super::externally_accessible(old) && !accessible && unchanged(spec, "externalTrafficPolicy") {
        spec.remove("externalTrafficPolicy");
    }
}
