//! Nodes that run short of memory and of disk, and pods that use more local storage than they may. Thresholds are set so that
//! little is enough: memory by what the node uses already, disk by a small file system for the kubelet's directory.

use std::path::PathBuf;

use keelson_testbed::cluster::{Cluster, TIMEOUT, wait};
use serde_json::{Value, json};

use super::{pod, pod_field, reconfigure, run, until_event, up_configurable};

const SLEEPS: &str = "trap 'exit 0' TERM; sleep 3600 & wait";
const MIB: u64 = 1 << 20;

fn configuration(more: Value) -> String {
    let mut all = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "evictionPressureTransitionPeriod": "8s", "nodeStatusUpdateFrequency": "1s",
    });
    super::extend(&mut all, more);
    all.to_string()
}

/// Waits until the pod is evicted; gives the message.
fn until_evicted(cluster: &Cluster, name: &str) -> String {
    let path = "{.status.phase}/{.status.reason}:{.status.message}";
    let told =
        cluster.wait_for(&format!("get pod {name} -o jsonpath={path}"), |told| told.starts_with("Failed/Evicted:"));
    told.split_once(':').expect("a colon").1.to_owned()
}

/// Waits until the node's condition and its taint say so.
fn until_pressure(cluster: &Cluster, condition: &str, taint: &str, is: bool) {
    let path = format!("{{.status.conditions[?(@.type=='{condition}')].status}}/{{.spec.taints[*].key}}");
    cluster.wait_for(&format!("get node {} -o jsonpath={path}", cluster.profile()), |told| {
        told.starts_with(if is { "True/" } else { "False/" }) && told.contains(taint) == is
    });
}

fn disrupted(cluster: &Cluster, name: &str) -> String {
    pod_field(cluster, name, ".status.conditions[?(@.type=='DisruptionTarget')].reason")
}

/// A Deployment of one replica that hogs as long as `/mnt/shared/hog` is there, and then only sleeps.
fn hog(fill: &str, volume: Value) -> String {
    let script = format!("[ -e /shared/hog ] && {fill}; {SLEEPS}");
    let mounts =
        json!({"volumeMounts": [{"name": "work", "mountPath": "/work"}, {"name": "shared", "mountPath": "/shared"}]});
    let volumes = json!({"volumes": [{"name": "work", "emptyDir": volume}, {"name": "shared", "hostPath": {"path": "/mnt/shared"}}]});
    let template: Value = serde_json::from_str(&pod("hog", &script, mounts, volumes)).expect("JSON");
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hog"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "hog"}},
        "template": {"metadata": {"labels": {"app": "hog"}}, "spec": template["spec"]}}})
    .to_string()
}

/// Waits until the Deployment's first pod is evicted; gives its name and the message. From then on there is nothing to hog.
fn until_hog_evicted(cluster: &Cluster) -> (String, String) {
    let name = cluster.wait_for("get pods -l app=hog -o jsonpath={.items[0].metadata.name}", |name| !name.is_empty());
    let message = until_evicted(cluster, &name);
    let _ = std::fs::remove_file(cluster.path("shared/hog"));
    (name, message)
}

/// A memory file of the node's own control group, by v1's name or by v2's.
fn node_file(cluster: &Cluster, v1: &str, v2: &str) -> PathBuf {
    let group = format!("keelson/{0}/{0}", cluster.profile());
    let v1 = PathBuf::from(format!("/sys/fs/cgroup/memory/{group}/{v1}"));
    if v1.exists() { v1 } else { format!("/sys/fs/cgroup/{group}/{v2}").into() }
}

/// Lets the node's processes, pods and all, have so many bytes.
fn limit_node_memory(cluster: &Cluster, bytes: u64) {
    std::fs::write(node_file(cluster, "memory.limit_in_bytes", "memory.max"), bytes.to_string()).expect("a limit");
}

/// The node's working set as the kernel counts it, bytes.
fn node_memory(cluster: &Cluster) -> u64 {
    let read = |v1: &str, v2: &str| std::fs::read_to_string(node_file(cluster, v1, v2)).expect("the node's group");
    let used: u64 = read("memory.usage_in_bytes", "memory.current").trim().parse().expect("a number");
    let stat = read("memory.stat", "memory.stat");
    let of = |key: &str| stat.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
    used - of("total_inactive_file ").or(of("inactive_file ")).expect("inactive_file")
}

