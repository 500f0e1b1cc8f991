//! RuntimeClasses: Debian's runc by its handler, one that no node has, overhead and where their pods go.

use serde_json::json;

use super::{on_node, pod, pod_field, run, until_event};
use crate::e2e::{mentions, up_with_busybox};

const CLASSES: &str = r#"
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: runc}
handler: runc
overhead: {podFixed: {cpu: 30m, memory: 24Mi}}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: nobodys}
handler: nobodys
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: special}
handler: runc
scheduling:
  nodeSelector: {machine: special}
  tolerations: [{key: special, operator: Exists, effect: NoSchedule}]
"#;

#[test]
fn runtime_classes_choose_the_runtime() {
    let cluster = up_with_busybox();
    let c = &cluster;
    cluster.apply(CLASSES);
    let sleeps = "echo up; trap 'echo told; exit 0' TERM; sleep 3600 & wait";
    let of = |name: &str, class: &str| {
        let resources =
            json!({"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
        pod(name, sleeps, json!({"resources": resources}), json!({"runtimeClassName": class}))
    };

    // runc has its own record of the container; exec, logs and the end work as with any other.
    run(c, "classic", &of("classic", "runc"));
    let id = pod_field(c, "classic", ".status.containerStatuses[0].containerID");
    let id = id.strip_prefix("keelson://").expect("an id of our runtime").to_owned();
    let states = || {
        let found = std::process::Command::new("find")
            .args([on_node(c, "/run/keelson").as_os_str(), "-name".as_ref(), "state.json".as_ref()])
            .output()
            .expect("find");
        let paths = String::from_utf8_lossy(&found.stdout).into_owned();
        paths.lines().filter(|path| path.contains(&id)).map(str::to_owned).collect::<Vec<_>>()
    };
    let state = states();
    let [state] = state.as_slice() else { panic!("one state of {id}: {state:?}") };
    let state = std::fs::read_to_string(state).expect("runc's state");
    assert!(state.contains("init_process_pid"), "runc keeps no such state: {state}");
    assert_eq!(cluster.kubectl("exec classic -- sh -c 'echo'").trim(), "");
    assert_eq!(cluster.kubectl("logs classic"), "up\n");
    // Overhead: told by admission, counted by the scheduler, and part of the pod's own control group.
    let overhead =
        pod_field(c, "classic", ".spec.overhead.cpu") + "/" + &pod_field(c, "classic", ".spec.overhead.memory");
    assert_eq!(overhead, "30m/24Mi");
    let described = cluster.kubectl(&format!("describe node {}", cluster.profile()));
    let row = described.lines().find(|line| line.contains(" classic ")).unwrap_or_default();
    assert!(row.contains("130m") && row.contains("56Mi"), "{described}");
    let uid = pod_field(c, "classic", ".metadata.uid");
    let group = format!("keelson/{0}/{0}/kubepods/burstable/pod{uid}", cluster.profile());
    let read = |controller: &str, v1: &str, v2: &str| {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{controller}/{group}/{v1}"))
            .or_else(|_| std::fs::read_to_string(format!("/sys/fs/cgroup/{group}/{v2}")))
            .expect("the pod's group")
    };
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max").trim(), ((64 + 24) << 20).to_string());
    let quota = read("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(quota.split_whitespace().next(), Some("23000"), "200m and 30m");
    mentions(
        c,
        "kubectl run liar --image x --overrides '{\"spec\":{\"runtimeClassName\":\"runc\",\"overhead\":{\"cpu\":\"1\"}}}'",
        &["pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead", "[exit 1]"],
    );

    // A class that there is not is refused at once, a handler that the node has not by its kubelet.
    mentions(
        c,
        "kubectl run lost --image x --overrides '{\"spec\":{\"runtimeClassName\":\"missing\"}}'",
        &["pods \"lost\" is forbidden: pod rejected: RuntimeClass \"missing\" not found", "[exit 1]"],
    );
    cluster.apply(&of("stray", "nobodys"));
    let why = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for \
               \"nobodys\" is configured";
    until_event(c, "stray", &["Warning", "FailedCreatePodSandBox", why]);
    assert_eq!(pod_field(c, "stray", ".status.containerStatuses[0].state.waiting.reason"), "ContainerCreating");
    cluster.kubectl("delete pod stray --timeout=60s");

    // Where its pods go.
    cluster.apply(&of("choosy", "special"));
    assert_eq!(pod_field(c, "choosy", ".spec.nodeSelector"), r#"{"machine":"special"}"#);
    until_event(c, "choosy", &["FailedScheduling", "1 node(s) didn't match Pod's node affinity/selector"]);
    cluster.kubectl(&format!("taint node {} special=yes:NoSchedule", cluster.profile()));
    cluster.kubectl(&format!("label node {} machine=special", cluster.profile()));
    cluster.kubectl("wait --for=condition=Ready pod/choosy --timeout=60s");

    cluster.kubectl("delete pod classic choosy --timeout=60s");
    assert!(states().is_empty(), "runc forgot it");
}
