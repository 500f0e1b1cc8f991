//! Nodes that run out of something: small ones, so that this machine does not.

mod support;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_kubelet::{Amount, Config, Signal};
use kube::Api;
use serde_json::{Value, json};
use support::{Cluster, IMAGE, NODE, condition, eventually};

/// A pod that does `script` once and then sleeps.
fn pod(name: &str, script: &str, container: Value, volume: Value) -> Value {
    let mut main = json!({"name": "main", "image": IMAGE, "volumeMounts": [{"name": "work", "mountPath": "/work"}],
        "command": ["sh", "-c", format!("{script}; while true; do sleep 0.1; done")]});
    main.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [main],
        "volumes": [{"name": "work", "emptyDir": volume}]}})
}

async fn until_node(cluster: &Cluster, kind: &str, is: bool) {
    let nodes = Api::<Node>::all(cluster.admin());
    eventually(&format!("the node's {kind} is {is}"), async || {
        let conditions = nodes.get(NODE).await.unwrap().status?.conditions?;
        let wanted = if is { "True" } else { "False" };
        conditions.iter().any(|found| found.type_ == kind && found.status == wanted).then_some(())
    })
    .await;
}

/// Waits until the pod is evicted; gives the message.
async fn until_evicted(cluster: &Cluster, name: &str) -> (String, Pod) {
    cluster
        .until(name, "evicted", |pod| {
            let status = pod.status.as_ref()?;
            let evicted = status.phase.as_deref() == Some("Failed") && status.reason.as_deref() == Some("Evicted");
            evicted.then(|| (status.message.clone().unwrap_or_default(), pod.clone()))
        })
        .await
}

fn common(config: &mut Config) {
    config.eviction_monitoring_interval = Duration::from_millis(200);
    config.eviction_pressure_transition_period = Duration::from_secs(4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_pressure() {
    let cluster = Cluster::start_with("evict-memory", |config| {
        common(config);
        config.capacity_override.insert("memory".into(), Quantity("400Mi".into()));
        config.eviction_hard = [(Signal::MemoryAvailable, Amount::Quantity(100 << 20))].into();
    })
    .await;
    let memory = json!({"medium": "Memory"});
    let modest = json!({"resources": {"requests": {"memory": "100Mi"}, "limits": {"memory": "150Mi"}}});
    let fill = |mib: u32| format!("dd if=/dev/zero of=/work/file bs=1M count={mib}");
    cluster.create(pod("modest", &fill(60), modest, memory.clone())).await;
    cluster.until_running("modest").await;
    until_node(&cluster, "MemoryPressure", false).await;
    cluster.create(pod("hog", &fill(290), json!({}), memory)).await;
    let (message, hog) = until_evicted(&cluster, "hog").await;
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: 100Mi, available: ")
            && message.contains("Container main was using ")
            && message.ends_with(", request is 0, has larger consumption of memory. "),
        "{message}"
    );
    assert!(condition(&hog, "DisruptionTarget"), "{:?}", hog.status);
    until_node(&cluster, "MemoryPressure", true).await;
    // While it lasts nothing comes that asks for nothing.
    cluster.create(pod("late", "true", json!({}), json!({}))).await;
    let (message, late) = until_evicted(&cluster, "late").await;
    assert_eq!(message, "Pod was rejected: The node had condition: [MemoryPressure]. ");
    assert!(!condition(&late, "DisruptionTarget"), "it had no work to lose");
    until_node(&cluster, "MemoryPressure", false).await;
    let modest = cluster.pods().get("modest").await.unwrap();
    assert!(condition(&modest, "Ready"), "who uses less than it asked for stays: {:?}", modest.status);
    let events = cluster.events().await;
    for expected in [
        "node-1 EvictionThresholdMet: Attempting to reclaim memory",
        "hog Evicted: The node was low on resource: memory.",
        "node-1 NodeHasInsufficientMemory: Node node-1 status is now: NodeHasInsufficientMemory",
        "node-1 NodeHasSufficientMemory: Node node-1 status is now: NodeHasSufficientMemory",
    ] {
        assert!(events.contains(expected), "{expected} not in\n{events}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_pressure_and_limits() {
    let cluster = Cluster::start_with("evict-disk", |config| {
        common(config);
        // The kubelet's own small filesystem.
        std::fs::create_dir_all(&config.root_dir).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        let size = c"size=64m,nr_inodes=4096";
        rustix::mount::mount("tmpfs", &config.root_dir, "tmpfs", flags, Some(size)).unwrap();
        config.eviction_hard = [(Signal::NodefsAvailable, Amount::Percent(50.0))].into();
        config.eviction_minimum_reclaim = [(Signal::NodefsAvailable, Amount::Quantity(1 << 20))].into();
    })
    .await;
    let fill = |mib: u32| format!("dd if=/dev/zero of=/work/file bs=1M count={mib}");
    // Over its volume's limit, and over its containers'.
    cluster.create(pod("fat-volume", &fill(8), json!({}), json!({"sizeLimit": "4Mi"}))).await;
    let (message, fat) = until_evicted(&cluster, "fat-volume").await;
    assert_eq!(message, "Usage of EmptyDir volume \"work\" exceeds the limit \"4Mi\". ");
    assert!(!condition(&fat, "DisruptionTarget"), "its own fault");
    let limit = json!({"resources": {"limits": {"ephemeral-storage": "6Mi"}}});
    cluster.create(pod("fat-pod", &fill(8), limit, json!({}))).await;
    let (message, _) = until_evicted(&cluster, "fat-pod").await;
    assert_eq!(message, "Pod ephemeral local storage usage exceeds the total limit of containers 6Mi. ");

    cluster.create(pod("modest", &fill(4), json!({}), json!({}))).await;
    cluster.until_running("modest").await;
    until_node(&cluster, "DiskPressure", false).await;
    cluster.create(pod("hog", &fill(40), json!({}), json!({}))).await;
    let (message, hog) = until_evicted(&cluster, "hog").await;
    assert!(
        message.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: 32Mi, "),
        "{message}"
    );
    assert!(condition(&hog, "DisruptionTarget"));
    until_node(&cluster, "DiskPressure", true).await;
    until_node(&cluster, "DiskPressure", false).await;
    assert!(condition(&cluster.pods().get("modest").await.unwrap(), "Ready"), "the smaller one stays");
    let events = cluster.events().await;
    assert!(events.contains("node-1 EvictionThresholdMet: Attempting to reclaim ephemeral-storage"), "{events}");
    cluster.finish_with_mounts(1).await;
}
