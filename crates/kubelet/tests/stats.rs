//! What the kubelet measures, against the kernel's own counters for a known load.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Cluster, IMAGE, NODE, eventually};

async fn get(cluster: &Cluster, path: &str) -> String {
    let request = http::Request::get(format!("/api/v1/nodes/{NODE}/proxy{path}")).body(Vec::new()).unwrap();
    cluster.admin().request_text(request).await.unwrap()
}

/// The value of a series that has all of `labels`.
fn series(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = text.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit_once("} ").or(line.split_once(' '))?.1.split(' ').next()?.parse().ok()
}

/// A file of the container's own group, in whatever hierarchy has it.
fn kernel(cluster: &Cluster, uid: &str, id: &str, v1: (&str, &str), v2: &str) -> String {
    let group = format!("{}/kubepods/pod{uid}/{id}", cluster.cgroup().trim_start_matches('/'));
    let unified = format!("/sys/fs/cgroup/{group}/{v2}");
    let (controller, file) = v1;
    fs::read_to_string(&unified)
        .or_else(|_| fs::read_to_string(format!("/sys/fs/cgroup/{controller}/{group}/{file}")))
        .unwrap()
}

fn close(ours: f64, kernels: f64, percent: f64) -> bool {
    (ours - kernels).abs() <= kernels * percent / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measured_as_the_kernel_counts() {
    let cluster = Cluster::start("stats").await;
    // Keeps 32 MiB in memory, 8 MiB on disk in each of three places, and half a CPU busy at most.
    let script = "dd if=/dev/zero of=/mem/file bs=1M count=32; dd if=/dev/zero of=/work/file bs=1M count=8; \
                  dd if=/dev/zero of=/layer bs=1M count=8; yes | head -c 8388608; touch /work/done; while true; do :; done";
    let pod = cluster
        .create(json!({"metadata": {"name": "load"}, "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c", script],
                "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}},
                "readinessProbe": {"exec": {"command": ["test", "-e", "/work/done"]}, "periodSeconds": 1},
                "volumeMounts": [{"name": "work", "mountPath": "/work"}, {"name": "mem", "mountPath": "/mem"}]}],
            "volumes": [{"name": "work", "emptyDir": {}}, {"name": "mem", "emptyDir": {"medium": "Memory"}}]}}))
        .await;
    let uid = pod.metadata.uid.clone().unwrap();
    let running = cluster.until_running("load").await;
    let id = support::container(&running, "main").unwrap().container_id.unwrap();
    let id = id.split_once("://").unwrap().1.to_string();

    // /metrics/resource: between two readings of the kernel's counter lies the kubelet's.
    let usage = || {
        let text = kernel(&cluster, &uid, &id, ("cpuacct", "cpuacct.usage"), "cpu.stat");
        match text.trim().parse::<f64>() {
            Ok(ns) => ns / 1e9,
            Err(_) => series(&text, "usage_usec", &[]).unwrap() / 1e6,
        }
    };
    let labels = ["container=\"main\"", "namespace=\"default\"", "pod=\"load\""];
    let before = usage();
    // A pass is shared for a second: wait for one that began after the reading.
    let cpu = eventually("a newer pass", async || {
        let text = get(&cluster, "/metrics/resource").await;
        series(&text, "container_cpu_usage_seconds_total", &labels).filter(|cpu| *cpu >= before)
    })
    .await;
    let after = usage();
    assert!(before <= cpu && cpu <= after, "{before} {cpu} {after}");
    let resource = get(&cluster, "/metrics/resource").await;
    let memory = series(&resource, "container_memory_working_set_bytes", &labels).unwrap();
    let used: f64 =
        kernel(&cluster, &uid, &id, ("memory", "memory.usage_in_bytes"), "memory.current").trim().parse().unwrap();
    let stat = kernel(&cluster, &uid, &id, ("memory", "memory.stat"), "memory.stat");
    let inactive = series(&stat, "total_inactive_file", &[]).or(series(&stat, "inactive_file", &[])).unwrap();
    assert!(close(memory, used - inactive, 5.0), "{memory} {used} {inactive}");
    assert!(memory > f64::from(32 << 20), "{memory}");
    let pod_memory = series(&resource, "pod_memory_working_set_bytes", &["pod=\"load\""]).unwrap();
    assert!(pod_memory >= memory, "{pod_memory} {memory}");
    for name in ["node_cpu_usage_seconds_total", "node_memory_working_set_bytes", "resource_scrape_error"] {
        assert!(series(&resource, name, &[]).is_some(), "{name} is not in\n{resource}");
    }

    // /stats/summary: the same, and a rate that is what the limit allows.
    let summary = eventually("a rate", async || {
        let summary: Value = serde_json::from_str(&get(&cluster, "/stats/summary").await).unwrap();
        let pod = summary["pods"].as_array()?.iter().find(|pod| pod["podRef"]["uid"] == uid.as_str())?.clone();
        let rate = pod["containers"][0]["cpu"]["usageNanoCores"].as_u64()?;
        let layer = pod["containers"][0]["rootfs"]["usedBytes"].as_u64()?;
        (rate > 1_000_000 && layer >= 8 << 20).then_some((summary, pod))
    })
    .await;
    let (summary, pod) = summary;
    let container = &pod["containers"][0];
    let rate = container["cpu"]["usageNanoCores"].as_u64().unwrap();
    assert!(rate < 600_000_000, "a limit of half a CPU allows no {rate}");
    assert_eq!(container["name"], "main");
    let near = |value: &Value| (8 << 20..10 << 20).contains(&value.as_u64().unwrap_or(0));
    assert!(near(&container["rootfs"]["usedBytes"]), "{container}");
    assert!(
        near(&container["logs"]["usedBytes"]) || container["logs"]["usedBytes"].as_u64() > Some(8 << 20),
        "{container}"
    );
    let volume = |name: &str| pod["volume"].as_array().unwrap().iter().find(|v| v["name"] == name).unwrap().clone();
    assert!(near(&volume("work")["usedBytes"]), "{pod}");
    assert!(volume("mem")["usedBytes"].as_u64() >= Some(32 << 20), "{pod}");
    let ephemeral = pod["ephemeral-storage"]["usedBytes"].as_u64().unwrap();
    assert!((24 << 20..64 << 20).contains(&ephemeral), "layer, logs and emptyDir, but no memory: {ephemeral}");
    assert_eq!(summary["node"]["nodeName"], NODE);
    assert!(summary["node"]["fs"]["capacityBytes"].as_u64() > Some(0), "{summary}");
    assert!(summary["node"]["runtime"]["imageFs"]["usedBytes"].as_u64() > Some(0), "{summary}");
    assert!(summary["node"]["rlimit"]["maxpid"].as_u64() > Some(0), "{summary}");
    let brief: Value = serde_json::from_str(&get(&cluster, "/stats/summary?only_cpu_and_memory=true").await).unwrap();
    assert!(brief["node"]["fs"].is_null() && brief["node"]["memory"].is_object(), "{brief}");

    // /metrics/cadvisor, /metrics/probes and /metrics
    let text = get(&cluster, "/metrics/cadvisor").await;
    let id_label = format!("id=\"{}/kubepods/pod{uid}/{id}\"", cluster.cgroup());
    let of_container = [labels[0], labels[1], labels[2], id_label.as_str()];
    assert_eq!(series(&text, "container_spec_memory_limit_bytes", &of_container), Some(f64::from(128 << 20)));
    assert_eq!(series(&text, "container_spec_cpu_quota", &of_container), Some(50_000.0));
    let periods = series(&text, "container_cpu_cfs_periods_total", &of_container);
    assert!(periods > Some(0.0), "a busy loop runs in periods");
    assert!(series(&text, "container_memory_rss", &of_container).is_some());
    assert!(series(&text, "container_fs_usage_bytes", &of_container) >= Some(f64::from(8 << 20)));
    // The pods of this test have no interfaces but loopback; the node has.
    assert!(series(&text, "container_network_receive_bytes_total", &["pod=\"\""]).is_some(), "{text}");
    assert!(series(&text, "machine_cpu_cores", &[]).is_some());
    let probes = get(&cluster, "/metrics/probes").await;
    let probed = ["container=\"main\"", "pod=\"load\"", "probe_type=\"Readiness\"", "result=\"successful\""];
    assert!(series(&probes, "prober_probe_total", &probed) >= Some(1.0), "{probes}");
    let own = get(&cluster, "/metrics").await;
    assert_eq!(series(&own, "kubelet_running_containers", &["container_state=\"running\""]), Some(1.0), "{own}");
    assert!(series(&own, "kubelet_runtime_operations_total", &["operation_type=\"run_podsandbox\""]) >= Some(1.0));
    cluster.finish().await;
}
