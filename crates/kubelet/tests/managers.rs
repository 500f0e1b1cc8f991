//! CPUs and memory of their own on a real node (of at least two CPUs), and who asks about them.

mod support;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_cri::pod_resources::{Client, GetRequest};
use keelson_kubelet::Config;
use keelson_kubelet::config::MemoryReservation;
use kube::api::{DeleteParams, LogParams};
use serde_json::json;
use support::{Cluster, IMAGE, eventually};

/// Says which CPUs and NUMA nodes it runs on, now and whenever that changes.
const WATCH: &str = "old=; while :; do \
    new=$(awk '/Cpus_allowed_list|Mems_allowed_list/ {printf \"%s \", $2}' /proc/self/status); \
    [ \"$new\" = \"$old\" ] || echo \"$new\"; old=$new; sleep 0.1; done";

fn pod(name: &str, limits: serde_json::Value) -> serde_json::Value {
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": IMAGE, "resources": {"limits": limits}, "command": ["sh", "-c", WATCH]}]}})
}

async fn until_last_line(cluster: &Cluster, pod: &str, expected: &str) {
    eventually(&format!("{pod} runs on {expected:?}"), async || {
        let log = cluster.pods().logs(pod, &LogParams::default()).await.ok()?;
        (log.lines().last()?.trim() == expected).then_some(())
    })
    .await;
}

fn adjust(config: &mut Config) {
    let amount = |text: &str| Quantity(text.into());
    config.cpu_manager_policy = "static".into();
    config.memory_manager_policy = "Static".into();
    config.topology_manager_policy = "single-numa-node".into();
    config.reserved_system_cpus = "0".into();
    config.system_reserved.insert("memory".into(), amount("100Mi"));
    // What is reserved, and what is kept for eviction.
    config.eviction_hard.retain(|signal, _| signal.name() != "memory.available");
    config.reserved_memory =
        vec![MemoryReservation { numa_node: 0, limits: [("memory".to_string(), amount("100Mi"))].into() }];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_cpus_are_exclusive() {
    let mut cluster = Cluster::start_with("managers", adjust).await;
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    assert_ne!(online.trim(), "0", "this test needs two CPUs");
    let all = format!("{} 0", online.trim());
    cluster.create(pod("shared", json!({}))).await;
    until_last_line(&cluster, "shared", &all).await;
    cluster.create(pod("own", json!({"cpu": "1", "memory": "32Mi"}))).await;
    until_last_line(&cluster, "own", "1 0").await;
    let others = match online.trim() {
        "0-1" => "0 0".to_string(),
        "0-2" => "0,2 0".into(),
        more => format!("0,2-{} 0", more.rsplit('-').next().unwrap()),
    };
    until_last_line(&cluster, "shared", &others).await;

    let asked = Client::new(&cluster.path().join("kubelet/pod-resources/kubelet.sock"));
    let all_pods = asked.list().await.unwrap().pod_resources;
    assert_eq!(all_pods.len(), 2);
    let request = GetRequest { pod_name: "own".into(), pod_namespace: "default".into() };
    let found = asked.get(request).await.unwrap().pod_resources.unwrap();
    assert_eq!(found.containers[0].cpu_ids, [1]);
    let memory = &found.containers[0].memory[0];
    assert_eq!((memory.memory_type.as_str(), memory.size), ("memory", 32 << 20));
    assert_eq!(memory.topology.as_ref().unwrap().nodes[0].id, 0);
    let request = GetRequest { pod_name: "none".into(), pod_namespace: "default".into() };
    assert_eq!(asked.get(request).await.unwrap_err().message(), "pod none in namespace default not found");
    let allocatable = asked.allocatable().await.unwrap();
    assert!(allocatable.cpu_ids.contains(&1) && !allocatable.cpu_ids.contains(&0));
    assert!(allocatable.memory[0].size > 64 << 20);

    // A new kubelet goes on from the files.
    cluster.kill_kubelet().await;
    let state = cluster.path().join("kubelet/cpu_manager_state");
    assert!(std::fs::read_to_string(&state).unwrap().contains(r#""policyName":"static","defaultCpuSet":"0"#));
    cluster.start_kubelet();
    // Of what may be given away no CPU is left to ask for.
    cluster.create(pod("late", json!({"memory": "16Mi"}))).await;
    until_last_line(&cluster, "late", &others).await;
    until_last_line(&cluster, "own", "1 0").await;
    cluster.pods().delete("own", &DeleteParams::default()).await.unwrap();
    cluster.until_gone("own").await;
    until_last_line(&cluster, "shared", &all).await;
    until_last_line(&cluster, "late", &all).await;
    cluster.finish().await;
}
