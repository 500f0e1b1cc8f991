use serde_json::{Value, json};

use super::*;

fn service(ports: Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"team": "x"}},
        "spec": {"clusterIP": "10.96.0.9", "ports": ports}
    }))
    .unwrap()
}

fn pod(n: usize, ready: bool) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("p{n}"), "namespace": "default", "uid": format!("u{n}")},
        "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000 + n}]}]},
        "status": {"phase": "Running", "podIP": format!("10.0.0.{n}"),
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}
    }))
    .unwrap()
}

/// Subsets as `ready;not ready;ports`.
fn check(service: &Service, pods: &[Pod], expected: &[&str]) {
    let pods: Vec<_> = pods.iter().collect();
    let endpoints = plan(service, &pods, None);
    let shown: Vec<String> = endpoints
        .subsets
        .iter()
        .flatten()
        .map(|subset| {
            let ips = |addresses: &Option<Vec<EndpointAddress>>| {
                addresses.iter().flatten().map(|address| address.ip.clone()).collect::<Vec<_>>().join(",")
            };
            let ports: Vec<_> = subset.ports.iter().flatten().map(|port| port.port.to_string()).collect();
            format!("{};{};{}", ips(&subset.addresses), ips(&subset.not_ready_addresses), ports.join(","))
        })
        .collect();
    assert_eq!(shown, expected);
}

#[test]
fn ports_with_the_same_addresses_share_a_subset() {
    let two = service(json!([{"name": "a", "port": 80}, {"name": "b", "port": 443, "targetPort": 8443}]));
    check(&two, &[pod(2, true), pod(1, true), pod(3, false)], &["10.0.0.1,10.0.0.2;10.0.0.3;80,8443"]);
    check(&two, &[], &[]);
}

#[test]
fn named_ports_make_subsets_per_number() {
    let named = service(json!([{"port": 80, "targetPort": "http"}]));
    check(&named, &[pod(1, true), pod(2, true)], &["10.0.0.1;;8001", "10.0.0.2;;8002"]);
}

#[test]
fn terminating_pods_are_out_unless_published() {
    let mut service = service(json!([{"port": 80}]));
    let mut going = pod(1, true);
    going.metadata.deletion_timestamp = Some(jiff::Timestamp::UNIX_EPOCH.into());
    check(&service, &[going.clone(), pod(2, false)], &[";10.0.0.2;80"]);
    service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    check(&service, &[going, pod(2, false)], &["10.0.0.1,10.0.0.2;;80"]);
}

#[test]
fn headless_without_ports_still_has_addresses() {
    let mut service = service(json!(null));
    check(&service, &[pod(1, true)], &[]);
    service.spec.as_mut().unwrap().cluster_ip = Some("None".into());
    check(&service, &[pod(1, true)], &["10.0.0.1;;"]);
    let endpoints = plan(&service, &[], None);
    let labels = serde_json::to_value(&endpoints.metadata.labels).unwrap();
    assert_eq!(labels, json!({"team": "x", HEADLESS: "", MANAGED_BY: MANAGER}));
}

#[test]
fn more_than_a_thousand_are_cut_and_marked() {
    let service = service(json!([{"port": 80}]));
    let pods: Vec<_> = (0..1001).map(|n| pod(n, n != 5)).collect();
    let refs: Vec<_> = pods.iter().collect();
    let endpoints = plan(&service, &refs, None);
    assert_eq!(endpoints.metadata.annotations.as_ref().unwrap()[OVER_CAPACITY], "truncated");
    let subset = &endpoints.subsets.as_ref().unwrap()[0];
    assert_eq!((subset.addresses.as_ref().unwrap().len(), subset.not_ready_addresses.is_none()), (1000, true));
    let fewer = plan(&service, &refs[..3], Some(&endpoints));
    assert!(fewer.metadata.annotations.is_none());
}