#[test]
fn memory_pressure_evicts_and_passes() {
    let cluster = up_configurable();
    let c = &cluster;
    // A small node: pods have 500 MiB until it counts as short, and 300 more until it is.
    let capacity = (node_memory(c) + 800 * MIB) / 4096 * 4096;
    limit_node_memory(c, capacity);
    let hard = configuration(json!({"evictionHard": {"memory.available": "300Mi"}}));
    reconfigure(c, &hard, "\"memory.available\":\"300Mi\"");
    let told = format!("get node {} -o jsonpath={{.status.capacity.memory}}", cluster.profile());
    cluster.wait_for(&told, |told| told == format!("{}Ki", capacity / 1024));
    std::fs::write(c.path("shared/hog"), "").expect("a file");
    let fill = |mib: u32| format!("head -c {} /dev/zero > /work/file", u64::from(mib) * MIB);
    let mounted = |more: Value| {
        let mut container = json!({"volumeMounts": [{"name": "work", "mountPath": "/work"}]});
        super::extend(&mut container, more);
        container
    };
    let volume = json!({"volumes": [{"name": "work", "emptyDir": {"medium": "Memory"}}]});
    // Uses less than it asked for, so others go first, whatever they use.
    let resources = json!({"resources": {"requests": {"memory": "120Mi"}, "limits": {"memory": "160Mi"}}});
    run(c, "modest", &pod("modest", &format!("{}; {SLEEPS}", fill(80)), mounted(resources), volume));
    until_pressure(c, "MemoryPressure", "memory-pressure", false);
    cluster.apply(&hog(&fill(480), json!({"medium": "Memory"})));
    let (name, message) = until_hog_evicted(c);
    let start = "The node was low on resource: memory. Threshold quantity: 300Mi, available: ";
    assert!(
        message.starts_with(start)
            && message.contains("Container main was using ")
            && message.ends_with(", request is 0, has larger consumption of memory. "),
        "{message}"
    );
    assert_eq!(disrupted(c, &name), "TerminationByKubelet");
    until_event(c, &name, &["Warning", "Evicted", "The node was low on resource: memory."]);
    until_pressure(c, "MemoryPressure", "memory-pressure", true);
    let node = cluster.profile();
    let events = cluster.kubectl(&format!("get events --field-selector involvedObject.name={node} --no-headers"));
    for words in ["EvictionThresholdMet", "Attempting to reclaim memory", "NodeHasInsufficientMemory"] {
        assert!(events.contains(words), "{words} is not in\n{events}");
    }
    // What is evicted is replaced, and the replacement waits; so does what a node's name brings past the scheduler.
    let late = json!({"nodeName": node});
    cluster.apply(&pod("late", SLEEPS, json!({}), late));
    assert_eq!(until_evicted(c, "late"), "Pod was rejected: The node had condition: [MemoryPressure]. ");
    cluster.wait_for("get events --no-headers", |events| {
        let mut lines = events.lines();
        lines.any(|line| line.contains("FailedScheduling") && line.contains("untolerated taint"))
    });
    // Over, with time: it runs, and the modest one never noticed.
    until_pressure(c, "MemoryPressure", "memory-pressure", false);
    cluster.kubectl("rollout status deployment/hog --timeout=60s");
    until_event(c, node, &["NodeHasSufficientMemory"]);
    assert_eq!(pod_field(c, "modest", ".status.phase"), "Running");
    assert_eq!(pod_field(c, "modest", ".status.containerStatuses[0].restartCount"), "0");
}

/// Puts a small file system under the kubelet's directory, in the node's own mount namespace: gone with the node.
fn small_disk(cluster: &Cluster, mib: u32) {
    let init = cluster.init_pid(cluster.profile()).to_string();
    let size = format!("size={mib}m,nr_inodes=8192,mode=755");
    let mut enter = std::process::Command::new("nsenter");
    let mounted =
        enter.args(["-t", &init, "-m", "mount", "-t", "tmpfs", "-o", &size, "none", "/var/lib/kubelet"]).status();
    assert!(mounted.expect("nsenter").success());
}

