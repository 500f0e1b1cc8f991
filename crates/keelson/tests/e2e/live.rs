//! What a node does beyond running containers, each shown on a running cluster with kubectl: device plugins, RuntimeClasses,
//! user namespaces, resizes in place, evictions, shutdowns. (Static pods are in `pods/statics.rs`, measurements in `metrics.rs`.)

mod devices;
mod groups;
mod pressure;
mod resize;
mod runtime_classes;
mod shutdown;
mod user_namespaces;

use std::path::PathBuf;

use keelson_testbed::cluster::Cluster;
use serde_json::{Value, json};

use super::BUSYBOX;

/// A pod of busybox that runs a line of shell, with more fields of its container and of its spec.
fn pod(name: &str, script: &str, container: Value, spec: Value) -> String {
    let mut main = json!({"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]});
    extend(&mut main, container);
    let mut own = json!({"terminationGracePeriodSeconds": 1, "containers": [main]});
    extend(&mut own, spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": own}).to_string()
}

fn extend(map: &mut Value, more: Value) {
    let Value::Object(more) = more else { panic!("a map: {more}") };
    map.as_object_mut().expect("a map").extend(more);
}

/// Applies a pod and waits until it is ready.
fn run(cluster: &Cluster, name: &str, manifest: &str) {
    cluster.apply(manifest);
    cluster.kubectl(&format!("wait --for=condition=Ready pod/{name} --timeout=60s"));
}

fn pod_field(cluster: &Cluster, name: &str, path: &str) -> String {
    cluster.kubectl(&format!("get pod {name} -o jsonpath={{{path}}}"))
}

/// A file of the control group of the pod, or of its first container: `v1` under `controller`, or `v2`.
fn group_file(cluster: &Cluster, name: &str, of_container: bool, controller: &str, v1: &str, v2: &str) -> String {
    let class = pod_field(cluster, name, ".status.qosClass");
    let class = if class == "Guaranteed" { String::new() } else { format!("{}/", class.to_lowercase()) };
    let uid = pod_field(cluster, name, ".metadata.uid");
    let id = pod_field(cluster, name, ".status.containerStatuses[0].containerID");
    let id = if of_container { id.split_once("://").expect("an id").1 } else { "" };
    let group = format!("keelson/{0}/{0}/kubepods/{class}pod{uid}/{id}", cluster.profile());
    let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{controller}/{group}/{v1}"))
        .or_else(|_| std::fs::read_to_string(format!("/sys/fs/cgroup/{group}/{v2}")))
        .unwrap_or_else(|error| panic!("{group}: {error}"));
    text.trim().to_owned()
}

/// A path of the node, as this process reaches it.
fn on_node(cluster: &Cluster, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{path}", cluster.init_pid(cluster.profile())))
}

/// Waits until an event about `name` contains all of `words`.
fn until_event(cluster: &Cluster, name: &str, words: &[&str]) -> String {
    let columns = "custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message";
    let args = format!("get events --field-selector involvedObject.name={name} --no-headers -o {columns}");
    cluster.wait_for(&args, |events| events.lines().any(|event| words.iter().all(|word| event.contains(word))))
}

/// Gives the node's kubelet another configuration and ends it; waits for the next one to have it.
fn reconfigure(cluster: &Cluster, configuration: &str, shown: &str) {
    std::fs::write(cluster.path("shared/kubelet.yaml"), configuration).expect("the kubelet's configuration");
    for pid in cluster.processes(cluster.profile(), "keelson agent") {
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(killed.expect("kill").success());
    }
    let configz = format!("get --raw /api/v1/nodes/{}/proxy/configz", cluster.profile());
    cluster.wait_for(&configz, |configz| configz.contains(shown));
}

/// A cluster whose kubelet reads its configuration from a file that [`reconfigure`] changes.
fn up_configurable() -> Cluster {
    let files = [("kubelet.yaml", "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n")];
    let config = "--extra-config=kubelet.config=/mnt/shared/kubelet.yaml";
    let cluster = Cluster::up_with_files(env!("CARGO_BIN_EXE_keelson"), &files, &[config]);
    super::load_busybox(&cluster);
    cluster
}
