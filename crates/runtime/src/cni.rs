//! Runs CNI plugins as the specification (1.0) says: a list of plugins per network, ADD and CHECK in order, DEL in reverse,
//! each fed the previous result; capabilities a plugin declares arrive as `runtimeConfig`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::{Error, processes};

/// A plugin that takes longer has failed.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// The pod's interface.
const INTERFACE: &str = "eth0";
/// Largest network configuration, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A network: its list of plugins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Network {
    pub name: String,
    pub version: String,
    pub plugins: Vec<Map<String, Value>>,
}

/// What was added to a sandbox; kept so that DEL gets the same configuration and the last result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub network: Network,
    pub result: Value,
    pub pod: Pod,
}

/// Whom plugins work for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pod {
    pub sandbox_id: String,
    pub netns: PathBuf,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// In the shape of the `portMappings` capability.
    pub port_mappings: Vec<Value>,
}

/// Where configurations and plugins are.
#[derive(Clone, Debug)]
pub(crate) struct Cni {
    conf_dir: PathBuf,
    bin_dir: PathBuf,
}

impl Cni {
    pub(crate) fn new(conf_dir: PathBuf, bin_dir: PathBuf) -> Self {
        Self { conf_dir, bin_dir }
    }

    /// The network to use now: the first valid configuration in name order. The error says why there is none, in the words
    /// a node's condition shows.
    pub(crate) fn network(&self) -> Result<Network, Error> {
        let none = || Error::Network("Network plugin returns error: cni plugin not initialized".into());
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&self.conf_dir)
            .map_err(|_| none())?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "conflist" || kind == "conf" || kind == "json"))
            .collect();
        paths.sort();
        let mut broken = None;
        for path in paths {
            match load(&path).and_then(|network| self.check_plugins(network)) {
                Ok(network) => return Ok(network),
                Err(why) => broken = Some(format!("{}: {why}", path.display())),
            }
        }
        Err(broken.map_or_else(none, |why| Error::Network(format!("Network plugin returns error: {why}"))))
    }

    fn check_plugins(&self, network: Network) -> Result<Network, String> {
        for plugin in &network.plugins {
            let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
            if kind.is_empty() || kind.contains('/') || !self.bin_dir.join(kind).is_file() {
                return Err(format!("failed to find plugin {kind:?} in path [{}]", self.bin_dir.display()));
            }
        }
        Ok(network)
    }

    /// Adds the pod to the network. What a failed ADD left is the caller's to remove.
    pub(crate) async fn add(&self, attachment: &mut Attachment) -> Result<(), Error> {
        for index in 0..attachment.network.plugins.len() {
            attachment.result = self.call("ADD", attachment, index).await?;
        }
        Ok(())
    }

    /// Ends the plugins that a runtime which was killed had started for this sandbox: they would go on adding what is
    /// removed meanwhile.
    pub(crate) async fn end_orphans(sandbox_id: &str) {
        let variable = format!("CNI_CONTAINERID={sandbox_id}");
        let end = move || processes::end_all("environ", &[variable.as_bytes()]);
        let _ = tokio::task::spawn_blocking(end).await;
    }

    /// Removes the pod from the network; plugins treat what is gone already as removed. Goes on after an error, and returns
    /// the first.
    pub(crate) async fn del(&self, attachment: &Attachment) -> Result<(), Error> {
        let mut outcome = Ok(());
        for index in (0..attachment.network.plugins.len()).rev() {
            outcome = outcome.and(self.call("DEL", attachment, index).await.map(drop));
        }
        outcome
    }

    /// Asks whether the pod's network is still as it was added.
    pub(crate) async fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        for index in 0..attachment.network.plugins.len() {
            self.call("CHECK", attachment, index).await?;
        }
        Ok(())
    }

    async fn call(&self, command: &str, attachment: &Attachment, index: usize) -> Result<Value, Error> {
        let Some(plugin) = attachment.network.plugins.get(index) else { return Ok(Value::Null) };
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let fail = |why: String| {
            let verb = match command {
                "ADD" => "add",
                "DEL" => "delete",
                _ => "check",
            };
            Error::Network(format!("plugin type={kind:?} name={:?} failed ({verb}): {why}", attachment.network.name))
        };
        let input = plugin_input(attachment, plugin, command).to_string();
        let pod = &attachment.pod;
        let mut child = Command::new(self.bin_dir.join(kind))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.sandbox_id)
            .env("CNI_NETNS", if command == "DEL" && !pod.netns.exists() { Path::new("") } else { &pod.netns })
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", &self.bin_dir)
            .env("CNI_ARGS", plugin_args(pod))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| fail(error.to_string()))?;
        let mut stdin = child.stdin.take();
        let run = async {
            if let Some(stdin) = &mut stdin {
                // A plugin that does not read its configuration says so by its exit.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            drop(stdin);
            child.wait_with_output().await
        };
        let output = timeout(PLUGIN_TIMEOUT, run)
            .await
            .map_err(|_| fail(format!("no answer within {} s", PLUGIN_TIMEOUT.as_secs())))?
            .map_err(|error| fail(error.to_string()))?;
        let answer: Result<Value, _> = serde_json::from_slice(&output.stdout);
        if output.status.success() {
            // DEL and CHECK answer nothing; an ADD's plugin that passes a result on may too.
            return match (command, answer) {
                ("ADD", Ok(result)) => Ok(result),
                ("ADD", Err(_)) if index > 0 => Ok(attachment.result.clone()),
                ("ADD", Err(error)) => Err(fail(format!("unreadable result: {error}"))),
                _ => Ok(Value::Null),
            };
        }
        let text = |key: &str| answer.as_ref().ok().and_then(|a| a.get(key)?.as_str().map(String::from));
        Err(fail(match (text("msg"), text("details")) {
            (Some(msg), Some(details)) if !details.is_empty() => format!("{msg}; {details}"),
            (Some(msg), _) => msg,
            (None, _) => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                format!(
                    "netplugin failed ({}): {}",
                    output.status,
                    stderr.trim().chars().take(1000).collect::<String>()
                )
            }
        }))
    }
}

