//! Pods against the real API server and Debian's containerd.

mod support;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use kube::Api;
use kube::api::{DeleteParams, LogParams, Patch, PatchParams, PostParams};
use serde_json::json;
use support::{Cluster, IMAGE, condition, container, eventually};

/// Start to end: volumes, environment, init containers, probes, logs, and nothing left after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_lives_and_dies() {
    let cluster = Cluster::start("life").await;
    let maps = Api::<ConfigMap>::namespaced(cluster.admin(), "default");
    let map = json!({"metadata": {"name": "settings"}, "data": {"color": "red", "size": "9"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let secrets = Api::<Secret>::namespaced(cluster.admin(), "default");
    let secret = json!({"metadata": {"name": "hidden"}, "stringData": {"password": "open sesame"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    cluster
        .create(json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {
            "terminationGracePeriodSeconds": 2,
            "securityContext": {"fsGroup": 4242},
            "initContainers": [{"name": "first", "image": IMAGE, "command": ["sh", "-c", "echo made > /work/file"],
                "volumeMounts": [{"name": "work", "mountPath": "/work"}]}],
            "containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c",
                "echo color=$COLOR pass=$PASS ip=$IP $(GREETING); cat /work/file /config/color /sub/size; id; ls /var/run/secrets/kubernetes.io/serviceaccount; touch /tmp/up; while true; do sleep 0.1; done"],
                "env": [
                    {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
                    {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "password"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "GREETING", "value": "hello-from-$(COLOR)"}],
                "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
                "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1},
                "volumeMounts": [
                    {"name": "work", "mountPath": "/work"}, {"name": "config", "mountPath": "/config"},
                    {"name": "config", "mountPath": "/sub/size", "subPath": "size"}]}],
            "volumes": [{"name": "work", "emptyDir": {}}, {"name": "config", "configMap": {"name": "settings"}}]}}))
        .await;
    let pod = cluster.until_running("web").await;
    let status = pod.status.clone().unwrap();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.qos_class.as_deref(), Some("Burstable"));
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    let ip = status.pod_ip.clone().unwrap();
    assert!(ip.starts_with("10.254.0."), "{ip}");
    let first = container(&pod, "first").unwrap();
    assert_eq!(first.state.unwrap().terminated.unwrap().reason.as_deref(), Some("Completed"));
    assert!(container(&pod, "main").unwrap().container_id.unwrap().contains("://"));
    let log = cluster
        .pods()
        .logs("web", &LogParams { container: Some("main".into()), ..LogParams::default() })
        .await
        .unwrap();
    assert!(log.starts_with(&format!("color=red pass=open sesame ip={ip} hello-from-red\nmade\nred9")), "{log}");
    assert!(log.contains("4242") && log.contains("token") && log.contains("namespace"), "{log}");
    let tail = LogParams { container: Some("main".into()), tail_lines: Some(1), ..LogParams::default() };
    assert_eq!(cluster.pods().logs("web", &tail).await.unwrap(), "token\n");

    // A changed ConfigMap reaches the running pod.
    let change = json!({"data": {"color": "blue"}});
    maps.patch("settings", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    let uid = pod.metadata.uid.clone().unwrap();
    let file = cluster.path().join(format!("kubelet/pods/{uid}/volumes/kubernetes.io~configmap/config/color"));
    eventually("the volume follows", async || (std::fs::read_to_string(&file).ok()? == "blue").then_some(())).await;

    let events = cluster.events().await;
    for expected in [
        "web Created: Container created",
        "web Started: Container started",
        &format!("web Pulled: Container image \"{IMAGE}\" already present on machine and can be accessed by the pod"),
        "node-1 NodeReady: Node node-1 status is now: NodeReady",
    ] {
        assert!(events.contains(expected), "{expected} not in\n{events}");
    }
    cluster.pods().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until_gone("web").await;
    assert!(cluster.events().await.contains("web Killing: Stopping container main"));
    cluster.finish().await;
}

/// Crashes, wrong images, last words, and pods that come to an end of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_told() {
    let cluster = Cluster::start("fail").await;
    let one = |name: &str, policy: &str, script: &str| {
        json!({"metadata": {"name": name}, "spec": {"restartPolicy": policy, "containers": [
            {"name": "c", "image": IMAGE, "command": ["sh", "-c", script]}]}})
    };
    cluster.create(one("crash", "Always", "echo out; echo last words > /dev/termination-log; exit 3")).await;
    cluster.create(one("good", "Never", "echo fine")).await;
    cluster.create(one("bad", "OnFailure", "test -e /nothing || exit 0")).await;
    cluster
        .create(json!({"metadata": {"name": "noimage"}, "spec": {"containers": [
            {"name": "c", "image": "keelson.invalid/none:1", "imagePullPolicy": "Never"}]}}))
        .await;
    cluster
        .create(json!({"metadata": {"name": "noconfig"}, "spec": {"containers": [
            {"name": "c", "image": IMAGE, "envFrom": [{"configMapRef": {"name": "absent"}}]}]}}))
        .await;
    cluster
        .create(json!({"metadata": {"name": "hog"}, "spec": {"restartPolicy": "Never", "containers": [
            {"name": "c", "image": IMAGE, "command": ["sh", "-c", "a=x; while true; do a=$a$a; done"],
             "resources": {"limits": {"memory": "16Mi"}}}]}}))
        .await;
    let waits = |pod: &k8s_openapi::api::core::v1::Pod, reason: &str| {
        let waiting = container(pod, "c")?.state?.waiting?;
        (waiting.reason.as_deref() == Some(reason)).then_some(waiting.message.unwrap_or_default())
    };
    let message = cluster.until("crash", "in CrashLoopBackOff", |pod| waits(pod, "CrashLoopBackOff")).await;
    let crashed = cluster.pods().get("crash").await.unwrap();
    let uid = crashed.metadata.uid.clone().unwrap();
    assert_eq!(message, format!("back-off 10s restarting failed container=c pod=crash_default({uid})"));
    let status = container(&crashed, "c").unwrap();
    assert_eq!(status.restart_count, 1, "the first restart is at once");
    let last = status.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.message.as_deref()), (3, Some("last words\n")));
    let previous = LogParams { previous: true, ..LogParams::default() };
    assert_eq!(cluster.pods().logs("crash", &previous).await.unwrap(), "out\n");

    for name in ["good", "bad"] {
        let done = cluster
            .until(name, "Succeeded", |pod| {
                (pod.status.as_ref()?.phase.as_deref()? == "Succeeded").then(|| pod.clone())
            })
            .await;
        assert!(!condition(&done, "Ready"));
    }
    assert_eq!(cluster.pods().logs("good", &LogParams::default()).await.unwrap(), "fine\n");
    let message = cluster.until("noimage", "without image", |pod| waits(pod, "ErrImageNeverPull")).await;
    assert_eq!(message, "Container image \"keelson.invalid/none:1\" is not present with pull policy of Never");
    let message = cluster.until("noconfig", "misconfigured", |pod| waits(pod, "CreateContainerConfigError")).await;
    assert_eq!(message, "configmap \"absent\" not found");
    let killed = cluster.until("hog", "OOMKilled", |pod| container(pod, "c")?.state?.terminated).await;
    assert_eq!((killed.reason.as_deref(), killed.exit_code), (Some("OOMKilled"), 137));
    cluster.finish().await;
}

