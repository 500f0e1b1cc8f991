//! `kubectl patch --subresource resize`: a running pod's CPU and memory change in place, and what keeps them from it is told.

use keelson_testbed::cluster::Cluster;
use serde_json::{Value, json};

use super::{group_file, pod, pod_field, run, until_event};
use crate::e2e::{mentions, says, up_with_busybox};

const SLEEPS: &str = "trap 'exit 0' TERM; sleep 3600 & wait";

fn resources(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

fn resize(cluster: &Cluster, name: &str, wanted: Value) {
    let patch = json!({"spec": {"containers": [{"name": "main", "resources": wanted}]}});
    says(
        cluster,
        &format!("kubectl patch pod {name} --subresource resize -p '{patch}'"),
        &format!("pod/{name} patched\n"),
    );
}

/// A limit in the control group of the pod, or of its container: CPU quota in microseconds, or memory in bytes.
fn limit(cluster: &Cluster, name: &str, of_container: bool, what: &str) -> String {
    let (v1, v2) = match what {
        "cpu" => ("cpu.cfs_quota_us", "cpu.max"),
        _ => ("memory.limit_in_bytes", "memory.max"),
    };
    let text = group_file(cluster, name, of_container, what, v1, v2);
    text.split_whitespace().next().expect("a number").to_owned()
}

fn mib(count: u64) -> String {
    (count << 20).to_string()
}

/// Waits until the pod's status says that the container has this, and no resize waits or is under way.
fn until_has(cluster: &Cluster, name: &str, cpu: &str, memory: &str) {
    let status = ".status.containerStatuses[0]";
    let path = format!(
        "{{{status}.resources.limits.cpu}}/{{{status}.resources.limits.memory}}/{{{status}.resources.requests.cpu}}/\
         {{{status}.allocatedResources.memory}}/{{.status.conditions[?(@.type=='PodResizePending')].reason}}\
         {{.status.conditions[?(@.type=='PodResizeInProgress')].status}}"
    );
    let expected = format!("{cpu}/{memory}/{cpu}/{memory}/");
    cluster.wait_for(&format!("get pod {name} -o jsonpath={path}"), |told| told == expected);
}

/// Waits for a condition of this reason; gives its message.
fn until_told(cluster: &Cluster, name: &str, condition: &str, reason: &str) -> String {
    let of = format!(".status.conditions[?(@.type=='{condition}')]");
    let path = format!("{{{of}.reason}}:{{{of}.message}}");
    let told = cluster.wait_for(&format!("get pod {name} -o jsonpath={path}"), |told| {
        told.strip_prefix(reason).is_some_and(|rest| rest.starts_with(':'))
    });
    assert_eq!(pod_field(cluster, name, &format!("{of}.status")), "True");
    told.split_once(':').expect("a colon").1.to_owned()
}

#[test]
fn pods_are_resized_in_place() {
    let cluster = up_with_busybox();
    let c = &cluster;
    run(c, "steady", &pod("steady", SLEEPS, json!({"resources": resources("100m", "64Mi")}), json!({})));
    let id = pod_field(c, "steady", ".status.containerStatuses[0].containerID");
    assert_eq!((limit(c, "steady", true, "cpu"), limit(c, "steady", true, "memory")), ("10000".into(), mib(64)));

    // Up and down again, both at once, in the same container.
    for (cpu, quota, memory, bytes) in [("250m", "25000", "96Mi", 96), ("150m", "15000", "48Mi", 48)] {
        resize(c, "steady", resources(cpu, memory));
        until_has(c, "steady", cpu, memory);
        for of_container in [true, false] {
            assert_eq!(limit(c, "steady", of_container, "cpu"), quota, "container: {of_container}");
            assert_eq!(limit(c, "steady", of_container, "memory"), mib(bytes), "container: {of_container}");
        }
        assert_eq!(pod_field(c, "steady", ".status.containerStatuses[0].containerID"), id);
        assert_eq!(pod_field(c, "steady", ".status.containerStatuses[0].restartCount"), "0");
    }
    assert_eq!(pod_field(c, "steady", ".status.observedGeneration"), pod_field(c, "steady", ".metadata.generation"));
    until_event(c, "steady", &["Normal", "ResizeStarted"]);
    until_event(c, "steady", &["Normal", "ResizeCompleted"]);

    // Only through the subresource, only what can be, and no other class of service.
    mentions(
        c,
        "kubectl patch pod steady -p '{\"spec\":{\"containers\":[{\"name\":\"main\",\"resources\":{\"limits\":{\"cpu\":\"1\"}}}]}}'",
        &["pod updates may not change fields other than", "[exit 1]"],
    );
    mentions(
        c,
        "kubectl patch pod steady --subresource resize -p \
         '{\"spec\":{\"containers\":[{\"name\":\"main\",\"resources\":{\"requests\":{\"cpu\":\"50m\"}}}]}}'",
        &["Pod QOS Class may not change as a result of resizing", "[exit 1]"],
    );

    // A container that wants to be restarted for memory is, once.
    let policy = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"},
                        {"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let container = json!({"resources": resources("100m", "64Mi"), "resizePolicy": policy});
    run(c, "restarted", &pod("restarted", SLEEPS, container, json!({})));
    resize(c, "restarted", resources("200m", "64Mi"));
    until_has(c, "restarted", "200m", "64Mi");
    assert_eq!(pod_field(c, "restarted", ".status.containerStatuses[0].restartCount"), "0");
    resize(c, "restarted", resources("200m", "80Mi"));
    cluster.wait_for("get pod restarted -o jsonpath={.status.containerStatuses[0].restartCount}", |count| count == "1");
    until_has(c, "restarted", "200m", "80Mi");
    cluster.kubectl("wait --for=condition=Ready pod/restarted --timeout=60s");
    assert_eq!((limit(c, "restarted", true, "memory"), limit(c, "restarted", true, "cpu")), (mib(80), "20000".into()));
    until_event(c, "restarted", &["Killing", "Container main resize requires restart"]);
    assert_eq!(pod_field(c, "restarted", ".status.containerStatuses[0].restartCount"), "1", "and no more");

    // Less memory than it uses: told, and the limit stays until there is room.
    let fills = format!("head -c 50331648 /dev/zero > /mem/file; echo full; {SLEEPS}");
    let full = json!({"resources": resources("50m", "96Mi"), "volumeMounts": [{"name": "mem", "mountPath": "/mem"}]});
    let volume = json!({"volumes": [{"name": "mem", "emptyDir": {"medium": "Memory"}}]});
    run(c, "full", &pod("full", &fills, full, volume));
    cluster.wait_for("logs full", |log| log == "full\n");
    resize(c, "full", resources("50m", "32Mi"));
    let why = until_told(c, "full", "PodResizeInProgress", "Error");
    assert!(why.contains(&format!("attempting to set pod memory limit ({}) below current usage (", mib(32))), "{why}");
    assert_eq!(limit(c, "full", true, "memory"), mib(96));
    cluster.kubectl("exec full -- rm /mem/file");
    until_has(c, "full", "50m", "32Mi");
    assert_eq!(limit(c, "full", true, "memory"), mib(32));
    assert_eq!(pod_field(c, "full", ".status.containerStatuses[0].restartCount"), "0");
}

#[test]
fn resizes_wait_for_room() {
    let cluster = up_with_busybox();
    let c = &cluster;
    let node = cluster.kubectl(&format!("get node {} -o jsonpath={{.status.allocatable.cpu}}", cluster.profile()));
    let node: u64 = node.parse::<u64>().map(|cores| cores * 1000).or(node.trim_end_matches('m').parse()).expect("CPU");
    let asks = |milli: u64| json!({"resources": {"requests": {"cpu": format!("{milli}m")}}});
    run(c, "small", &pod("small", SLEEPS, asks(300), json!({})));
    run(c, "other", &pod("other", SLEEPS, asks(node - 600), json!({})));
    let requested = || pod_field(c, "small", ".status.containerStatuses[0].allocatedResources.cpu");
    resize(c, "small", json!({"requests": {"cpu": format!("{}m", node + 1)}}));
    let why = until_told(c, "small", "PodResizePending", "Infeasible");
    assert_eq!(why, format!("Node didn't have enough capacity: cpu, requested: {}, capacity: {node}", node + 1));
    until_event(c, "small", &["Warning", "ResizeInfeasible"]);
    assert_eq!(requested(), "300m");

    resize(c, "small", json!({"requests": {"cpu": "700m"}}));
    let why = until_told(c, "small", "PodResizePending", "Deferred");
    let used = node - 600;
    assert_eq!(why, format!("Node didn't have enough resource: cpu, requested: 700, used: {used}, capacity: {node}"));
    until_event(c, "small", &["Warning", "ResizeDeferred"]);
    assert_eq!(requested(), "300m");
    // The scheduler keeps what the pod has and what it waits for.
    cluster.apply(&pod("late", SLEEPS, asks(200), json!({})));
    until_event(c, "late", &["FailedScheduling", "1 Insufficient cpu"]);

    cluster.kubectl("delete pod other --timeout=60s");
    cluster.wait_for("get pod small -o jsonpath={.status.containerStatuses[0].allocatedResources.cpu}", |cpu| {
        cpu == "700m"
    });
    cluster.wait_for("get pod small -o jsonpath={.status.conditions[*].type}", |types| !types.contains("PodResize"));
    assert_eq!(pod_field(c, "small", ".status.containerStatuses[0].restartCount"), "0");
    cluster.kubectl("wait --for=condition=Ready pod/late --timeout=60s");
}