impl Attachment {
    /// Of a pod that is about to be added.
    pub(crate) fn new(network: Network, pod: Pod) -> Self {
        Self { network, result: Value::Null, pod }
    }

    /// The pod's addresses on its interface, without prefix lengths, first IPv4 or IPv6 as the plugin orders them.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let ips = self.result.get("ips").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let address = |ip: &Value| ip.get("address")?.as_str()?.split('/').next().map(String::from);
        ips.iter().filter_map(address).collect()
    }
}

fn load(path: &Path) -> Result<Network, String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_CONFIG_BYTES).read_to_string(&mut text).map_err(|error| error.to_string())?;
    parse(&text)
}

/// Reads a list, or a single plugin's configuration as a list of one.
fn parse(text: &str) -> Result<Network, String> {
    let document: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let string = |key: &str| document.get(key).and_then(Value::as_str).map(String::from);
    let name = string("name").filter(|name| !name.is_empty()).ok_or("no network name")?;
    let version = string("cniVersion").unwrap_or_else(|| "0.2.0".into());
    let plugins: Vec<Map<String, Value>> = match document.get("plugins") {
        Some(Value::Array(plugins)) => plugins.iter().filter_map(|plugin| plugin.as_object().cloned()).collect(),
        Some(_) => return Err("plugins is not a list".into()),
        None if document.contains_key("type") => vec![document],
        None => return Err("neither plugins nor a type".into()),
    };
    if plugins.is_empty() {
        return Err("no plugins".into());
    }
    Ok(Network { name, version, plugins })
}

fn plugin_input(attachment: &Attachment, plugin: &Map<String, Value>, command: &str) -> Value {
    let mut input = plugin.clone();
    let capable = |capability: &str| {
        plugin.get("capabilities").and_then(|all| all.get(capability)).and_then(Value::as_bool).unwrap_or(false)
    };
    let mut runtime_config = Map::new();
    if capable("portMappings") && !attachment.pod.port_mappings.is_empty() {
        runtime_config.insert("portMappings".into(), attachment.pod.port_mappings.clone().into());
    }
    input.remove("capabilities");
    if !runtime_config.is_empty() {
        input.insert("runtimeConfig".into(), runtime_config.into());
    }
    input.insert("name".into(), json!(attachment.network.name));
    input.insert("cniVersion".into(), json!(attachment.network.version));
    if !attachment.result.is_null() || command == "CHECK" {
        input.insert("prevResult".into(), attachment.result.clone());
    }
    Value::Object(input)
}

fn plugin_args(pod: &Pod) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        pod.namespace, pod.name, pod.sandbox_id, pod.uid
    )
}

#[cfg(test)]
mod tests;
