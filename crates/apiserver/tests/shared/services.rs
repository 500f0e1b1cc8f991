//! Addresses and ports of Services, given out by several servers at once.

use std::collections::HashSet;

use keelson_apiserver::{Config, UserInfo};
use keelson_store::etcd::process::Etcd;
use serde_json::{Value, json};

use super::{scratch, server_with, start};
use crate::support::Api;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

/// A server with small ranges, in which servers often choose the same.
async fn server(etcd: &Etcd) -> Api {
    let config =
        Config { service_cidr: "10.96.0.0/26".parse().unwrap(), node_ports: 30000..=30059, ..Config::default() };
    Api::new(server_with(etcd, config).await, UserInfo::new("admin", ["system:masters"]))
}

/// Names of the IPAddress objects, without that of the `kubernetes` Service.
async fn addresses(api: &Api) -> HashSet<String> {
    let list = api.ok(&format!("GET {ADDRESSES}"), json!(null)).await;
    let names = list["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned());
    names.filter(|name| name != "10.96.0.1").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_out_twice() {
    let dir = scratch();
    let etcd = start(dir.path());
    let (a, b, c) = tokio::join!(server(&etcd), server(&etcd), server(&etcd));
    let service =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    // All at once: each server chooses from what the others choose from.
    let calls = (0..48).map(|n| {
        let (api, body) = ([&a, &b, &c][n % 3].clone(), service(&format!("s{n}")));
        tokio::spawn(async move { api.ok(&format!("POST {SERVICES}"), body).await })
    });
    let mut made = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        made.push(call.await.unwrap());
    }
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let ips: HashSet<String> = made.iter().map(|service| text(&service["spec"]["clusterIP"])).collect();
    let ports: HashSet<u64> = made.iter().map(|s| s["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).collect();
    assert_eq!((ips.len(), ports.len()), (48, 48), "{made:?}");
    assert_eq!(addresses(&b).await, ips);
    for (n, service) in made.iter().enumerate() {
        let name = service["metadata"]["name"].as_str().unwrap();
        [&b, &c, &a][n % 3].ok(&format!("DELETE {SERVICES}/{name}"), json!(null)).await;
    }
    assert_eq!(addresses(&a).await, HashSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_those_who_name_the_same_gets_it() {
    let dir = scratch();
    let etcd = start(dir.path());
    let (a, b, c) = tokio::join!(server(&etcd), server(&etcd), server(&etcd));
    let all = [&a, &b, &c];
    let of_address =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.96.0.50", "ports": [{"port": 80}]}});
    let of_port = |name: &str| {
        let ports = json!([{"port": 80, "nodePort": 30050}]);
        json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": ports}})
    };
    for round in 0..12 {
        let by_port = round % 2 == 1;
        // In the last rounds they are even of one name.
        let name = |n: usize| if round < 8 { format!("s{n}") } else { "same".to_owned() };
        let calls = all.iter().enumerate().map(|(n, api)| {
            let body = if by_port { of_port(&name(n)) } else { of_address(&name(n)) };
            let api = (*api).clone();
            tokio::spawn(async move { api.call(&format!("POST {SERVICES}"), body).await })
        });
        let mut winners = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            let (code, answer) = call.await.unwrap();
            let why = if by_port { "provided port is already allocated" } else { "provided IP is already allocated" };
            match code {
                201 => winners.push(answer),
                409 if round >= 8 => assert_eq!(answer["reason"], "AlreadyExists", "{answer}"),
                _ => {
                    assert_eq!(code, 422, "{answer}");
                    assert!(answer["message"].as_str().unwrap().contains(why), "{answer}");
                }
            }
        }
        let [winner] = winners.as_slice() else { panic!("round {round}: {winners:?}") };
        let ip = winner["spec"]["clusterIP"].as_str().unwrap();
        assert_eq!(addresses(&a).await, HashSet::from([ip.to_owned()]), "losers keep nothing");
        // The next round finds it free, at every server.
        let name = winner["metadata"]["name"].as_str().unwrap();
        all[(round + 1) % 3].ok(&format!("DELETE {SERVICES}/{name}"), json!(null)).await;
    }
    assert_eq!(addresses(&c).await, HashSet::new());
}
