//! Nodes that are hurt: agents killed at every step of a pod's life, more pods than fit comfortably, pods that mean harm.
//! Nothing is left behind, and nothing runs twice.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keelson_testbed::cluster::{Cluster, TIMEOUT, wait};

use super::{BUSYBOX, load_busybox, run_busybox, up_with_busybox};

/// What pods have on a node, by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Belongings {
    shims: usize,
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    addresses: BTreeSet<String>,
    links: usize,
    directories: BTreeSet<PathBuf>,
}

impl Belongings {
    fn of(cluster: &Cluster) -> Self {
        let node = cluster.profile();
        let init = cluster.init_pid(node);
        let root = PathBuf::from(format!("/proc/{init}/root"));
        let mountinfo = std::fs::read_to_string(format!("/proc/{init}/mountinfo")).expect("the node's mounts");
        let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(String::from);
        let entries = |dir: &str| {
            let entries = std::fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let mut cgroups = BTreeSet::new();
        for hierarchy in entries("sys/fs/cgroup") {
            groups(&hierarchy.join("kubepods"), &mut cgroups);
        }
        let mut addresses = BTreeSet::new();
        for network in entries("var/lib/cni").into_iter().chain(entries("var/lib/cni/networks")) {
            let files = std::fs::read_dir(network).into_iter().flatten().flatten();
            let names = files.filter_map(|file| file.file_name().into_string().ok());
            addresses.extend(names.filter(|name| name.starts_with("10.")));
        }
        let links = std::process::Command::new("nsenter")
            .args(["--net", "--target", &init.to_string(), "ip", "-o", "link"])
            .output()
            .expect("nsenter");
        let pods = [
            "var/lib/kubelet/pods",
            "var/log/pods",
            "var/lib/keelson/runtime/sandboxes",
            "var/lib/keelson/runtime/containers",
        ];
        Self {
            shims: cluster.processes(node, "shim serve").len(),
            mounts: points.filter(|point| !point.starts_with("/proc")).collect(),
            cgroups,
            addresses,
            links: String::from_utf8_lossy(&links.stdout).lines().count(),
            directories: pods.iter().flat_map(|dir| entries(dir)).collect(),
        }
    }

    /// Waits until the node has what it had.
    fn back(&self, cluster: &Cluster) {
        let mut last = Self::default();
        let back = wait("everything to be gone", TIMEOUT, || {
            last = Self::of(cluster);
            (last == *self).then_some(())
        });
        assert!(back.is_ok(), "left over: {last:#?}\nbefore: {self:#?}");
    }
}

/// Control groups of pods below `dir`.
fn groups(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()) {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pod")) {
            found.insert(path);
        } else {
            groups(&path, found);
        }
    }
}

/// Steps of kubelet and runtime (`steps::reached`) at which the agent, which is both, kills itself; some in each life.
const LIVES: &[&[&str]] = &[
    &["kubelet-directories", "sandbox-recorded", "container-recorded", "stopping-recorded", "kubelet-removing"],
    &["kubelet-cgroup", "sandbox-pinned", "container-mounted", "exit-heard", "stopping-dismantled", "kubelet-removed"],
    &["kubelet-mounted", "sandbox-shim", "container-created", "stop-signalled", "container-unmounted"],
    &["sandbox-attached", "kubelet-created", "kubelet-killing", "container-half-removed", "kubelet-deleting"],
    &["sandbox-ready", "start-recorded", "exit-recorded", "stopping-detached", "kubelet-deleted"],
    &["kubelet-sandbox", "start-answered", "kubelet-told", "stopping-shim", "kubelet-dismantled"],
    &["sandbox-networked", "kubelet-started", "sandbox-half-removed"],
];

