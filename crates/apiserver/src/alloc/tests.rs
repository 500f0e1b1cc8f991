use serde_json::{Value, json};

use super::assign::{Limits, assign, uses};
use super::{Ranges, Taken};

/// What it is given stays claimed.
fn run(taken: &mut Taken, name: &str, spec: Value, old: Option<&Value>) -> Result<Value, String> {
    let mut object = json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec});
    let old = old.map(|spec| json!({"spec": spec}));
    let ranges = Ranges { cidr: "10.96.0.0/24".parse().unwrap(), node_ports: 30000..=30003 };
    let held = old.as_ref().map(uses).unwrap_or_default();
    let limits = Limits { ranges: &ranges, held: &held, avoid: &[] };
    assign(&limits, taken, &mut Vec::new(), &mut object, old.as_ref())
        .map_err(|e| format!("{}: {}", e.field, e.message))?;
    Ok(object["spec"].take())
}

#[test]
fn cluster_ips() {
    let mut taken = Taken::default();
    let a = run(&mut taken, "a", json!({"type": "ClusterIP"}), None).unwrap();
    assert_eq!(a["clusterIPs"], json!([a["clusterIP"]]));
    assert_eq!((a["ipFamilies"].clone(), &a["ipFamilyPolicy"]), (json!(["IPv4"]), &json!("SingleStack")));
    let address: std::net::Ipv4Addr = a["clusterIP"].as_str().unwrap().parse().unwrap();
    assert!(address.octets()[3] > 16, "dynamic addresses come from the upper band");
    let named = run(&mut taken, "dns", json!({"clusterIP": "10.96.0.10"}), None).unwrap();
    assert_eq!(named["clusterIPs"], json!(["10.96.0.10"]));
    let twice = run(&mut taken, "b", json!({"clusterIP": "10.96.0.10"}), None).unwrap_err();
    assert_eq!(
        twice,
        "spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"
    );
    let outside = run(&mut taken, "b", json!({"clusterIP": "10.97.0.1"}), None).unwrap_err();
    assert!(outside.ends_with("is not in the valid range. The range of valid IPs is 10.96.0.0/24"), "{outside}");
    let headless = run(&mut taken, "h", json!({"clusterIP": "None", "selector": {"a": "b"}}), None).unwrap();
    assert_eq!(headless["clusterIPs"], json!(["None"]));
    let external = run(&mut taken, "e", json!({"type": "ExternalName"}), None).unwrap();
    assert_eq!(external.get("clusterIP"), None);
    let kept = run(&mut taken, "a", json!({"type": "ClusterIP"}), Some(&a)).unwrap();
    assert_eq!(kept["clusterIP"], a["clusterIP"]);
}

#[test]
fn node_ports() {
    let mut taken = Taken::default();
    let spec = |ports: Value| json!({"type": "NodePort", "ports": ports});
    let a = run(&mut taken, "a", spec(json!([{"port": 80}, {"port": 81, "nodePort": 30001}])), None).unwrap();
    assert_eq!(a["ports"][1]["nodePort"], 30001);
    let kept = run(&mut taken, "a", spec(json!([{"port": 80}, {"port": 81}])), Some(&a)).unwrap();
    assert_eq!(kept["ports"], a["ports"]);
    let error = |taken: &mut Taken, port: u16| {
        run(taken, "b", spec(json!([{"port": 80, "nodePort": port}])), None).unwrap_err()
    };
    assert_eq!(
        error(&mut taken, 30001),
        "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"
    );
    assert_eq!(
        error(&mut taken, 80),
        "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-30003"
    );
    let shared = spec(json!([
        {"name": "t", "port": 53, "nodePort": 30003, "protocol": "TCP"},
        {"name": "u", "port": 53, "nodePort": 30003, "protocol": "UDP"},
    ]));
    run(&mut Taken::default(), "dns", shared, None).unwrap();
}

#[test]
fn repairs() {
    use super::repair::{Observed, Plan, plan};
    use super::reservation::Reserved;
    use super::{Item, Owner};
    use std::collections::HashMap;
    use std::time::Duration;

    let address = |last: u8| Item::Address(std::net::Ipv4Addr::new(10, 96, 0, last).into());
    let owner = |name: &str| -> Owner { format!("d/{name}").into() };
    let by = |name: &str, managed| Reserved { owner: owner(name), revision: 7, managed };
    let observed = Observed {
        services: [
            (address(1), ["kept"].as_slice()),
            (address(2), &["missing"]),
            (address(3), &["wrong"]),
            (Item::Port(30000), &["first", "second"]),
        ]
        .map(|(item, owners)| (item, owners.iter().map(|name| owner(name)).collect()))
        .into(),
        reserved: HashMap::from([
            (address(1), by("kept", true)),
            (address(3), by("other", false)),
            (address(4), by("gone", true)),
            (address(5), by("gateway", false)),
            (Item::Port(30000), by("second", true)),
            (Item::Port(30001), by("gone", true)),
        ]),
    };
    let (mut suspects, start, grace) = (HashMap::new(), tokio::time::Instant::now(), Duration::from_secs(180));
    let mut at = |seconds, observed: &Observed| {
        let mut plan = plan(observed, &mut suspects, start + Duration::from_secs(seconds), grace);
        plan.remove.sort();
        plan
    };
    let make = || vec![(address(2), owner("missing"))];
    assert_eq!(at(0, &observed), Plan { make: make(), remove: vec![] }, "a write may be under way");
    assert_eq!(at(179, &observed), Plan { make: make(), remove: vec![] });
    let remove = vec![(address(3), 7), (address(4), 7), (Item::Port(30001), 7)];
    assert_eq!(at(180, &observed), Plan { make: make(), remove });
    // One that was made anew in between is another.
    let mut other = observed;
    assert_eq!(at(181, &other).remove, []);
    other.reserved.insert(address(4), Reserved { revision: 8, ..by("gone", true) });
    assert_eq!(at(361, &other).remove, [(address(3), 7), (Item::Port(30001), 7)]);
}
