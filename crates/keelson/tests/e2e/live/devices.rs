//! A device plugin, made as upstream's sample plugin is, registered with the kubelet of a running node.

use keelson_testbed::cluster::Cluster;
use keelson_testbed::device_plugin::{RESOURCE, SamplePlugin};
use serde_json::json;

use super::{on_node, pod, pod_field, run, until_event};
use crate::e2e::load_busybox;

/// Where the plugin's directory and its specification of CDI devices are, for the test and for the node.
const SHARED: &str = "/mnt/shared";

fn wants(name: &str, count: u32) -> String {
    let script = "echo $THINGS; cat /thing/note; head -c 3 /dev/thing | wc -c; touch /thing/new 2>/dev/null || echo read-only; \
                  trap 'exit 0' TERM; sleep 3600 & wait";
    pod(name, script, json!({"resources": {"limits": {RESOURCE: count}}}), json!({}))
}

fn until_counts(cluster: &Cluster, capacity: &str, allocatable: &str) {
    let name = RESOURCE.replace('.', "\\.");
    let path = format!("{{.status.capacity.{name}}}/{{.status.allocatable.{name}}}");
    let expected = format!("{capacity}/{allocatable}");
    cluster.wait_for(&format!("get node {} -o jsonpath={path}", cluster.profile()), |counts| counts == expected);
}

fn until_log(cluster: &Cluster, pod: &str, first: &str) {
    let expected = format!("{first}\nfrom the plugin\n3\nread-only\n");
    cluster.wait_for(&format!("logs {pod}"), |log| log == expected);
}

#[test]
fn device_plugins_give_devices_to_pods() {
    let files = [("note", "from the plugin\n")];
    let cluster = Cluster::up_with_files(env!("CARGO_BIN_EXE_keelson"), &files, &[]);
    load_busybox(&cluster);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let dir = on_node(&cluster, "/var/lib/kubelet/device-plugins");
    let start = |devices: &[(&str, bool)]| {
        tokio.block_on(async {
            let plugin = SamplePlugin::start(&dir, SHARED.as_ref(), devices).expect("a plugin");
            plugin.register().await.expect("registering");
            plugin
        })
    };
    let plugin = start(&[("d1", true), ("d2", true), ("d3", false)]);
    until_counts(&cluster, "3", "2");

    run(&cluster, "one", &wants("one", 1));
    until_log(&cluster, "one", "d2");
    assert_eq!(plugin.calls(), ["preferred 1 of d1,d2", "allocate d2", "start d2"]);
    let described = cluster.kubectl(&format!("describe node {}", cluster.profile()));
    let row = described.lines().rfind(|line| line.trim_start().starts_with(RESOURCE)).unwrap_or_default();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), [RESOURCE, "1", "1"], "{described}");

    // More than is left: the scheduler says so. What comes free is given.
    cluster.apply(&wants("two", 2));
    let why = format!("0/1 nodes are available: 1 Insufficient {RESOURCE}.");
    until_event(&cluster, "two", &["Warning", "FailedScheduling", &why]);
    let condition = ".status.conditions[?(@.type=='PodScheduled')]";
    assert_eq!(pod_field(&cluster, "two", &format!("{condition}.reason")), "Unschedulable");
    assert!(pod_field(&cluster, "two", &format!("{condition}.message")).starts_with(&why));
    assert_eq!(pod_field(&cluster, "two", ".status.phase"), "Pending");
    plugin.set_health("d3", true);
    until_counts(&cluster, "3", "3");
    cluster.kubectl("wait --for=condition=Ready pod/two --timeout=60s");
    until_log(&cluster, "two", "d1,d3");

    // A device that fails is offered no more; who has it keeps it.
    plugin.set_health("d1", false);
    until_counts(&cluster, "3", "2");
    assert_eq!(pod_field(&cluster, "two", ".status.phase"), "Running");
    cluster.apply(&wants("three", 1));
    until_event(&cluster, "three", &["FailedScheduling", &why]);

    // A plugin that goes takes its devices with it; the next one brings them back, and what is given stays given.
    drop(plugin);
    until_counts(&cluster, "3", "0");
    let plugin = start(&[("d1", false), ("d2", true), ("d3", true)]);
    until_counts(&cluster, "3", "2");
    assert_eq!(pod_field(&cluster, "three", ".status.phase"), "Pending", "d2 and d3 are others'");
    cluster.kubectl("delete pod one --timeout=60s");
    plugin.set_health("d1", true);
    until_counts(&cluster, "3", "3");
    cluster.kubectl("wait --for=condition=Ready pod/three --timeout=60s");
    until_log(&cluster, "three", "d2");
    assert_eq!(plugin.calls(), ["allocate d2", "start d2"], "with one left there is nothing to prefer");
}

const CDI: &str = r#"{"cdiVersion": "0.6.0", "kind": "keelson.test/thing", "containerEdits": {"env": ["DRIVER=loaded"]}, "devices": [
    {"name": "d1", "containerEdits": {
        "env": ["CHOSEN=d1"],
        "deviceNodes": [{"path": "/dev/chosen", "hostPath": "/dev/zero", "permissions": "r"}],
        "mounts": [{"hostPath": "/mnt/shared", "containerPath": "/vendor", "options": ["ro", "nosuid", "nodev", "bind"]}]}}]}"#;

#[test]
fn device_plugins_name_cdi_devices() {
    let cluster = Cluster::up_with_files(env!("CARGO_BIN_EXE_keelson"), &[("note", "from the vendor\n")], &[]);
    load_busybox(&cluster);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let plugin = tokio.block_on(async {
        let dir = on_node(&cluster, "/var/lib/kubelet/device-plugins");
        let plugin = SamplePlugin::start(&dir, SHARED.as_ref(), &[("d1", true)]).expect("a plugin");
        plugin.give_by_cdi("keelson.test/thing");
        plugin.register().await.expect("registering");
        plugin
    });
    until_counts(&cluster, "1", "1");
    let script = "echo $DRIVER $CHOSEN $THINGS; cat /vendor/note; head -c 3 /dev/chosen | wc -c; touch /vendor/new 2>/dev/null || \
                  echo read-only; trap 'exit 0' TERM; sleep 3600 & wait";
    for (name, spec) in [("plain", json!({})), ("own-users", json!({"hostUsers": false}))] {
        cluster.apply(&pod(name, script, json!({"resources": {"limits": {RESOURCE: 1}}}), spec));
        if name == "plain" {
            // Nobody has described the device yet; when somebody does, the container starts.
            let why = "CDI device injection failed: unresolvable CDI devices keelson.test/thing=d1";
            until_event(&cluster, name, &["Warning", "Failed", why]);
            assert_eq!(
                pod_field(&cluster, name, ".status.containerStatuses[0].state.waiting.reason"),
                "CreateContainerError"
            );
            let dir = on_node(&cluster, "/etc/cdi");
            std::fs::create_dir_all(&dir).expect("a directory");
            std::fs::write(dir.join("vendor.json"), CDI).expect("a file");
        }
        let expected = "loaded d1 d1\nfrom the vendor\n3\nread-only\n";
        cluster.wait_for(&format!("logs {name}"), |log| log == expected);
        cluster.kubectl(&format!("delete pod {name} --timeout=60s"));
    }
    assert_eq!(plugin.calls().iter().filter(|call| *call == "allocate d1").count(), 2);
}
