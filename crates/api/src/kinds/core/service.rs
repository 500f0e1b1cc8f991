//! Service. Addresses and node ports are the API server's allocator's; everything else about them is here.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::kind::{Column, Kind, NameRule, Strategy, Write};
use crate::kinds::core::PROXY_VERBS;
use crate::kinds::mutate::{Object, child, each, make, set, set_str};
use crate::kinds::prepare_plain;
use crate::kinds::print::{NONE, UNKNOWN, age, items, join, label_map, or_none};
use crate::status::FieldError;

mod rules;
#[cfg(test)]
mod tests;
mod update;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "Service", "services", &Service)
        .returns_deleted()
        .short("svc")
        .category_all()
        .sub_of("proxy", ("", "v1", "ServiceProxyOptions"), &PROXY_VERBS)
        .with_status()
        .columns(vec![
            Column::string("Type", "How the service is reached.", |object, _| text(object, "type").into()),
            Column::string("Cluster-IP", "Its address inside the cluster.", |object, _| {
                let spec = &object["spec"];
                or_none(if spec["clusterIPs"][0].is_string() { &spec["clusterIPs"][0] } else { &spec["clusterIP"] })
            }),
            Column::string("External-IP", "Its addresses outside the cluster.", |object, _| external_ip(object).into()),
            Column::string("Port(s)", "Ports, each with its node port and protocol.", |object, _| ports(object).into()),
            age(),
            Column::string("Selector", "The labels of the pods behind it.", |object, _| {
                label_map(&object["spec"]["selector"])
            })
            .wide(),
        ])
        .select("spec.clusterIP", |object| Cow::Borrowed(text(object, "clusterIP")))
        .select("spec.type", |object| Cow::Borrowed(text(object, "type")))
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["spec"][field].as_str().unwrap_or_default()
}

fn external_ip(object: &Value) -> String {
    let external = join(items(&object["spec"]["externalIPs"]).filter_map(Value::as_str));
    match text(object, "type") {
        "ClusterIP" | "NodePort" if external.is_empty() => NONE.into(),
        "ClusterIP" | "NodePort" => external,
        "LoadBalancer" => {
            let ingress = items(&object["status"]["loadBalancer"]["ingress"]);
            let mut addresses: Vec<&str> =
                ingress.filter_map(|i| i["ip"].as_str().or_else(|| i["hostname"].as_str())).collect();
            addresses.sort_unstable();
            addresses.dedup();
            let balanced = shorten(join(addresses.into_iter()));
            match (balanced.is_empty(), external.is_empty()) {
                (true, true) => "<pending>".into(),
                (true, false) => external,
                (false, true) => balanced,
                (false, false) => format!("{balanced},{external}"),
            }
        }
        "ExternalName" => text(object, "externalName").into(),
        _ => UNKNOWN.into(),
    }
}

/// At most 16 characters, as upstream shows load balancers' long host names.
fn shorten(text: String) -> String {
    if text.len() <= 16 { text } else { format!("{}...", text.chars().take(13).collect::<String>()) }
}

fn ports(object: &Value) -> String {
    let ports: Vec<String> = items(&object["spec"]["ports"])
        .map(|port| {
            let number = port["port"].as_i64().unwrap_or(0);
            let protocol = port["protocol"].as_str().unwrap_or_default();
            match port["nodePort"].as_i64().unwrap_or(0) {
                0 => format!("{number}/{protocol}"),
                node_port => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    if ports.is_empty() { NONE.into() } else { ports.join(",") }
}

fn field<'a>(spec: &'a Object, name: &str) -> &'a str {
    spec.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Whether clients outside the cluster can reach it, which is when `externalTrafficPolicy` means something.
fn externally_accessible(spec: &Value) -> bool {
    match spec["type"].as_str() {
        Some("LoadBalancer" | "NodePort") => true,
        Some("ClusterIP") => items(&spec["externalIPs"]).len() > 0,
        _ => false,
    }
}

#[derive(Debug)]
struct Service;

impl Strategy for Service {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        if let Some(status) = make(object, "status") {
            set(status, "loadBalancer", json!({}));
            if let Some(balancer) = child(status, "loadBalancer") {
                for ingress in each(balancer, "ingress") {
                    if ingress.get("ip").is_some_and(Value::is_string) {
                        set(ingress, "ipMode", "VIP");
                    }
                }
            }
        }
        let Some(spec) = make(object, "spec") else { return };
        set_str(spec, "sessionAffinity", "None");
        set_str(spec, "type", "ClusterIP");
        match field(spec, "sessionAffinity") {
            "None" => drop(spec.remove("sessionAffinityConfig")),
            "ClientIP" => {
                let client = make(spec, "sessionAffinityConfig").and_then(|config| make(config, "clientIP"));
                if let Some(client) = client {
                    set(client, "timeoutSeconds", 10_800);
                }
            }
            _ => {}
        }
        for port in each(spec, "ports") {
            set_str(port, "protocol", "TCP");
            let unset = match port.get("targetPort") {
                None | Some(Value::Null) => true,
                Some(Value::String(name)) => name.is_empty(),
                Some(number) => number.as_i64() == Some(0),
            };
            if unset {
                let number = port.get("port").cloned().unwrap_or_default();
                port.insert("targetPort".into(), number);
            }
            if port.get("nodePort").is_some_and(|n| n.as_i64() == Some(0)) {
                port.remove("nodePort");
            }
        }
        let kind = field(spec, "type").to_string();
        let accessible = kind == "LoadBalancer"
            || kind == "NodePort"
            || (kind == "ClusterIP" && spec.get("externalIPs").is_some_and(|ips| items(ips).len() > 0));
        if accessible {
            set_str(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind != "ExternalName" {
            set(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            set(spec, "allocateLoadBalancerNodePorts", true);
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
        let Some(map) = object.as_object_mut() else { return };
        match write {
            Write::Create => {
                map.insert("status".into(), json!({"loadBalancer": {}}));
                if let Some(spec) = child(map, "spec") {
                    update::normalize_addresses(spec, &Value::Null);
                }
            }
            Write::Update(old) => {
                if let Some(spec) = child(map, "spec") {
                    update::carry_over(spec, &old["spec"]);
                }
            }
            Write::Subresource(..) => {}
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        rules::validate(object, write)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Dns1035Label
    }
}
