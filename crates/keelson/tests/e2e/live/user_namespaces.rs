//! Pods with user namespaces (`hostUsers: false`): root in there is nobody out here, and volumes are usable all the same.

use std::os::unix::fs::MetadataExt as _;

use keelson_testbed::cluster::Cluster;
use serde_json::json;

use super::{on_node, pod, pod_field, run};
use crate::e2e::{mentions, up_with_busybox};

const SLEEPS: &str = "trap 'exit 0' TERM; sleep 3600 & wait";

/// IDs of the container's first process on the machine: real uid and gid.
fn ids_on_machine(cluster: &Cluster, name: &str) -> (u32, u32) {
    let id = pod_field(cluster, name, ".status.containerStatuses[0].containerID");
    let id = id.split_once("://").expect("an id").1.to_owned();
    let of_container =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|g| g.contains(&id));
    let all = cluster.processes(cluster.profile(), "sh -c");
    let pid = all.into_iter().find(of_container).expect("its process");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a field");
        line.split_whitespace().next().and_then(|id| id.parse().ok()).expect("an id")
    };
    (field("Uid:"), field("Gid:"))
}

/// The first of the pod's IDs on the machine, as the pod itself sees them.
fn range(cluster: &Cluster, name: &str) -> u32 {
    for (process, file) in [("1", "gid_map"), ("self", "gid_map"), ("1", "uid_map"), ("self", "uid_map")] {
        let map = cluster.kubectl(&format!("exec {name} -- cat /proc/{process}/{file}"));
        let numbers: Vec<u32> = map.split_whitespace().map(|number| number.parse().expect("a number")).collect();
        let [0, first, 65536] = numbers[..] else { panic!("{process}/{file} of {name}: {map}") };
        assert!(first >= 65536 && first % 65536 == 0, "{map}");
        if (process, file) == ("self", "uid_map") {
            return first;
        }
    }
    unreachable!("the last one returns")
}

#[test]
fn pods_have_users_of_their_own() {
    let cluster = up_with_busybox();
    let c = &cluster;
    run(c, "plain", &pod("plain", SLEEPS, json!({}), json!({"hostUsers": false})));
    let first = range(c, "plain");
    assert_eq!(ids_on_machine(c, "plain"), (first, first), "root in there");
    assert_eq!(cluster.kubectl("exec plain -- id -u"), "0\n");
    // Root of its own namespaces only.
    let set = |path: &str| format!("exec plain -- hostname {path}");
    cluster.kubectl_fails("exec plain -- mount -t tmpfs none /mnt");
    cluster.kubectl_fails(&set("other"));
    assert_eq!(
        cluster.kubectl("exec plain -- stat -c %u:%g /bin/busybox /etc/hosts /etc/resolv.conf"),
        "0:0\n".repeat(3)
    );

    // With volumes: what the kubelet wrote is root's, what the pod writes is whose it says, on the node too.
    cluster.kubectl("create configmap words --from-literal=word=hello");
    cluster.kubectl("create secret generic keys --from-literal=key=s3cret");
    let mounts = json!([
        {"name": "words", "mountPath": "/words"}, {"name": "keys", "mountPath": "/keys"},
        {"name": "work", "mountPath": "/work"}, {"name": "mem", "mountPath": "/mem"}, {"name": "part", "mountPath": "/part", "subPath": "a/b"},
    ]);
    let volumes = json!([
        {"name": "words", "configMap": {"name": "words"}}, {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "work", "emptyDir": {}}, {"name": "mem", "emptyDir": {"medium": "Memory"}}, {"name": "part", "emptyDir": {}},
    ]);
    let script = format!(
        "echo mine > /work/file; echo mine > /mem/file; echo mine > /part/file; chown 1000:2000 /part/file; {SLEEPS}"
    );
    let spec = json!({"hostUsers": false, "volumes": volumes});
    run(c, "rich", &pod("rich", &script, json!({"volumeMounts": mounts}), spec.clone()));
    let second = range(c, "rich");
    assert_ne!(first, second, "each its own");
    cluster.wait_for("exec rich -- cat /part/file", |text| text == "mine\n");
    assert_eq!(cluster.kubectl("exec rich -- cat /words/word /keys/key"), "hellos3cret");
    let owners =
        cluster.kubectl("exec rich -- stat -L -c %u:%g:%a /words/word /keys/key /work/file /mem/file /part/file");
    assert_eq!(owners, "0:0:644\n0:0:400\n0:0:644\n0:0:644\n1000:2000:644\n");
    let uid = pod_field(c, "rich", ".metadata.uid");
    let node_file = |path: &str| {
        let path = on_node(c, &format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/{path}"));
        let found = std::fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (found.uid(), found.gid())
    };
    assert_eq!(node_file("work/file"), (0, 0), "mounts are ID-mapped");
    assert_eq!(node_file("part/a/b/file"), (1000, 2000));
    // Changes of a configMap arrive, and files are copied both ways.
    cluster.kubectl("patch configmap words -p {\"data\":{\"word\":\"bye\"}}");
    cluster.wait_for("exec rich -- cat /words/word", |word| word == "bye");
    let (local, back) = (c.path("up"), c.path("down"));
    std::fs::write(&local, "copied\n").expect("a file");
    cluster.kubectl(&format!("cp {} rich:/work/copy", local.display()));
    cluster.kubectl(&format!("cp rich:/work/copy {}", back.display()));
    assert_eq!(std::fs::read_to_string(&back).expect("a copy"), "copied\n");

    // Another user, and a group for its volumes.
    let context = json!({"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000});
    let mut shared = spec;
    super::extend(&mut shared, json!({"securityContext": context}));
    run(c, "user", &pod("user", SLEEPS, json!({"volumeMounts": mounts}), shared));
    let third = range(c, "user");
    assert_eq!(ids_on_machine(c, "user"), (third + 1000, third + 3000));
    assert_eq!(cluster.kubectl("exec user -- cat /words/word"), "bye");
    assert_eq!(cluster.kubectl("exec user -- stat -c %g /work /keys/..data/key"), "2000\n2000\n");
    cluster.kubectl("exec user -- touch /work/by-user");
    assert_eq!(cluster.kubectl("exec user -- stat -c %u:%g /work/by-user"), "1000:2000\n");

    // A pod without has the node's.
    run(c, "ordinary", &pod("ordinary", SLEEPS, json!({}), json!({})));
    assert_eq!(ids_on_machine(c, "ordinary"), (0, 0));
    mentions(
        c,
        "kubectl run both --image x --overrides '{\"spec\":{\"hostUsers\":false,\"hostPID\":true}}'",
        &["spec.HostPID: Forbidden: when `pod.Spec.HostUsers` is false", "[exit 1]"],
    );
    // What nobody has any more may be given again.
    cluster.kubectl("delete pod plain rich user --timeout=60s");
    run(c, "next", &pod("next", SLEEPS, json!({}), json!({"hostUsers": false})));
    assert_eq!(range(c, "next"), [first, second, third].into_iter().min().expect("three"), "the lowest that is free");
}