/// `kill -9` of the kubelet: containers go on, nothing is started twice, and what happened meanwhile is made up for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_kubelet_takes_up_where_it_was() {
    let mut cluster = Cluster::start("kill").await;
    for name in ["stays", "goes"] {
        cluster
            .create(json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                {"name": "c", "image": IMAGE, "command": ["sleep", "1000"]}]}}))
            .await;
    }
    let before = cluster.until_running("stays").await;
    let gone = cluster.until_running("goes").await;
    cluster.kill_kubelet().await;
    let id = container(&before, "c").unwrap().container_id;
    // While nobody looks: one pod vanishes from the API, the other's container is as it was.
    cluster.pods().delete("goes", &DeleteParams::default().grace_period(0)).await.unwrap();
    cluster.start_kubelet();
    let uid = gone.metadata.uid.unwrap();
    let dir = cluster.path().join("kubelet/pods").join(uid);
    eventually("the orphan is removed", async || (!dir.exists()).then_some(())).await;
    cluster
        .create(json!({"metadata": {"name": "new"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "image": IMAGE, "command": ["sleep", "1000"]}]}}))
        .await;
    cluster.until_running("new").await;
    let after = cluster.pods().get("stays").await.unwrap();
    let status = container(&after, "c").unwrap();
    assert_eq!((status.container_id, status.restart_count), (id, 0));
    assert_eq!(after.status.unwrap().start_time, before.status.unwrap().start_time);
    let containers = cluster.containerd.as_ref().unwrap().containers().await;
    assert_eq!(containers.len(), 2, "one container per pod, none twice");
    cluster.finish().await;
}

