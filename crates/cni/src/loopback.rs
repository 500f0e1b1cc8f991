//! The plugin type `loopback`, which containerd and CRI-O call for every pod before the network's own plugin: brings the
//! pod's `lo` up. It holds nothing, so DEL has nothing to free: the interface goes with its namespace.

use serde::Deserialize;
use serde_json::json;

use crate::{
    conf::NetConf,
    error::{CniError, Context as _, code},
    link,
    ops::open_netns,
    request::{Command, Request},
};

/// `type` of the network configuration.
pub(crate) const TYPE: &str = "loopback";
const LO: &str = "lo";
/// Index of `lo`, the first interface of every network namespace.
const LO_INDEX: u32 = 1;

/// Whether a network configuration is for this plugin type.
pub(crate) fn is_meant(stdin: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        r#type: Option<String>,
    }
    serde_json::from_slice::<Typed>(stdin).is_ok_and(|conf| conf.r#type.as_deref() == Some(TYPE))
}

/// Carries out one request; the text for standard output.
pub(crate) async fn dispatch(request: &Request, conf: &NetConf) -> Result<String, CniError> {
    match request.command {
        Command::Add => add(request, conf).await,
        Command::Check => check(request).await,
        Command::Del | Command::Gc | Command::Status | Command::Version => Ok(String::new()),
    }
}

async fn add(request: &Request, conf: &NetConf) -> Result<String, CniError> {
    let (netns, path) = open_netns(request)?;
    let pod = link::pod_connection(&netns, path)?;
    let failed = || "cannot bring lo of the pod up".to_owned();
    pod.set_link_up_by_index(LO_INDEX).await.context(code::NETLINK, failed)?;
    let sandbox = path.to_string_lossy();
    let mut ip = json!({ "interface": 0, "address": "127.0.0.1/8" });
    if let (true, Some(map)) = (conf.cni_version.starts_with("0."), ip.as_object_mut()) {
        map.insert("version".to_owned(), json!("4"));
    }
    let interface = json!({ "name": LO, "mac": "00:00:00:00:00:00", "sandbox": sandbox });
    Ok(json!({ "cniVersion": conf.cni_version, "interfaces": [interface], "ips": [ip], "dns": {} }).to_string())
}

async fn check(request: &Request) -> Result<String, CniError> {
    let (netns, path) = open_netns(request)?;
    let pod = link::pod_connection(&netns, path)?;
    let lo = pod.get_link_by_name(LO).await.context(code::NETLINK, || "cannot read the pod's lo".to_owned())?;
    if lo.is_some_and(|lo| lo.is_up()) {
        return Ok(String::new());
    }
    let what = format!("container {} is not as ADD left it", request.container_id);
    Err(CniError::new(code::CHECK_FAILED, what, "lo is down"))
}
