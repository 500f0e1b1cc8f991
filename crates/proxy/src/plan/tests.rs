use serde_json::{Value as Json, json};

use super::*;

fn node() -> NodeView {
    NodeView {
        name: "n1".to_owned(),
        cluster_cidr: Some("10.244.0.0/16".parse().unwrap()),
        service_cidr: None,
        masquerade_all: false,
    }
}

fn service(spec: Json) -> Service {
    let mut full = json!({"clusterIP": "10.96.0.5", "type": "ClusterIP", "ports": [{"port": 80}]});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "d"}, "spec": full})).unwrap()
}

/// An endpoint as `address@node flags`: `-` not ready, `t` terminating but serving.
fn slice(endpoints: &[&str]) -> EndpointSlice {
    let endpoints: Vec<Json> = endpoints
        .iter()
        .map(|text| {
            let mut words = text.split([' ', '@']);
            let (address, node) = (words.next().unwrap(), words.next());
            let conditions = match words.next() {
                Some("-") => json!({"ready": false}),
                Some("t") => json!({"ready": false, "serving": true, "terminating": true}),
                _ => json!({"ready": true}),
            };
            json!({"addresses": [address], "nodeName": node, "conditions": conditions})
        })
        .collect();
    let slice = json!({
        "metadata": {"name": "s-1"}, "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
    });
    serde_json::from_value(slice).unwrap()
}

/// Entries in one line each.
fn lines(service: &Service, slices: &[EndpointSlice]) -> Vec<String> {
    let front = |f: Frontend| format!("{}:{}/{:?}", f.ip, f.port, f.protocol);
    let mut lines: Vec<String> = plan(&node(), service, slices.iter())
        .into_iter()
        .map(|(key, value)| match (key, value) {
            (Key::Service(f), Value::Class(Class::Balance(b))) => {
                let local = b.local.map(|n| format!(" local {n}")).unwrap_or_default();
                let sticky = b.sticky_seconds.map(|s| format!(" sticky {s}")).unwrap_or_default();
                format!("{} -> {}{local} {:?}{sticky}", front(f), b.all, b.masquerade)
            }
            (Key::Service(f), Value::Class(other)) => format!("{} -> {other:?}", front(f)),
            (Key::Endpoint(f, i), Value::To(to)) if i >= LOCAL => format!("{} local {} = {to}", front(f), i - LOCAL),
            (Key::Endpoint(f, i), Value::To(to)) => format!("{} {i} = {to}", front(f)),
            (Key::Sticky(f, to), _) => format!("{} sticky {to}", front(f)),
            (Key::Firewalled(f), _) => format!("{} firewalled", front(f)),
            (Key::Allowed(f, net), _) => format!("{} allows {net}", front(f)),
            (Key::Hairpin(ip), _) => format!("hairpin {ip}"),
            (Key::ClusterIp(_), _) => String::new(),
            other => panic!("{other:?}"),
        })
        .filter(|line| !line.is_empty())
        .collect();
    lines.sort();
    lines
}

fn check(spec: Json, endpoints: &[&str], expected: &[&str]) {
    assert_eq!(lines(&service(spec.clone()), &[slice(endpoints)]), expected, "{spec}");
}

