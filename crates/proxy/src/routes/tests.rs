use super::*;

fn node(name: &str, cidr: Option<&str>, ip: Option<&str>) -> Node {
    let addresses: Vec<_> = ip.iter().map(|ip| serde_json::json!({"type": "InternalIP", "address": ip})).collect();
    let node = serde_json::json!({
        "metadata": {"name": name}, "spec": {"podCIDR": cidr}, "status": {"addresses": addresses},
    });
    serde_json::from_value(node).unwrap()
}

#[test]
fn other_nodes_with_range_and_address_get_a_route() {
    let nodes = [
        node("own", Some("10.244.0.0/24"), Some("192.0.2.1")),
        node("b", Some("10.244.1.0/24"), Some("192.0.2.2")),
        node("new", None, Some("192.0.2.3")),
        node("silent", Some("10.244.3.0/24"), None),
        node("six", Some("fd00::/64"), Some("192.0.2.4")),
    ];
    let routes: Vec<String> = plan("own", &nodes).iter().map(|(net, via)| format!("{net} via {via}")).collect();
    assert_eq!(routes, ["10.244.1.0/24 via 192.0.2.2"]);
}