#[test]
fn disk_pressure_evicts_and_passes() {
    let cluster = up_configurable();
    let c = &cluster;
    small_disk(c, 96);
    let hard =
        json!({"evictionHard": {"nodefs.available": "50%"}, "evictionMinimumReclaim": {"nodefs.available": "1Mi"}});
    reconfigure(c, &configuration(hard), "\"nodefs.available\":\"50%\"");
    std::fs::write(c.path("shared/hog"), "").expect("a file");
    let fill = |mib: u64| format!("head -c {} /dev/zero > /work/file", mib * MIB);
    let small = |name: &str, script: &str, container: Value, volume: Value| {
        let mut own = json!({"volumeMounts": [{"name": "work", "mountPath": "/work"}]});
        super::extend(&mut own, container);
        pod(name, script, own, json!({"volumes": [{"name": "work", "emptyDir": volume}]}))
    };
    // Over its own limits, each of the three.
    let limit = || json!({"resources": {"limits": {"ephemeral-storage": "6Mi"}}});
    cluster.apply(&small("fat-volume", &format!("{}; {SLEEPS}", fill(8)), json!({}), json!({"sizeLimit": "4Mi"})));
    assert_eq!(until_evicted(c, "fat-volume"), "Usage of EmptyDir volume \"work\" exceeds the limit \"4Mi\". ");
    cluster.apply(&small("fat-pod", &format!("{}; {SLEEPS}", fill(8)), limit(), json!({})));
    let total = "Pod ephemeral local storage usage exceeds the total limit of containers 6Mi. ";
    assert_eq!(until_evicted(c, "fat-pod"), total);
    let talks = format!("yes 'a line of a log' | head -c {}; {SLEEPS}", 8 * MIB);
    let mut two: Value = serde_json::from_str(&small("fat-log", &talks, limit(), json!({}))).expect("JSON");
    let other = json!({"name": "other", "image": crate::e2e::BUSYBOX, "command": ["sh", "-c", SLEEPS]});
    two["spec"]["containers"].as_array_mut().expect("containers").push(other);
    cluster.apply(&two.to_string());
    let own = "Container main exceeded its local ephemeral storage limit \"6Mi\". ";
    assert_eq!(until_evicted(c, "fat-log"), own);
    until_event(c, "fat-log", &["Warning", "Evicted", own.trim_end()]);
    for name in ["fat-volume", "fat-pod", "fat-log"] {
        assert_eq!(disrupted(c, name), "", "{name}: its own fault");
    }
    until_pressure(c, "DiskPressure", "disk-pressure", false);

    // The one that uses most over what it asked for goes; not the one that asked for it.
    let asked = json!({"resources": {"requests": {"ephemeral-storage": "30Mi"}}});
    run(c, "modest", &small("modest", &format!("{}; {SLEEPS}", fill(16)), asked, json!({})));
    until_pressure(c, "DiskPressure", "disk-pressure", false);
    cluster.apply(&hog(&fill(60), json!({})));
    let (name, message) = until_hog_evicted(c);
    let start = "The node was low on resource: ephemeral-storage. Threshold quantity: 48Mi, available: ";
    let end = ", request is 0, has larger consumption of ephemeral-storage. ";
    assert!(message.starts_with(start) && message.ends_with(end), "{message}");
    assert_eq!(disrupted(c, &name), "TerminationByKubelet");
    until_pressure(c, "DiskPressure", "disk-pressure", true);
    let node = cluster.profile();
    until_event(c, node, &["EvictionThresholdMet", "Attempting to reclaim ephemeral-storage"]);
    until_event(c, node, &["NodeHasDiskPressure"]);
    // Nobody is let in, also not who asks for something.
    let cpu = json!({"resources": {"requests": {"cpu": "10m"}}});
    cluster.apply(&pod("late", SLEEPS, cpu, json!({"nodeName": node})));
    assert_eq!(until_evicted(c, "late"), "Pod was rejected: The node had condition: [DiskPressure]. ");
    until_pressure(c, "DiskPressure", "disk-pressure", false);
    cluster.kubectl("rollout status deployment/hog --timeout=60s");
    until_event(c, node, &["NodeHasNoDiskPressure"]);
    assert_eq!(pod_field(c, "modest", ".status.phase"), "Running");
    // What the evicted pods used is given back.
    let left = wait("their volumes to go", TIMEOUT, || {
        let pods = std::fs::read_dir(super::on_node(c, "/var/lib/kubelet/pods")).expect("the kubelet's directory");
        let file = "volumes/kubernetes.io~empty-dir/work/file";
        (pods.flatten().filter(|pod| pod.path().join(file).exists()).count() == 1).then_some(())
    });
    left.expect("the modest one's alone");
}