#[test]
fn an_agent_killed_at_every_step_leaves_nothing_and_runs_nothing_twice() {
    let variable = ("KEELSON_TEST_STEPS", "/mnt/shared/steps");
    let cluster = Cluster::up_with_variable(env!("CARGO_BIN_EXE_keelson"), variable, &[], &[]);
    load_busybox(&cluster);
    cluster.kubectl("create configmap settings --from-literal=color=red");
    run_busybox(&cluster, "warm-up");
    cluster.kubectl("delete pod warm-up --grace-period=1");
    let before = settled(&cluster);
    let shared = cluster.path("shared");
    let steps = shared.join("steps");
    std::fs::create_dir(&steps).expect("a directory");
    for (number, life) in LIVES.iter().enumerate() {
        for step in *life {
            std::fs::write(steps.join(step), "self").expect("arming a step");
        }
        let name = format!("life-{number}");
        let main = format!("echo start >> /out/{name}; while [ ! -e /out/{name}.go ]; do sleep 0.05; done; exit 7");
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 20,
                "volumes": [
                    {"name": "out", "hostPath": {"path": "/mnt/shared"}}, {"name": "memory", "emptyDir": {"medium": "Memory"}},
                    {"name": "settings", "configMap": {"name": "settings"}}],
                "containers": [
                    {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", main], "volumeMounts": [
                        {"name": "out", "mountPath": "/out"}, {"name": "memory", "mountPath": "/memory", "subPath": "part"},
                        {"name": "settings", "mountPath": "/settings"}]},
                    {"name": "side", "image": BUSYBOX, "command": ["sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done"]},
                ],
            },
        });
        cluster.apply(&pod.to_string());
        let main = format!("get pod {name} -o jsonpath={{.status.containerStatuses[?(@.name==\"main\")].state}}");
        let side = format!("get pod {name} -o jsonpath={{.status.containerStatuses[?(@.name==\"side\")].state}}");
        cluster.wait_for(&main, |state| state.contains("running"));
        cluster.wait_for(&side, |state| state.contains("running"));
        std::fs::write(shared.join(format!("{name}.go")), "").expect("a file");
        let state = cluster.wait_for(&main, |state| state.contains("terminated"));
        assert!(state.contains("\"exitCode\":7") && state.contains("\"reason\":\"Error\""), "{life:?}: {state}");
        assert!(cluster.kubectl(&side).contains("running"), "{life:?}");
        cluster.kubectl(&format!("delete pod {name} --timeout=90s"));
        let starts = std::fs::read_to_string(shared.join(&name)).expect("what the container wrote");
        assert_eq!(starts, "start\n", "{life:?}: it was started more than once");
        before.back(&cluster);
        // The last step comes when nothing of the pod is left to be seen.
        let unreached = || life.iter().filter(|step| steps.join(step).exists()).collect::<Vec<_>>();
        let reached = wait("every step to be reached", TIMEOUT, || unreached().is_empty().then_some(()));
        assert!(reached.is_ok(), "{life:?}: a pod's life has no such step: {:?}", unreached());
    }
}

/// What the node has once its first pod is gone.
fn settled(cluster: &Cluster) -> Belongings {
    wait("the first pod to be gone", TIMEOUT, || {
        let now = Belongings::of(cluster);
        (now.shims == 0 && now.addresses.is_empty() && now.directories.is_empty()).then_some(now)
    })
    .expect("a node without pods")
}

