//! A running pod's CPU and memory, changed in place.

mod support;

use std::fs;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::{Cluster, IMAGE, container, eventually};

fn resources(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

async fn resize(cluster: &Cluster, wanted: Value) {
    let patch = json!({"spec": {"containers": [{"name": "main", "resources": wanted}]}});
    let parameters = PatchParams::default();
    cluster.pods().patch_subresource("resize", "p", &parameters, &Patch::Strategic(&patch)).await.unwrap();
}

/// A limit of the pod's or its container's group, as the kernel has it: v1's controller and file, v2's file.
fn limit(cluster: &Cluster, group: &str, v1: (&str, &str), v2: &str) -> String {
    let group = format!("{}/kubepods/{group}", cluster.cgroup().trim_start_matches('/'));
    let (controller, file) = v1;
    fs::read_to_string(format!("/sys/fs/cgroup/{group}/{v2}"))
        .or_else(|_| fs::read_to_string(format!("/sys/fs/cgroup/{controller}/{group}/{file}")))
        .unwrap()
        .trim()
        .to_string()
}

/// A resize condition's reason and message; `None` without the condition.
fn progress(pod: &Pod, kind: &str) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.reason.clone().unwrap_or_default(), found.message.clone().unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resized_in_place() {
    let mut cluster = Cluster::start("resize").await;
    let pod = cluster
        .create(json!({"metadata": {"name": "p"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": IMAGE, "command": ["sh", "-c", "while true; do sleep 0.1; done"],
            "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}],
            "resources": resources("100m", "64Mi")}]}}))
        .await;
    let uid = pod.metadata.uid.clone().unwrap();
    let running = cluster.until_running("p").await;
    let id = container(&running, "main").unwrap().container_id.unwrap();
    let bare = id.split_once("://").unwrap().1.to_string();
    let of_container = format!("pod{uid}/{bare}");
    let quota = |group: &str| {
        let text = limit(&cluster, group, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
        text.split(' ').next().unwrap().to_string()
    };
    assert_eq!(quota(&of_container), "10000");

    // CPU: at once, in the same container.
    resize(&cluster, resources("250m", "64Mi")).await;
    let resized = cluster
        .until("p", "resized", |pod| {
            let status = container(pod, "main")?;
            let told = status.resources.as_ref()?.limits.as_ref()?.get("cpu")?.0.clone();
            (told == "250m" && progress(pod, "PodResizeInProgress").is_none()).then_some(status)
        })
        .await;
    assert_eq!(resized.container_id.as_deref(), Some(id.as_str()), "no restart");
    assert_eq!(resized.allocated_resources.unwrap()["cpu"].0, "250m");
    assert_eq!((quota(&of_container), quota(&format!("pod{uid}"))), ("25000".into(), "25000".into()));

    // More than the node has: never.
    resize(&cluster, resources("1000", "64Mi")).await;
    let (reason, message) = cluster.until("p", "infeasible", |pod| progress(pod, "PodResizePending")).await;
    assert_eq!(reason, "Infeasible");
    assert!(message.starts_with("Node didn't have enough capacity: cpu, requested: 1000000, capacity: "), "{message}");
    assert_eq!(quota(&of_container), "25000");
    // A new kubelet knows what the pod has, not only what it should have.
    cluster.kill_kubelet().await;
    cluster.start_kubelet();
    let pods = cluster.pods();
    eventually("the kubelet has looked again", async || {
        let events = cluster.events().await;
        events.contains("p ResizeInfeasible: ").then_some(())
    })
    .await;
    let now = pods.get("p").await.unwrap();
    assert_eq!(container(&now, "main").unwrap().allocated_resources.unwrap()["cpu"].0, "250m");

    // Back to something that fits, with memory, which this container wants to be restarted for.
    resize(&cluster, resources("200m", "96Mi")).await;
    let restarted = cluster
        .until("p", "restarted with more memory", |pod| {
            let status = container(pod, "main")?;
            let told = status.resources.as_ref()?.limits.as_ref()?.get("memory")?.0.clone();
            (told == "96Mi" && status.restart_count == 1 && status.ready).then_some(status)
        })
        .await;
    let bare = restarted.container_id.unwrap().split_once("://").unwrap().1.to_string();
    let memory = ("memory", "memory.limit_in_bytes");
    for group in [format!("pod{uid}/{bare}"), format!("pod{uid}")] {
        assert_eq!(limit(&cluster, &group, memory, "memory.max"), (96 << 20).to_string(), "{group}");
    }
    cluster.until("p", "free of conditions", |pod| progress(pod, "PodResizePending").is_none().then_some(())).await;
    let events = cluster.events().await;
    for expected in ["p ResizeStarted: ", "p ResizeCompleted: ", "p Killing: Container main resize requires restart"] {
        assert!(events.contains(expected), "{expected} not in\n{events}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deferred_until_another_pod_goes() {
    let cluster = Cluster::start_with("resize-deferred", |config| {
        let cpus = k8s_openapi::apimachinery::pkg::api::resource::Quantity("1".into());
        config.capacity_override.insert("cpu".into(), cpus);
    })
    .await;
    for (name, cpu) in [("p", "300m"), ("other", "500m")] {
        cluster
            .create(json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                "name": "main", "image": IMAGE, "command": ["sh", "-c", "while true; do sleep 0.1; done"],
                "resources": {"requests": {"cpu": cpu}}}]}}))
            .await;
        cluster.until_running(name).await;
    }
    resize(&cluster, json!({"requests": {"cpu": "700m"}})).await;
    let (reason, message) = cluster.until("p", "deferred", |pod| progress(pod, "PodResizePending")).await;
    let expected = "Node didn't have enough resource: cpu, requested: 700, used: 500, capacity: 1000";
    assert_eq!((reason.as_str(), message.as_str()), ("Deferred", expected));
    cluster.pods().delete("other", &kube::api::DeleteParams::default().grace_period(1)).await.unwrap();
    cluster
        .until("p", "resized", |pod| {
            let told = container(pod, "main")?.allocated_resources?.get("cpu")?.0.clone();
            (told == "700m" && progress(pod, "PodResizePending").is_none()).then_some(())
        })
        .await;
    cluster.finish().await;
}
