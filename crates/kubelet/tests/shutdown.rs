//! Graceful node shutdown, on a bus of its own with a stand-in for logind.

mod support;

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use keelson_kubelet::Config;
use keelson_kubelet::config::ShutdownGracePeriodByPodPriority;
use keelson_testbed::logind::Logind;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use support::{Cluster, IMAGE, NODE, condition, container, eventually};

const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";

/// A pod that says `up` in a file once it can be told to end, and runs `last` when it is told.
fn pod(name: &str, class: &str, grace: u32, last: &str) -> Value {
    let script = format!("trap '{last}' TERM; touch /tmp/up; while true; do sleep 0.1; done");
    json!({"metadata": {"name": name}, "spec": {"priorityClassName": class, "terminationGracePeriodSeconds": grace,
        "restartPolicy": "Always", "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", script],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1}}]}})
}

fn ended(pod: &Pod) -> Option<(i32, jiff::Timestamp)> {
    let end = container(pod, "c")?.state?.terminated?;
    Some((end.exit_code, end.finished_at?.0))
}

async fn until_ready(cluster: &Cluster, wanted: &str, message: &str) {
    let nodes = Api::<Node>::all(cluster.admin());
    eventually(&format!("the node's Ready is {wanted}: {message}"), async || {
        let conditions = nodes.get(NODE).await.unwrap().status?.conditions?;
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
        (ready.status == wanted && ready.message.as_deref() == Some(message)).then_some(())
    })
    .await;
}

fn configure(config: &mut Config, logind: (&str, &Path), periods: &[(i32, i64)]) {
    config.dbus_address = Some(logind.0.into());
    config.logind_config_dir = logind.1.into();
    config.shutdown_grace_period_by_pod_priority = periods
        .iter()
        .map(|(priority, seconds)| ShutdownGracePeriodByPodPriority {
            priority: *priority,
            shutdown_grace_period_seconds: *seconds,
        })
        .collect();
}