/// exec and port-forward through the API server, over WebSocket, into a runtime that speaks SPDY.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_reaches_the_container() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let cluster = Cluster::start_with("exec", |config| {
        config.streaming_connection_idle_timeout = std::time::Duration::from_secs(4);
    })
    .await;
    cluster
        .create(json!({"metadata": {"name": "shell"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "c", "image": IMAGE, "command": ["nc", "-ll", "-p", "8080", "-e", "cat"]}]}}))
        .await;
    cluster.until_running("shell").await;
    let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(cluster.remote().await, "default");
    let parameters = kube::api::AttachParams::default().stdin(true).stderr(true).stdout(true);
    let mut process = pods.exec("shell", ["sh", "-c", "cat; echo bad >&2; exit 7"], &parameters).await.unwrap();
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"to and fro\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    process.stdout().unwrap().read_to_string(&mut out).await.unwrap();
    process.stderr().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("to and fro\n", "bad\n"));
    let status = process.take_status().unwrap().await.unwrap();
    // The message is the runtime's, the cause is what clients go by.
    let cause = status.details.and_then(|details| details.causes).unwrap_or_default().pop().unwrap();
    assert_eq!((cause.reason.as_deref(), cause.message.as_deref()), (Some("ExitCode"), Some("7")));

    // Nobody says anything for too long: the connection is closed. Who says a word now and then is let alone.
    let parameters = kube::api::AttachParams::default().stderr(false);
    let talks = "for i in 1 2 3 4 5 6 7; do echo $i; sleep 1; done";
    let mut busy = pods.exec("shell", ["sh", "-c", talks], &parameters).await.unwrap();
    let mut still = pods.exec("shell", ["sh", "-c", "cat; sleep 1000"], &parameters.stdin(true)).await.unwrap();
    let mut forwarded = pods.portforward("shell", &[8080]).await.unwrap();
    let mut port = forwarded.take_stream(8080).unwrap();
    let since = std::time::Instant::now();
    let talk = async {
        let mut out = String::new();
        busy.stdout().unwrap().read_to_string(&mut out).await.unwrap();
        assert_eq!(out, "1\n2\n3\n4\n5\n6\n7\n");
    };
    let (mut stdin, mut out) = (still.stdin().unwrap(), still.stdout().unwrap());
    let silence = async {
        stdin.write_all(b"a").await.unwrap();
        out.read_exact(&mut [0]).await.unwrap();
        // The client's stdout has no end when the connection just breaks off, as when the runtime's is closed first.
        let _ = still.join().await;
        since.elapsed()
    };
    let forward = async {
        port.write_all(b"a").await.unwrap();
        port.read_exact(&mut [0]).await.unwrap();
        assert_eq!(port.read(&mut [0]).await.unwrap_or(0), 0);
        since.elapsed()
    };
    let all = async { tokio::join!(talk, silence, forward) };
    let ((), exec, forward) = tokio::time::timeout(support::DEADLINE, all).await.expect("closed");
    assert!(exec.as_secs() >= 4 && forward.as_secs() >= 4, "{exec:?} {forward:?}");
    cluster.finish().await;
}

