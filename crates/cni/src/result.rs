//! The result of ADD, in the shape of the version the caller speaks.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::conf::NetConf;

/// What ADD made.
#[derive(Debug)]
pub(crate) struct Added {
    /// Hardware address of the bridge.
    pub(crate) bridge_mac: String,
    /// Name of the node's end of the pair.
    pub(crate) host_ifname: String,
    /// Hardware address of the node's end.
    pub(crate) host_mac: String,
    /// Hardware address of the pod's end.
    pub(crate) pod_mac: String,
    /// The pod's address.
    pub(crate) address: Ipv4Addr,
    /// The next hop of the pod.
    pub(crate) gateway: Ipv4Addr,
    /// Routes of the pod; the next hop is the gateway unless one is given.
    pub(crate) routes: Vec<(Ipv4Net, Ipv4Addr)>,
}

impl Added {
    /// The specification's result object.
    pub(crate) fn to_json(&self, conf: &NetConf, ifname: &str, sandbox: &str) -> String {
        let mut ip =
            json!({ "interface": 2, "address": format!("{}/32", self.address), "gateway": self.gateway.to_string() });
        if let (true, Some(map)) = (conf.cni_version.starts_with("0."), ip.as_object_mut()) {
            map.insert("version".to_owned(), json!("4"));
        }
        let routes: Vec<Value> =
            self.routes.iter().map(|(dst, gw)| json!({ "dst": dst.to_string(), "gw": gw.to_string() })).collect();
        json!({
            "cniVersion": conf.cni_version,
            "interfaces": [
                { "name": conf.bridge, "mac": self.bridge_mac },
                { "name": self.host_ifname, "mac": self.host_mac },
                { "name": ifname, "mac": self.pod_mac, "sandbox": sandbox },
            ],
            "ips": [ip],
            "routes": routes,
            "dns": {},
        })
        .to_string()
    }
}
