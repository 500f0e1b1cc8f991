//! `kubectl top` through metrics.k8s.io, and how it agrees with the kernel.

use std::path::PathBuf;
use std::time::Instant;

use keelson_testbed::cluster::Cluster;
use serde_json::Value;

use super::{mentions, up_with_busybox};

const LOAD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: load, labels: {app: load}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: busy
    image: registry.test/busybox:1
    command: [sh, -c, 'dd if=/dev/zero of=/mem/file bs=1M count=48; while true; do :; done']
    resources: {limits: {cpu: 100m, memory: 128Mi}}
    volumeMounts: [{name: mem, mountPath: /mem}]
  - name: idle
    image: registry.test/busybox:1
    command: [sleep, '1000']
    resources: {limits: {cpu: 100m, memory: 32Mi}}
  volumes: [{name: mem, emptyDir: {medium: Memory}}]
";

/// Files of the container's own group, by v1's controller and name or by v2's name.
struct Kernel {
    group: String,
}

impl Kernel {
    fn of(cluster: &Cluster, pod: &str, container: &str) -> Self {
        let of = |path: &str| cluster.kubectl(&format!("get pod {pod} -o jsonpath={path}"));
        let id = of(&format!("{{.status.containerStatuses[?(@.name==\"{container}\")].containerID}}"));
        let id = id.split_once("://").expect("a container id").1;
        let profile = cluster.profile();
        Self { group: format!("keelson/{profile}/{profile}/kubepods/pod{}/{id}", of("{.metadata.uid}")) }
    }

    fn read(&self, controller: &str, v1: &str, v2: &str) -> String {
        let v1 = PathBuf::from("/sys/fs/cgroup").join(controller).join(&self.group).join(v1);
        let v2 = PathBuf::from("/sys/fs/cgroup").join(&self.group).join(v2);
        std::fs::read_to_string(&v1).or_else(|_| std::fs::read_to_string(v2)).expect("the container's group")
    }

    fn cpu_seconds(&self) -> f64 {
        let text = self.read("cpuacct", "cpuacct.usage", "cpu.stat");
        match text.trim().parse::<f64>() {
            Ok(ns) => ns / 1e9,
            Err(_) => {
                text.lines().find_map(|l| l.strip_prefix("usage_usec ")?.parse::<f64>().ok()).expect("usage") / 1e6
            }
        }
    }

    fn memory_bytes(&self) -> f64 {
        let used: f64 =
            self.read("memory", "memory.usage_in_bytes", "memory.current").trim().parse().expect("a number");
        let stat = self.read("memory", "memory.stat", "memory.stat");
        let inactive =
            |key: &str| stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse::<f64>().ok());
        used - inactive("total_inactive_file").or(inactive("inactive_file")).expect("inactive_file")
    }
}

fn seconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().expect("a time").as_second()
}

#[test]
fn top_agrees_with_the_kernel() {
    let cluster = up_with_busybox();
    cluster.apply(LOAD);
    cluster.kubectl("wait --for=condition=Ready pod/load --timeout=60s");
    let available = "kubectl wait --for=condition=Available apiservice/v1beta1.metrics.k8s.io --timeout=60s";
    mentions(&cluster, available, &["condition met"]);
    mentions(&cluster, "kubectl top node", &["NAME", "CPU(cores)", "MEMORY(bytes)", cluster.profile()]);
    mentions(&cluster, "kubectl top pod", &["load"]);
    mentions(&cluster, "kubectl top pod -l app=load --containers", &["busy", "idle"]);
    mentions(&cluster, "kubectl top pod -l app=other", &["No resources found"]);
    mentions(&cluster, "kubectl top pod other", &["Error from server (NotFound)"]);
    mentions(&cluster, "kubectl get --raw /apis/metrics.k8s.io/v1beta1/nodes/other", &["NotFound"]);
    mentions(&cluster, "kubectl get podmetrics load", &["NAME", "CPU", "MEMORY", "WINDOW", "load"]);
    let explain = "kubectl explain pods --api-version=metrics.k8s.io/v1beta1";
    cluster.wait_for("explain nodes --api-version=metrics.k8s.io/v1beta1", |text| {
        text.contains("KIND:       NodeMetrics")
    });
    mentions(&cluster, explain, &["KIND:       PodMetrics", "GROUP:      metrics.k8s.io", "apiVersion\t<string>"]);
    mentions(&cluster, "kubectl auth can-i list pods.metrics.k8s.io --as jane", &["no"]);

    // A measurement that began after the kernel's counter was read, and that counter again.
    let kernel = Kernel::of(&cluster, "load", "busy");
    let (before, began, wall) = (kernel.cpu_seconds(), Instant::now(), jiff::Timestamp::now());
    let path = "get --raw /apis/metrics.k8s.io/v1beta1/namespaces/default/pods/load";
    let text = cluster.wait_for(path, |text| {
        let Ok(pod) = serde_json::from_str::<Value>(text) else { return false };
        let window: f64 = pod["window"].as_str().and_then(|w| w.strip_suffix('s')?.parse().ok()).unwrap_or(f64::MAX);
        let at = pod["timestamp"].as_str().map_or(0, seconds);
        at as f64 - window >= wall.as_second() as f64
    });
    let rate = (kernel.cpu_seconds() - before) / began.elapsed().as_secs_f64();
    let pod: Value = serde_json::from_str(&text).expect("JSON");
    let age = jiff::Timestamp::now().as_second() - seconds(pod["timestamp"].as_str().expect("a time"));
    assert!(age <= 15, "{age} s old: {pod}");
    let busy = pod["containers"].as_array().and_then(|all| all.iter().find(|c| c["name"] == "busy")).expect("busy");
    let number = |field: &str, unit: &str| -> f64 {
        busy["usage"][field].as_str().and_then(|text| text.strip_suffix(unit)?.parse().ok()).expect("a quantity")
    };
    let cpu = number("cpu", "n") / 1e9;
    assert!((cpu - rate).abs() <= rate * 0.1, "told {cpu}, counted {rate}");
    let (memory, kernels) = (number("memory", "Ki") * 1024.0, kernel.memory_bytes());
    assert!(
        (memory - kernels).abs() <= kernels * 0.05 && memory > f64::from(48 << 20),
        "told {memory}, counted {kernels}"
    );

    // What a kubelet says of itself, through the API server.
    let node = cluster.profile();
    let summary = cluster.kubectl(&format!("get --raw /api/v1/nodes/{node}/proxy/stats/summary"));
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    let pod = summary["pods"].as_array().and_then(|pods| pods.iter().find(|pod| pod["podRef"]["name"] == "load"));
    let used = pod.expect("the pod")["memory"]["workingSetBytes"].as_f64().expect("a number");
    assert!(used >= kernels * 0.95, "the pod holds its containers: {used} {kernels}");
    let cadvisor = cluster.kubectl(&format!("get --raw /api/v1/nodes/{node}/proxy/metrics/cadvisor"));
    let wanted = "container_network_receive_bytes_total{container=\"\"";
    assert!(cadvisor.contains(wanted) && cadvisor.contains("pod=\"load\""), "{cadvisor}");
}