/// A failing liveness probe restarts, a preStop hook runs before the end, a large log is rotated, a pod too big is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_hooks_and_limits() {
    let cluster = Cluster::start("probe").await;
    let shared = cluster.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let marks = json!([{"name": "marks", "hostPath": {"path": shared, "type": "Directory"}}]);
    let mount = json!([{"name": "marks", "mountPath": "/marks"}]);
    cluster
        .create(json!({"metadata": {"name": "sick"}, "spec": {"terminationGracePeriodSeconds": 1, "volumes": marks, "containers": [
            {"name": "c", "image": IMAGE, "volumeMounts": mount,
             "command": ["sh", "-c", "test -e /marks/once && exec sleep 1000; touch /marks/once /tmp/sick; exec sleep 1000"],
             "livenessProbe": {"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1, "failureThreshold": 1}}]}}))
        .await;
    cluster
        .create(json!({"metadata": {"name": "polite"}, "spec": {"terminationGracePeriodSeconds": 3, "volumes": marks, "containers": [
            {"name": "c", "image": IMAGE, "volumeMounts": mount,
             "command": ["sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo a line that is repeated until the log is large $i; i=$((i+1)); done; trap 'exit 0' TERM; touch /marks/ready; while true; do sleep 0.1; done"],
             "lifecycle": {"postStart": {"exec": {"command": ["touch", "/marks/hello"]}},
                           "preStop": {"exec": {"command": ["touch", "/marks/bye"]}}}}]}}))
        .await;
    cluster
        .create(json!({"metadata": {"name": "huge"}, "spec": {"containers": [
            {"name": "c", "image": IMAGE, "resources": {"requests": {"cpu": "100000"}}}]}}))
        .await;
    let refused = cluster
        .until("huge", "refused", |pod| {
            (pod.status.as_ref()?.phase.as_deref()? == "Failed").then(|| pod.status.clone()).flatten()
        })
        .await;
    assert_eq!(refused.reason.as_deref(), Some("OutOfcpu"));
    let restarted = cluster
        .until("sick", "restarted", |pod| {
            container(pod, "c")
                .filter(|c| c.restart_count == 1 && c.state.as_ref().is_some_and(|s| s.running.is_some()))
        })
        .await;
    assert_eq!(restarted.last_state.unwrap().terminated.unwrap().exit_code, 137);
    let events = cluster.events().await;
    assert!(events.contains("sick Unhealthy: Liveness probe failed: "), "{events}");
    assert!(events.contains("sick Killing: Container c failed liveness probe, will be restarted"), "{events}");

    let polite = cluster.until_running("polite").await;
    assert!(shared.join("hello").exists());
    eventually("the log is written", async || shared.join("ready").exists().then_some(())).await;
    let uid = polite.metadata.uid.unwrap();
    let logs = cluster.path().join(format!("logs/pods/default_polite_{uid}/c"));
    eventually("the log is rotated", async || (std::fs::read_dir(&logs).ok()?.count() > 1).then_some(())).await;
    cluster.pods().delete("polite", &DeleteParams::default()).await.unwrap();
    cluster.until_gone("polite").await;
    assert!(shared.join("bye").exists(), "preStop ran");
    cluster.finish().await;
}

/// What others write over the status of a pod and of the node is put right; a pod that calls itself static is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_over_is_said_again() {
    let cluster = Cluster::start("again").await;
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "main", "image": IMAGE, "command": ["sh", "-c", "sleep 3600"]}]});
    let annotations = json!({"kubernetes.io/config.source": "file"});
    cluster.create(json!({"metadata": {"name": "web", "annotations": annotations}, "spec": spec})).await;
    cluster.until_running("web").await;
    let unready = |status: &str| {
        Patch::Strategic(json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": "Tested"}]}}))
    };
    let written = cluster.pods().patch_status("web", &PatchParams::default(), &unready("False")).await.unwrap();
    assert!(!condition(&written, "Ready"));
    cluster.until("web", "ready again", |pod| condition(pod, "Ready").then_some(())).await;

    let nodes = Api::<Node>::all(cluster.admin());
    let ready = |node: &Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    let written = nodes.patch_status("node-1", &PatchParams::default(), &unready("Unknown")).await.unwrap();
    assert!(!ready(&written));
    eventually("the node is ready again", async || ready(&nodes.get("node-1").await.ok()?).then_some(())).await;
    cluster.pods().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until_gone("web").await;
    cluster.finish().await;
}