/// Resident memory of the node's agent that is its own, in MiB.
fn agent_mib(cluster: &Cluster) -> u64 {
    let agent = cluster.processes(cluster.profile(), "keelson agent");
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent[0])).expect("the agent's status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

#[test]
fn two_hundred_pods_run_on_one_node_and_leave_nothing() {
    const PODS: usize = 200;
    let config = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 250\n";
    let cluster = Cluster::up_with_files(
        env!("CARGO_BIN_EXE_keelson"),
        &[("kubelet.yaml", config)],
        &["--extra-config=kubelet.config=/mnt/shared/kubelet.yaml"],
    );
    load_busybox(&cluster);
    run_busybox(&cluster, "warm-up");
    cluster.kubectl("delete pod warm-up --grace-period=1");
    let before = settled(&cluster);
    let memory = agent_mib(&cluster);
    let deployment = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"},
        "spec": {"replicas": PODS, "selector": {"matchLabels": {"app": "many"}}, "template": {
            "metadata": {"labels": {"app": "many"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                {"name": "c", "image": BUSYBOX, "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]}]},
        }},
    });
    cluster.apply(&deployment.to_string());
    let ready = || cluster.kubectl("get deployment many -o jsonpath={.status.readyReplicas}");
    let all = wait("all pods to be ready", Duration::from_secs(300), || {
        (ready() == PODS.to_string()).then(|| std::thread::sleep(Duration::from_millis(200)))
    });
    assert!(all.is_ok(), "only {} are ready\n{}", ready(), cluster.kubectl("get events --field-selector type=Warning"));
    let full = Belongings::of(&cluster);
    assert_eq!((full.shims, full.addresses.len()), (PODS, PODS), "one shim and one address each");
    cluster.kubectl("delete deployment many --cascade=foreground --timeout=300s");
    before.back(&cluster);
    let after = agent_mib(&cluster);
    assert!(after < memory + 64, "the agent had {memory} MiB and has {after} MiB");
}

#[test]
fn hostile_pods_are_contained() {
    let cluster = up_with_busybox();
    let c = &cluster;
    // A link out of the volume, made by the pod itself, as subPath of the next container.
    for (name, target) in [("to-root", "/"), ("up", "../../../../../../../../.."), ("to-etc", "/etc")] {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                "volumes": [{"name": "data", "emptyDir": {}}],
                "initContainers": [{"name": "trap", "image": BUSYBOX,
                    "command": ["sh", "-c", format!("ln -s {target} /data/link")],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
                "containers": [{"name": "main", "image": BUSYBOX,
                    "command": ["sh", "-c", "cat /out/hostname /out/etc/hostname /out/machine-id; ls /out | grep -x proc; echo over"],
                    "volumeMounts": [{"name": "data", "mountPath": "/out", "subPath": "link"}]}],
            },
        });
        c.apply(&pod.to_string());
        let state = format!(
            "get pod {name} -o jsonpath={{.status.phase}}/{{.status.containerStatuses[0].state.waiting.reason}}"
        );
        let seen =
            c.wait_for(&state, |seen| seen.starts_with("Succeeded") || seen.contains("CreateContainerConfigError"));
        if seen.starts_with("Succeeded") {
            let log = c.kubectl(&format!("logs {name} -c main"));
            assert!(log.lines().all(|line| line == "over" || line.starts_with("cat: can't open")), "{name}: {log}");
        }
        c.kubectl(&format!("delete pod {name} --timeout=60s"));
    }
    // Names that are paths are refused before they get anywhere.
    for (field, value) in [("name", "../../x"), ("image", "../../x")] {
        let mut container = serde_json::json!({"name": "main", "image": BUSYBOX});
        container[field] = value.into();
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "paths"}, "spec": {"containers": [container]}});
        std::fs::write(c.path("pod.json"), pod.to_string()).expect("a manifest");
        let created = c.try_kubectl(&format!("create -f {}", c.path("pod.json").display()));
        if created.status.success() {
            c.wait_for("get pod paths --no-headers", |line| line.contains("InvalidImageName"));
            c.kubectl("delete pod paths --timeout=60s --grace-period=0 --force");
        } else {
            assert!(String::from_utf8_lossy(&created.stderr).contains("Invalid value"), "{created:?}");
        }
    }
    // Hooks that never end hold up neither the deletion nor the node.
    for hook in ["postStart", "preStop"] {
        let name = hook.to_lowercase();
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 3, "containers": [{
                "name": "main", "image": BUSYBOX, "command": ["sh", "-c", "echo up; exec sleep 100000"],
                "lifecycle": {hook: {"exec": {"command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]}}},
            }]},
        });
        c.apply(&pod.to_string());
        c.wait_for(&format!("logs {name}"), |log| log.contains("up"));
        let begin = std::time::Instant::now();
        c.kubectl(&format!("delete pod {name} --timeout=60s"));
        assert!(begin.elapsed() < Duration::from_secs(30), "{hook} held the pod for {:?}", begin.elapsed());
    }
    run_busybox(c, "still-well");
}
