//! The network configuration: what a runtime passes on standard input, and the file the node agent writes for it.

use std::{net::Ipv4Addr, path::PathBuf};

use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::json;

use crate::{
    SUPPORTED_VERSIONS,
    error::{CniError, code},
};

/// The configuration of one plugin call.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetConf {
    /// Version of the specification the caller speaks.
    #[serde(default = "oldest_version")]
    pub cni_version: String,
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// The bridge all pods of the network are ports of.
    #[serde(default = "default_bridge")]
    pub bridge: String,
    /// MTU of bridge and interfaces, bytes; absent means the kernel's 1500.
    pub mtu: Option<u32>,
    /// Lets a pod reach itself through a service: its bridge port sends a frame back where it came from.
    #[serde(default = "yes")]
    pub hairpin_mode: bool,
    /// Gives the bridge the gateway's address.
    #[serde(default = "yes")]
    pub is_gateway: bool,
    /// Puts the bridge into promiscuous mode, as upstream's bridge plugin can; not supported here.
    #[serde(default)]
    pub promisc_mode: bool,
    /// Address management.
    pub ipam: Option<IpamConf>,
    /// Arguments of the runtime for the capabilities we declared.
    #[serde(default)]
    pub runtime_config: RuntimeConfig,
    /// GC: the attachments that still exist.
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<Attachment>>,
    /// CHECK, DEL: what ADD returned.
    pub prev_result: Option<serde_json::Value>,
}

/// `ipam` of the configuration: one range, kept in a directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamConf {
    /// The node's pod CIDR.
    pub subnet: Ipv4Net,
    /// The gateway; the first address of the subnet when absent.
    pub gateway: Option<Ipv4Addr>,
    /// First address to give to pods, inclusive.
    pub range_start: Option<Ipv4Addr>,
    /// Last address to give to pods, inclusive.
    pub range_end: Option<Ipv4Addr>,
    /// Routes inside the pod.
    #[serde(default)]
    pub routes: Vec<RouteConf>,
    /// Where reservations are kept, in a directory per network.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
}

impl IpamConf {
    /// The gateway's address.
    pub fn gateway(&self) -> Ipv4Addr {
        let first = u32::from(self.subnet.network()).saturating_add(1);
        self.gateway.unwrap_or(Ipv4Addr::from(first))
    }
}

/// A route inside the pod.
#[derive(Debug, Clone, Deserialize)]
pub struct RouteConf {
    /// Destination.
    pub dst: Ipv4Net,
    /// Next hop; the gateway when absent.
    pub gw: Option<Ipv4Addr>,
}

/// `runtimeConfig`: arguments for capabilities.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeConfig {
    /// Host ports of the pod.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
}

/// One host port. containerd writes the names with a capital letter, which upstream's decoder does not mind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Port on the node; 0 or less means there is no host port.
    #[serde(default, alias = "HostPort")]
    pub host_port: i32,
    /// Port in the pod.
    #[serde(alias = "ContainerPort")]
    pub container_port: i32,
    /// `tcp`, `udp` or `sctp`.
    #[serde(default = "default_protocol", alias = "Protocol")]
    pub protocol: String,
    /// Only this address of the node; empty or 0.0.0.0 means all.
    #[serde(default, rename = "hostIP", alias = "HostIP")]
    pub host_ip: String,
}

/// An attachment that still exists, for GC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Attachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface's name inside it.
    pub ifname: String,
}

fn yes() -> bool {
    true
}

fn oldest_version() -> String {
    "0.3.0".to_owned()
}

fn default_bridge() -> String {
    "kl0".to_owned()
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("/var/lib/cni/networks")
}

fn default_protocol() -> String {
    "tcp".to_owned()
}

impl NetConf {
    /// Decodes and checks a configuration.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let conf: Self = serde_json::from_slice(stdin)
            .map_err(|e| CniError::new(code::DECODING, "failed to parse network configuration", e.to_string()))?;
        if !SUPPORTED_VERSIONS.contains(&conf.cni_version.as_str()) {
            let details = format!("config is {:?}, plugin supports {SUPPORTED_VERSIONS:?}", conf.cni_version);
            return Err(CniError::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions", details));
        }
        if !valid_network_name(&conf.name) {
            return Err(invalid(format!("network name {:?} is missing or has invalid characters", conf.name)));
        }
        if conf.promisc_mode {
            let details = "promiscMode is not supported: hairpinMode reaches a pod's own services without it";
            return Err(CniError::new(code::UNSUPPORTED_FIELD, "unsupported network configuration", details));
        }
        if conf.bridge.is_empty() || conf.bridge.len() > 15 || conf.bridge.contains(['/', ' ', ':']) {
            return Err(invalid(format!("bridge {:?} is not an interface name", conf.bridge)));
        }
        Ok(conf)
    }

    /// Address management, which every command but VERSION needs.
    pub fn ipam(&self) -> Result<&IpamConf, CniError> {
        let ipam = self.ipam.as_ref().ok_or_else(|| invalid("ipam.subnet is missing".to_owned()))?;
        if ipam.subnet.prefix_len() > 30 {
            return Err(invalid(format!("ipam.subnet {} has no room for a gateway and a pod", ipam.subnet)));
        }
        for address in [Some(ipam.gateway()), ipam.range_start, ipam.range_end].into_iter().flatten() {
            if !ipam.subnet.contains(&address) {
                return Err(invalid(format!("{address} is not in ipam.subnet {}", ipam.subnet)));
            }
        }
        Ok(ipam)
    }
}