async fn until_held(logind: &Logind, count: usize) {
    let mut held = logind.held();
    let waited = tokio::time::timeout(support::DEADLINE, held.wait_for(|held| *held == count)).await;
    waited.unwrap_or_else(|_| panic!("never {count} locks")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_end_in_order_of_their_priority() {
    let dir = tempfile::tempdir().unwrap();
    let mut logind = Logind::start(dir.path(), Some(Duration::from_secs(5))).await.unwrap();
    let (address, config_dir) = (logind.address(), logind.config_dir().to_path_buf());
    let manifests = dir.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    let mut of_file = pod("own", "", 60, "exit 0");
    of_file.as_object_mut().unwrap().extend([("apiVersion".into(), json!("v1")), ("kind".into(), json!("Pod"))]);
    std::fs::write(manifests.join("own.json"), of_file.to_string()).unwrap();
    let static_pods = manifests.clone();
    let mut cluster = Cluster::start_with("shutdown", move |config| {
        config.static_pod_path = Some(static_pods.clone());
        configure(config, (&address, &config_dir), &[(1000, 30), (0, 3), (2_000_000_000, 9)]);
    })
    .await;
    until_held(&logind, 1).await;
    assert_eq!(logind.asked(), ["shutdown|kubelet|delay"]);
    assert_eq!(logind.reloads(), 1, "it waited for 5 s only");
    let drop_in = std::fs::read_to_string(logind.config_dir().join("99-kubelet.conf")).unwrap();
    assert!(drop_in.contains("[Login]\nInhibitDelayMaxSec=42\n"), "{drop_in}");

    let classes = Api::<PriorityClass>::all(cluster.admin());
    for (name, value) in [("low", -5), ("high", 5000)] {
        let class = json!({"metadata": {"name": name}, "value": value});
        classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    }
    cluster.create(pod("slow", "low", 60, "sleep 1.5; exit 0")).await;
    cluster.create(pod("deaf", "", 60, "")).await;
    cluster.create(pod("high", "high", 60, "exit 7")).await;
    cluster.create(pod("critical", "system-node-critical", 60, "exit 0")).await;
    for name in ["slow", "deaf", "high", "critical", "own-node-1"] {
        cluster.until_running(name).await;
    }
    logind.prepare_for_shutdown(true).await.unwrap();
    until_ready(&cluster, "False", "node is shutting down").await;
    assert_eq!(*logind.held().borrow(), 1, "it waits for pods");
    cluster.create(pod("late", "", 1, "exit 0")).await;
    let told = cluster
        .until("late", "refused", |pod| {
            let status = pod.status.as_ref()?;
            (status.phase.as_deref() == Some("Failed")).then(|| (status.reason.clone(), status.message.clone()))
        })
        .await;
    assert_eq!(told.0.as_deref(), Some("NodeShutdown"));
    assert_eq!(told.1.as_deref(), Some("Pod was rejected: Pod was rejected as the node is shutting down."));
    until_held(&logind, 0).await;
    let mut ends = Vec::new();
    for (name, code) in [("slow", 0), ("deaf", 137), ("high", 7), ("critical", 0)] {
        let pod = cluster
            .until(name, "over", |pod| {
                let over = pod.status.as_ref()?.phase.as_deref() == Some("Failed");
                over.then(|| pod.clone())
            })
            .await;
        let status = pod.status.clone().unwrap();
        assert_eq!(
            (status.reason.as_deref(), status.message.as_deref()),
            (Some("Terminated"), Some(MESSAGE)),
            "{name}"
        );
        let target = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "DisruptionTarget");
        let target = target.unwrap_or_else(|| panic!("{name} has no DisruptionTarget"));
        assert_eq!(
            (target.reason.as_deref(), target.message.as_deref()),
            (Some("TerminationByKubelet"), Some(MESSAGE))
        );
        assert!(!condition(&pod, "Ready"));
        let (exit_code, finished) = ended(&pod).unwrap();
        assert_eq!(exit_code, code, "{name}");
        ends.push(finished);
    }
    assert!(ends[0] <= ends[1] && ends[1] <= ends[2] && ends[2] <= ends[3], "not in order: {ends:?}");
    let state = std::fs::read_to_string(cluster.path().join("kubelet/graceful_node_shutdown_state")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    let time = |name: &str| state[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let took = time("endTime").duration_since(time("startTime")).as_secs();
    assert!((3..42).contains(&took), "who is deaf has 3 s, and nobody waits for longer than there are pods: {took} s");

    // Called off: the node takes pods again, and the next shutdown waits, too.
    logind.prepare_for_shutdown(false).await.unwrap();
    until_ready(&cluster, "True", "kubelet is posting ready status").await;
    until_held(&logind, 1).await;
    cluster.create(pod("again", "", 1, "exit 0")).await;
    cluster.until_running("again").await;
    // A bus that comes again is taken up again.
    logind.restart(Some(Duration::from_secs(60))).await.unwrap();
    eventually("another lock", async || (logind.asked().len() == 3).then_some(())).await;
    logind.prepare_for_shutdown(true).await.unwrap();
    until_ready(&cluster, "False", "node is shutting down").await;
    let reason = |pod: &Pod| pod.status.as_ref()?.reason.clone();
    let told = cluster.until("again", "ended", |pod| reason(pod)).await;
    assert_eq!(told, "Terminated");
    // After the machine is back, what the node runs by itself runs again.
    assert_eq!(cluster.until("own-node-1", "ended", |pod| reason(pod)).await, "Terminated");
    cluster.kill_kubelet().await;
    cluster.start_kubelet();
    let own = cluster.until_running("own-node-1").await.status.unwrap();
    assert_eq!((own.phase.as_deref(), own.reason, own.message), (Some("Running"), None, None));
    std::fs::remove_file(manifests.join("own.json")).unwrap();
    cluster.until_gone("own-node-1").await;
    let events = cluster.events().await;
    for expected in [
        "node-1 NodeShutdown: Shutdown manager detected shutdown event",
        "node-1 NodeShutdown: Shutdown manager detected shutdown cancellation",
        "late NodeShutdown: Pod was rejected as the node is shutting down.",
        "node-1 NodeNotReady: Node node-1 status is now: NodeNotReady",
    ] {
        assert!(events.contains(expected), "{expected} not in\n{events}");
    }
    cluster.finish().await;
}

/// Without a bus, without logind, or with a logind that does not wait longer: the kubelet goes on, and takes no lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_does_without_logind() {
    let dir = tempfile::tempdir().unwrap();
    let places: Vec<_> = ["none", "empty", "stubborn"].iter().map(|name| dir.path().join(name)).collect();
    for place in &places {
        std::fs::create_dir(place).unwrap();
    }
    let empty = Logind::start(&places[1], None).await.unwrap();
    let stubborn = Logind::start(&places[2], Some(Duration::from_secs(5))).await.unwrap();
    let elsewhere = dir.path().join("elsewhere");
    let addresses = [format!("unix:path={}/bus", places[0].display()), empty.address(), stubborn.address()];
    let number = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let next = number.clone();
    let mut cluster = Cluster::start_with("no-logind", move |config| {
        let address = &addresses[next.load(std::sync::atomic::Ordering::SeqCst)];
        configure(config, (address, &elsewhere), &[(0, 30)]);
    })
    .await;
    for kind in 0..3 {
        if kind > 0 {
            cluster.kill_kubelet().await;
            number.store(kind, std::sync::atomic::Ordering::SeqCst);
            cluster.start_kubelet();
        }
        let name = format!("p{kind}");
        cluster.create(pod(&name, "", 1, "exit 0")).await;
        cluster.until_running(&name).await;
    }
    // It was asked to wait longer, and did not read the file, which is elsewhere.
    eventually("logind is told to reload", async || (stubborn.reloads() == 1).then_some(())).await;
    assert_eq!(stubborn.asked(), [""; 0]);
    cluster.finish().await;
}
