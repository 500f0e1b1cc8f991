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

/// What a busy pod has done: 16 MiB kept in memory, 12 MiB written to its layer, 24 MiB received; and it computes on.
const DONE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: source}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: registry.test/busybox:1
    command: [sh, -c, 'mkdir /www; head -c 25165824 /dev/zero > /www/file; exec httpd -f -p 8080 -h /www']
---
apiVersion: v1
kind: Pod
metadata: {name: done}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: registry.test/busybox:1
    command: [sh, -c, 'until [ -e /mem/address ]; do sleep 0.1; done; head -c 16777216 /dev/zero > /mem/file;
      head -c 12582912 /dev/zero > /written; until wget -q -O /dev/null http://$(cat /mem/address):8080/file; do sleep 0.1; done;
      echo done; while true; do :; done']
    resources: {limits: {cpu: 200m, memory: 128Mi}}
    volumeMounts: [{name: mem, mountPath: /mem}]
  volumes: [{name: mem, emptyDir: {medium: Memory}}]
";

/// The value of a cAdvisor series that has all of `labels`.
fn series(text: &str, name: &str, labels: &[&str]) -> f64 {
    let line = text.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')) && labels.iter().all(|l| line.contains(l))
    });
    let line = line.unwrap_or_else(|| panic!("no {name} with {labels:?} in\n{text}"));
    let value = line.rsplit_once("} ").and_then(|(_, value)| value.split(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no number: {line}"))
}

/// `told` is within `percent` of what the kernel says.
fn agrees(what: &str, told: f64, kernels: f64, percent: f64) {
    assert!((told - kernels).abs() <= kernels * percent / 100.0, "{what}: told {told}, the kernel {kernels}");
}

#[test]
fn every_measurement_agrees_with_the_kernel() {
    let cluster = up_with_busybox();
    let c = &cluster;
    cluster.apply(DONE);
    cluster.kubectl("wait --for=condition=Ready pod/source pod/done --timeout=60s");
    let address = cluster.kubectl("get pod source -o jsonpath={.status.podIP}");
    cluster.kubectl_args(&[
        "exec",
        "done",
        "--",
        "sh",
        "-c",
        &format!("echo {address} > /mem/new; mv /mem/new /mem/address"),
    ]);
    cluster.wait_for("logs done", |log| log == "done\n");

    let kernel = Kernel::of(c, "done", "main");
    let node = cluster.profile();
    let summary_path = format!("get --raw /api/v1/nodes/{node}/proxy/stats/summary");
    let cadvisor_path = format!("get --raw /api/v1/nodes/{node}/proxy/metrics/cadvisor");
    let of_pod = |summary: &str| -> Value {
        let summary: Value = serde_json::from_str(summary).expect("JSON");
        let pods = summary["pods"].as_array().expect("pods");
        pods.iter().find(|pod| pod["podRef"]["name"] == "done").expect("the pod").clone()
    };
    let of_main = ["container=\"main\"", "pod=\"done\"", "namespace=\"default\""];
    // CPU: between two readings of the kernel's counter lies what is told; a pass is shared for a second.
    let before = kernel.cpu_seconds();
    let seconds = |pod: &Value| pod["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_f64().unwrap_or(0.0) / 1e9;
    let summary = cluster.wait_for(&summary_path, |text| seconds(&of_pod(text)) >= before);
    let cadvisor =
        cluster.wait_for(&cadvisor_path, |text| series(text, "container_cpu_usage_seconds_total", &of_main) >= before);
    let after = kernel.cpu_seconds();
    let pod = of_pod(&summary);
    let (told, also) = (seconds(&pod), series(&cadvisor, "container_cpu_usage_seconds_total", &of_main));
    assert!(told <= after && also <= after, "{before} {told} {also} {after}");
    assert!(before > 0.0 && after - before < 60.0, "{before} {after}");

    // Memory, which no longer changes.
    let used = kernel.memory_bytes();
    assert!(used > f64::from(16 << 20), "{used}");
    let container = &pod["containers"][0];
    agrees("summary, memory", container["memory"]["workingSetBytes"].as_f64().expect("bytes"), used, 5.0);
    agrees("cadvisor, memory", series(&cadvisor, "container_memory_working_set_bytes", &of_main), used, 5.0);
    let top = cluster.wait_for("top pod done --containers --no-headers", |top| top.contains("Mi"));
    let shown: Vec<&str> = top.split_whitespace().collect();
    let [_, "main", cpu, memory] = shown[..] else { panic!("{top}") };
    let mib: f64 = memory.trim_end_matches("Mi").parse().expect("MiB");
    assert!((mib * f64::from(1 << 20) - used).abs() <= used * 0.05 + f64::from(1 << 20), "{top} {used}");
    let milli: f64 = cpu.trim_end_matches('m').parse().expect("CPU");
    assert!((150.0..=230.0).contains(&milli) || after - before < 1.0, "a limit of 200m, used to the full: {top}");

    // The writable layer, as its files' blocks add up.
    let id = kernel.group.rsplit('/').next().expect("an id").to_owned();
    let init = cluster.init_pid(node);
    let upper = format!("/proc/{init}/root/var/lib/keelson/runtime/containers/{id}/upper");
    let du = std::process::Command::new("du").args(["-s", "-B1", &upper]).output().expect("du");
    let blocks = String::from_utf8_lossy(&du.stdout).into_owned();
    let blocks: f64 = blocks.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(blocks >= f64::from(12 << 20), "{blocks}");
    let told = cluster.wait_for(&summary_path, |text| {
        of_pod(text)["containers"][0]["rootfs"]["usedBytes"].as_f64().is_some_and(|used| used >= blocks * 0.98)
    });
    let told = of_pod(&told)["containers"][0]["rootfs"]["usedBytes"].as_f64().expect("bytes");
    agrees("summary, rootfs", told, blocks, 2.0);
    let told = series(&cluster.kubectl(&cadvisor_path), "container_fs_usage_bytes", &of_main);
    agrees("cadvisor, filesystem", told, blocks, 2.0);

    // The pod's network, which is quiet by now: bytes, packets and the other way.
    let table = cluster.kubectl("exec done -- cat /proc/net/dev");
    let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:")).expect("eth0");
    let numbers: Vec<f64> = line.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    assert!(numbers[0] > f64::from(24 << 20), "{table}");
    let network = |text: &str| of_pod(text)["network"].clone();
    let told = cluster.wait_for(&summary_path, |text| network(text)["rxBytes"].as_f64() >= Some(numbers[0] * 0.99));
    let told = network(&told);
    assert_eq!(told["name"], "eth0");
    agrees("summary, received", told["rxBytes"].as_f64().expect("bytes"), numbers[0], 1.0);
    agrees("summary, sent", told["txBytes"].as_f64().expect("bytes"), numbers[8], 2.0);
    let cadvisor = cluster.kubectl(&cadvisor_path);
    let of_network = ["container=\"\"", "pod=\"done\"", "namespace=\"default\"", "interface=\"eth0\""];
    for (name, at) in [("receive_bytes", 0), ("receive_packets", 1), ("transmit_bytes", 8), ("transmit_packets", 9)] {
        let told = series(&cadvisor, &format!("container_network_{name}_total"), &of_network);
        agrees(name, told, numbers[at], 2.0);
    }
}