fn valid_network_name(name: &str) -> bool {
    let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    starts_well && name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn invalid(details: String) -> CniError {
    CniError::new(code::INVALID_NETWORK_CONFIG, "invalid network configuration", details)
}

/// The version to answer in: the caller's when we speak it, else our newest.
pub(crate) fn answer_version(stdin: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        cni_version: Option<String>,
    }
    let asked = serde_json::from_slice::<Version>(stdin).ok().and_then(|v| v.cni_version);
    asked.filter(|v| SUPPORTED_VERSIONS.contains(&v.as_str())).unwrap_or_else(|| "1.1.0".to_owned())
}

/// What may differ between nodes in their configuration file.
#[derive(Debug, Clone)]
pub struct ConflistOptions {
    /// Name of the network.
    pub name: String,
    /// Name of the bridge.
    pub bridge: String,
    /// MTU, bytes; `None` leaves the kernel's 1500.
    pub mtu: Option<u32>,
    /// Where addresses are kept; `None` leaves `/var/lib/cni/networks`.
    pub data_dir: Option<PathBuf>,
}

impl Default for ConflistOptions {
    fn default() -> Self {
        Self { name: "keelson".to_owned(), bridge: default_bridge(), mtu: None, data_dir: None }
    }
}

/// The text of `/etc/cni/net.d/10-keelson.conflist` for a node whose pods live in `pod_cidr`.
///
/// It says 1.0.0, the newest version that containerd 1.6 speaks.
pub fn conflist(pod_cidr: Ipv4Net, options: &ConflistOptions) -> String {
    let mut ipam = json!({
        "type": "keelson-cni",
        "subnet": pod_cidr.trunc().to_string(),
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    let mut plugin = json!({
        "type": "keelson-cni",
        "bridge": options.bridge,
        "isGateway": true,
        "hairpinMode": true,
        "capabilities": { "portMappings": true },
    });
    if let (Some(dir), Some(map)) = (&options.data_dir, ipam.as_object_mut()) {
        map.insert("dataDir".to_owned(), json!(dir));
    }
    if let Some(map) = plugin.as_object_mut() {
        if let Some(mtu) = options.mtu {
            map.insert("mtu".to_owned(), json!(mtu));
        }
        map.insert("ipam".to_owned(), ipam);
    }
    let list = json!({ "cniVersion": "1.0.0", "name": options.name, "plugins": [plugin] });
    format!("{list:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(conf: &str, expected: Result<(), &str>) {
        let got = NetConf::parse(conf.as_bytes()).and_then(|c| c.ipam().map(|_| ()));
        match (got, expected) {
            (Ok(()), Ok(())) => {}
            (Err(e), Err(text)) => assert!(format!("{} {e}", e.code).contains(text), "{conf}: {} {e}", e.code),
            (got, expected) => panic!("{conf}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn configurations() {
        check(r#"{"cniVersion":"1.0.0","name":"n","ipam":{"subnet":"10.0.0.0/24"}}"#, Ok(()));
        check("{", Err("6 failed to parse"));
        check(r#"{"cniVersion":"9.0.0","name":"n"}"#, Err("1 incompatible CNI versions"));
        check(r#"{"cniVersion":"1.0.0","name":"../n"}"#, Err("7 invalid network configuration"));
        check(r#"{"cniVersion":"1.0.0","name":"n"}"#, Err("ipam.subnet is missing"));
        check(r#"{"cniVersion":"1.0.0","name":"n","ipam":{"subnet":"10.0.0.0/31"}}"#, Err("no room"));
        check(r#"{"cniVersion":"1.0.0","name":"n","ipam":{"subnet":"10.0.0.0/33"}}"#, Err("6 "));
        check(
            r#"{"cniVersion":"1.0.0","name":"n","ipam":{"subnet":"10.0.0.0/24","rangeEnd":"10.0.1.9"}}"#,
            Err("10.0.1.9 is not in"),
        );
        check(r#"{"cniVersion":"1.0.0","name":"n","promiscMode":true}"#, Err("2 unsupported"));
        check(r#"{"cniVersion":"1.0.0","name":"n","bridge":"a/b"}"#, Err("is not an interface name"));
    }

    #[test]
    fn the_file_written_is_a_configuration_we_read() {
        let options =
            ConflistOptions { mtu: Some(1400), data_dir: Some("/tmp/x".into()), ..ConflistOptions::default() };
        let text = conflist("10.244.3.0/24".parse().unwrap(), &options);
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        // A runtime passes one plugin's entry with the list's name and version added.
        let mut entry = list["plugins"][0].clone();
        entry["cniVersion"] = list["cniVersion"].clone();
        entry["name"] = list["name"].clone();
        let conf = NetConf::parse(entry.to_string().as_bytes()).unwrap();
        let ipam = conf.ipam().unwrap();
        assert_eq!((conf.bridge.as_str(), conf.mtu, conf.hairpin_mode), ("kl0", Some(1400), true));
        assert_eq!((ipam.gateway(), ipam.routes.len()), (Ipv4Addr::new(10, 244, 3, 1), 1));
        assert_eq!(ipam.data_dir, PathBuf::from("/tmp/x"));
    }
}