#[test]
fn cluster_ips() {
    check(
        json!({}),
        &["10.244.0.2@n1", "10.244.1.2@n2"],
        &[
            "10.96.0.5:80/Tcp -> 2 OffCluster",
            "10.96.0.5:80/Tcp 0 = 10.244.0.2:8080",
            "10.96.0.5:80/Tcp 1 = 10.244.1.2:8080",
            "hairpin 10.244.0.2",
        ],
    );
    check(
        json!({"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}),
        &["10.244.1.2@n2"],
        &["10.96.0.5:53/Udp -> 1 OffCluster", "10.96.0.5:53/Udp 0 = 10.244.1.2:5353"],
    );
    check(json!({"ports": [{"name": "other", "port": 80}]}), &["10.244.1.2"], &["10.96.0.5:80/Tcp -> Reject"]);
}

#[test]
fn services_that_are_not_ours() {
    check(json!({"clusterIP": "None"}), &["10.244.1.2"], &[]);
    check(json!({"type": "ExternalName", "externalName": "x"}), &["10.244.1.2"], &[]);
    check(json!({"clusterIP": "fd00::1"}), &["10.244.1.2"], &[]);
    let mut foreign = service(json!({}));
    foreign.metadata.labels = Some([(PROXY_NAME_LABEL.to_owned(), "x".to_owned())].into());
    assert!(lines(&foreign, &[slice(&["10.244.1.2"])]).is_empty());
}

#[test]
fn readiness() {
    let ports = "10.96.0.5:80/Tcp";
    check(json!({}), &["10.244.1.2 "], &[&format!("{ports} -> 1 OffCluster"), &format!("{ports} 0 = 10.244.1.2:8080")]);
    check(json!({}), &["10.244.1.2@n2 -"], &[&format!("{ports} -> Reject")]);
    // Terminating endpoints serve only while there is no ready one.
    let only = [format!("{ports} -> 1 OffCluster"), format!("{ports} 0 = 10.244.1.3:8080")];
    let only = [only[0].as_str(), only[1].as_str()];
    check(json!({}), &["10.244.1.2@n2 t", "10.244.1.3@n2"], &only);
    check(json!({}), &["10.244.1.3@n2 t"], &only);
    // The same endpoint in two slices counts once.
    let both = lines(&service(json!({})), &[slice(&["10.244.1.3@n2"]), slice(&["10.244.1.3@n2"])]);
    assert_eq!(both, only);
}

#[test]
fn internal_traffic_policy_local() {
    let spec = json!({"internalTrafficPolicy": "Local"});
    check(
        spec.clone(),
        &["10.244.0.2@n1", "10.244.1.2@n2"],
        &["10.96.0.5:80/Tcp -> 1 OffCluster", "10.96.0.5:80/Tcp 0 = 10.244.0.2:8080", "hairpin 10.244.0.2"],
    );
    check(spec.clone(), &["10.244.1.2@n2"], &["10.96.0.5:80/Tcp -> Drop"]);
    check(spec, &[], &["10.96.0.5:80/Tcp -> Reject"]);
}

#[test]
fn node_ports_and_external_traffic_policy() {
    let spec = |policy| {
        json!({"type": "NodePort", "clusterIP": "10.96.0.5", "externalTrafficPolicy": policy,
            "ports": [{"port": 80, "nodePort": 30080}]})
    };
    let cluster = ["10.96.0.5:80/Tcp -> 1 OffCluster", "10.96.0.5:80/Tcp 0 = 10.244.1.2:8080"];
    check(
        spec("Cluster"),
        &["10.244.1.2@n2"],
        &["0.0.0.0:30080/Tcp -> 1 Always", "0.0.0.0:30080/Tcp 0 = 10.244.1.2:8080", cluster[0], cluster[1]],
    );
    check(
        spec("Local"),
        &["10.244.1.2@n2"],
        &["0.0.0.0:30080/Tcp -> 1 local 0 Always", "0.0.0.0:30080/Tcp 0 = 10.244.1.2:8080", cluster[0], cluster[1]],
    );
    check(
        spec("Local"),
        &["10.244.0.2@n1"],
        &[
            "0.0.0.0:30080/Tcp -> 1 local 1 Always",
            "0.0.0.0:30080/Tcp 0 = 10.244.0.2:8080",
            "0.0.0.0:30080/Tcp local 0 = 10.244.0.2:8080",
            "10.96.0.5:80/Tcp -> 1 OffCluster",
            "10.96.0.5:80/Tcp 0 = 10.244.0.2:8080",
            "hairpin 10.244.0.2",
        ],
    );
    check(spec("Local"), &[], &["0.0.0.0:30080/Tcp -> Reject", "10.96.0.5:80/Tcp -> Reject"]);
}

#[test]
fn load_balancers() {
    let mut balanced = service(json!({
        "type": "LoadBalancer", "externalIPs": ["192.0.2.9"],
        "loadBalancerSourceRanges": ["198.51.100.0/25", "198.51.100.128/25", "fd00::/8"],
    }));
    let ingress =
        json!([{"ip": "192.0.2.8"}, {"ip": "192.0.2.7", "ipMode": "Proxy"}, {"ip": "127.0.0.1"}, {"hostname": "h"}]);
    balanced.status = serde_json::from_value(json!({"loadBalancer": {"ingress": ingress}})).unwrap();
    assert_eq!(
        lines(&balanced, &[slice(&["10.244.1.2@n2"])]),
        [
            "10.96.0.5:80/Tcp -> 1 OffCluster",
            "10.96.0.5:80/Tcp 0 = 10.244.1.2:8080",
            "192.0.2.8:80/Tcp -> 1 Always",
            "192.0.2.8:80/Tcp 0 = 10.244.1.2:8080",
            "192.0.2.8:80/Tcp allows 198.51.100.0/24",
            "192.0.2.8:80/Tcp firewalled",
            "192.0.2.9:80/Tcp -> 1 Always",
            "192.0.2.9:80/Tcp 0 = 10.244.1.2:8080",
        ]
    );
}

#[test]
fn session_affinity() {
    let sticky = |config: Json| json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config});
    let expected = |seconds| {
        [
            format!("10.96.0.5:80/Tcp -> 1 OffCluster sticky {seconds}"),
            "10.96.0.5:80/Tcp 0 = 10.244.1.2:8080".to_owned(),
            "10.96.0.5:80/Tcp sticky 10.244.1.2:8080".to_owned(),
        ]
    };
    let with = |config| lines(&service(sticky(config)), &[slice(&["10.244.1.2@n2"])]);
    assert_eq!(with(json!({"clientIP": {"timeoutSeconds": 60}})), expected(60));
    assert_eq!(with(Json::Null), expected(10_800));
}
