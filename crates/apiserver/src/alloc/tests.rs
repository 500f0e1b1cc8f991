use serde_json::{Value, json};

use super::Taken;
use super::assign::assign;

fn run(taken: &mut Taken, name: &str, spec: Value, old: Option<&Value>) -> Result<Value, String> {
    let mut object = json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec});
    let old = old.map(|spec| json!({"spec": spec}));
    assign(&"10.96.0.0/24".parse().unwrap(), &(30000..=30003), taken, &mut object, old.as_ref())
        .map_err(|(_, _, e)| format!("{}: {}", e.field, e.message))?;
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
