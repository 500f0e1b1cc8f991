//! Device plugins against a real node.

mod support;

use k8s_openapi::api::core::v1::{Node, Pod};
use keelson_testbed::device_plugin::{RESOURCE, SamplePlugin};
use kube::Api;
use kube::api::{DeleteParams, LogParams};
use serde_json::json;
use support::{Cluster, IMAGE, NODE, eventually};

fn wants(name: &str, count: u32) -> serde_json::Value {
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "image": IMAGE, "resources": {"limits": {RESOURCE: count}},
         "command": ["sh", "-c", "echo $THINGS; cat /thing/note; head -c 3 /dev/thing | wc -c; touch /thing/new 2>/dev/null || echo read-only; exec sleep 1000"]}]}})
}

/// Capacity and allocatable of the node.
async fn until_counts(cluster: &Cluster, capacity: &str, allocatable: &str) {
    let nodes = Api::<Node>::all(cluster.admin());
    eventually(&format!("the node has {capacity}, {allocatable} of them usable"), async || {
        let status = nodes.get(NODE).await.unwrap().status?;
        let of = |list: Option<std::collections::BTreeMap<String, _>>| {
            let quantity: k8s_openapi::apimachinery::pkg::api::resource::Quantity = list?.get(RESOURCE).cloned()?;
            Some(quantity.0)
        };
        (of(status.capacity)? == capacity && of(status.allocatable)? == allocatable).then_some(())
    })
    .await;
}

async fn until_log(cluster: &Cluster, pod: &str, expected: &str) {
    eventually(&format!("{pod} says {expected:?}"), async || {
        (cluster.pods().logs(pod, &LogParams::default()).await.ok()? == expected).then_some(())
    })
    .await;
}

async fn until_refused(cluster: &Cluster, pod: &str) -> String {
    let status = cluster
        .until(pod, "refused", |pod: &Pod| {
            pod.status.clone().filter(|status| status.phase.as_deref() == Some("Failed"))
        })
        .await;
    assert_eq!(status.reason.as_deref(), Some("UnexpectedAdmissionError"));
    status.message.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_reach_containers_and_survive_restarts() {
    let mut cluster = Cluster::start("devices").await;
    let shared = cluster.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("note"), "from the plugin\n").unwrap();
    let dir = cluster.path().join("kubelet/device-plugins");
    let plugin = SamplePlugin::start(&dir, &shared, &[("d1", true), ("d2", true), ("d3", false)]).unwrap();
    plugin.register().await.unwrap();
    until_counts(&cluster, "3", "2").await;

    cluster.create(wants("one", 1)).await;
    cluster.until_running("one").await;
    until_log(&cluster, "one", "d2\nfrom the plugin\n3\nread-only\n").await;
    assert_eq!(plugin.calls(), ["preferred 1 of d1,d2", "allocate d2", "start d2"]);
    cluster.create(wants("two", 2)).await;
    let message = until_refused(&cluster, "two").await;
    assert_eq!(
        message,
        format!(
            "Pod was rejected: Allocate failed due to requested number of devices unavailable for {RESOURCE}. Requested: 2, Available: 1, \
             which is unexpected"
        )
    );
    plugin.set_health("d3", true);
    until_counts(&cluster, "3", "3").await;
    plugin.set_health("d1", false);
    until_counts(&cluster, "3", "2").await;

    // A new kubelet knows who has what, and nothing of what there is until the plugin is back.
    cluster.kill_kubelet().await;
    cluster.start_kubelet();
    until_counts(&cluster, "0", "0").await;
    cluster.create(wants("early", 1)).await;
    assert!(until_refused(&cluster, "early").await.contains("no healthy devices present"));
    drop(plugin);
    let plugin = SamplePlugin::start(&dir, &shared, &[("d1", false), ("d2", true), ("d3", true)]).unwrap();
    plugin.register().await.unwrap();
    until_counts(&cluster, "3", "2").await;
    cluster.create(wants("three", 1)).await;
    cluster.until_running("three").await;
    until_log(&cluster, "three", "d3\nfrom the plugin\n3\nread-only\n").await;
    cluster.pods().delete("one", &DeleteParams::default()).await.unwrap();
    cluster.until_gone("one").await;
    cluster.create(wants("four", 1)).await;
    cluster.until_running("four").await;
    until_log(&cluster, "four", "d2\nfrom the plugin\n3\nread-only\n").await;

    drop(plugin);
    until_counts(&cluster, "3", "0").await;
    cluster.finish().await;
}
