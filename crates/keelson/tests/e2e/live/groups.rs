//! A node's control groups hold its pods: limits as the kernel has them, what happens at each limit, devices, and what the node
//! tells of it all. Whatever hierarchy the machine has: `unified.rs` runs this on cgroup v2 alone.

use keelson_testbed::cluster::Cluster;
use serde_json::{Value, json};

use super::{group_file, pod, pod_field, run};
use crate::e2e::{load_busybox, mentions};

const SLEEPS: &str = "trap 'exit 0' TERM; sleep 3600 & wait";
/// In these tests' node, of a pod's processes.
const PIDS: u32 = 60;

fn is_unified() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[test]
fn pods_are_held_to_their_limits() {
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "podPidsLimit": PIDS, "cgroupDriver": "cgroupfs",
    });
    let cluster = Cluster::up_with_files(
        env!("CARGO_BIN_EXE_keelson"),
        &[("kubelet.yaml", &kubelet.to_string())],
        &["--extra-config=kubelet.config=/mnt/shared/kubelet.yaml"],
    );
    load_busybox(&cluster);
    let resources = json!({"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}});
    run(&cluster, "limited", &pod("limited", SLEEPS, json!({"resources": resources}), json!({})));
    files(&cluster);
    inside(&cluster);
    counters(&cluster);
    devices(&cluster);
    too_much_memory(&cluster);
    too_many_processes(&cluster);
}

/// Limits of the pod and of its container are in their groups' files.
fn files(c: &Cluster) {
    let read = |of_container, controller, v1, v2| group_file(c, "limited", of_container, controller, v1, v2);
    for of_container in [true, false] {
        let quota = if is_unified() { "50000 100000" } else { "50000" };
        assert_eq!(read(of_container, "cpu", "cpu.cfs_quota_us", "cpu.max"), quota, "container: {of_container}");
        // 250m are 256 shares, of which the kubelet makes another weight than runtimes do, upstream as well.
        let share = match (is_unified(), of_container) {
            (false, _) => "256",
            (true, true) => "35",
            (true, false) => "10",
        };
        assert_eq!(read(of_container, "cpu", "cpu.shares", "cpu.weight"), share, "container: {of_container}");
        let bytes = read(of_container, "memory", "memory.limit_in_bytes", "memory.max");
        assert_eq!(bytes, (64 << 20).to_string(), "container: {of_container}");
    }
    assert_eq!(read(false, "pids", "pids.max", "pids.max"), PIDS.to_string());
    if is_unified() {
        assert_eq!(read(true, "memory", "", "memory.oom.group"), "1");
    }
}

/// The container sees its own groups, to read.
fn inside(c: &Cluster) {
    let file = if is_unified() { "memory.max" } else { "memory/memory.limit_in_bytes" };
    assert_eq!(c.kubectl(&format!("exec limited -- cat /sys/fs/cgroup/{file}")), format!("{}\n", 64 << 20));
    if is_unified() {
        assert_eq!(c.kubectl("exec limited -- cat /proc/self/cgroup"), "0::/\n");
    }
    mentions(c, &format!("kubectl exec limited -- sh -c 'echo 1 > /sys/fs/cgroup/{file}'"), &["Read-only file system"]);
}

/// What the kubelet tells of the pod is what its groups say.
fn counters(c: &Cluster) {
    let node = format!("/api/v1/nodes/{}/proxy", c.profile());
    let summary: Value =
        serde_json::from_str(&c.kubectl(&format!("get --raw {node}/stats/summary"))).expect("a summary");
    let pods = summary["pods"].as_array().expect("pods");
    let found = pods.iter().find(|found| found["podRef"]["name"] == "limited").expect("the pod");
    let container = &found["containers"][0];
    let told = container["memory"]["usageBytes"].as_u64().expect("usage");
    let kernel = group_file(c, "limited", true, "memory", "memory.usage_in_bytes", "memory.current");
    let kernel: u64 = kernel.parse().expect("a number");
    assert!(told > 0 && told.abs_diff(kernel) < 4 << 20, "{told} bytes told, {kernel} used");
    assert!(container["cpu"]["usageCoreNanoSeconds"].as_u64().is_some_and(|usage| usage > 0), "{container}");
    assert!(found["process_stats"]["process_count"].as_u64().is_some_and(|count| count >= 2), "{found}");
    let told_of_stalls =
        container["memory"]["psi"]["some"]["total"].is_u64() && found["cpu"]["psi"]["full"].is_object();
    let counts_stalls = is_unified() && std::path::Path::new("/proc/pressure/memory").exists();
    assert_eq!(told_of_stalls, counts_stalls, "{found}");
    let metrics = c.kubectl(&format!("get --raw {node}/metrics/cadvisor"));
    let of = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name) && line.contains("container=\"main\""));
        line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok())
    };
    assert_eq!(of("container_spec_memory_limit_bytes{"), Some(f64::from(64 << 20)));
    assert_eq!((of("container_spec_cpu_quota{"), of("container_spec_cpu_period{")), (Some(50_000.0), Some(100_000.0)));
    assert_eq!(of("container_pressure_memory_waiting_seconds_total{").is_some(), counts_stalls);
}

/// Nodes of devices can be made, and only a privileged container can open any.
fn devices(c: &Cluster) {
    let open = |name: &str| {
        c.shell(&format!("kubectl exec {name} -- sh -c 'mknod /tmp/loop b 7 0 && head -c 1 /tmp/loop > /dev/null'"))
    };
    let told = open("limited");
    assert!(told.contains("/tmp/loop: Operation not permitted"), "{told}");
    let zeros = "head -c 3 /dev/zero > /dev/null && echo fine";
    assert_eq!(c.kubectl_args(&["exec", "limited", "--", "sh", "-c", zeros]), "fine\n");
    run(c, "free", &pod("free", SLEEPS, json!({"securityContext": {"privileged": true}}), json!({})));
    let told = open("free");
    assert!(!told.contains("not permitted"), "{told}");
}

/// The container is killed; on v2 all its processes are, where v1 kills one.
fn too_much_memory(c: &Cluster) {
    let limits = json!({"resources": {"limits": {"memory": "32Mi"}}});
    let script = "sleep 3600 & tail /dev/zero; echo survived; exit 137";
    c.apply(&pod("hungry", script, limits, json!({"restartPolicy": "Never"})));
    let terminated = "{.status.containerStatuses[0].state.terminated.reason}/{.status.containerStatuses[0].state.terminated.exitCode}";
    c.wait_for(&format!("get pod hungry -o jsonpath={terminated}"), |told| told == "OOMKilled/137");
    assert_eq!(c.kubectl("logs hungry").contains("survived"), !is_unified());
    assert_eq!(pod_field(c, "hungry", ".status.phase"), "Failed");
}

fn too_many_processes(c: &Cluster) {
    let forks = format!("i=0; while [ $i -lt {} ]; do sleep 2 & i=$((i+1)); done; wait", PIDS + 20);
    mentions(c, &format!("kubectl exec limited -- sh -c '{forks}'"), &["can't fork"]);
}
