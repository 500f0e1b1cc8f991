//! What the verbose forms of CRI's status calls tell beside the status: for people who look into a node, by the names that
//! containerd gives it.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::{
    container,
    core::{Container, Core, Sandbox},
    oci, sandbox,
};

/// Of a container: its process, and the specification that it runs by, without its environment, which may hold secrets.
pub(crate) fn container(found: &Container) -> Value {
    let mut spec = std::fs::read(found.bundle.join("config.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .unwrap_or_default();
    if let Some(process) = spec.get_mut("process").and_then(Value::as_object_mut) {
        process.remove("env");
    }
    json!({
        "sandboxID": found.sandbox.id,
        "pid": container::running_pid(found).unwrap_or(0),
        "snapshotter": "overlayfs",
        "config": found.with(|record| record.config.clone()),
        "runtimeSpec": spec,
    })
}

/// Of a pod.
pub(crate) fn sandbox(core: &Core, found: &Sandbox) -> Value {
    let handler = found.with(|record| record.runtime_handler.clone());
    json!({
        "runtimeHandler": handler,
        "runtimeType": core.config.handlers.get(&handler).map_or("libcontainer".into(), |own| own.path.clone()),
        "netNamespace": found.netns(),
        "hostNetwork": oci::host_network(&found.config()),
        "cniResult": sandbox::network_result(found),
        "config": found.config(),
    })
}

/// Of the runtime.
pub(crate) fn runtime(core: &Core) -> HashMap<String, String> {
    let config = &core.config;
    let value = json!({
        "rootDir": config.root,
        "stateDir": config.state,
        "cni": {"binDir": config.cni_bin_dir, "confDir": config.cni_conf_dir},
        "registry": {"configPath": config.registry_config_dir, "insecure": config.insecure_registries},
        "handlers": config.handlers,
        "capabilities": core.machine.capabilities,
        "unifiedCgroups": core.machine.unified_cgroups,
    });
    let last = core.cni.network().err().map_or("OK".into(), |error| error.to_string());
    [("config".to_owned(), value.to_string()), ("lastCNILoadStatus".to_owned(), last)].into()
}
