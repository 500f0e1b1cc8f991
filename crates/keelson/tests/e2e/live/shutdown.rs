//! A node whose machine goes down, as a stand-in for logind says: on a bus of the test's own, which only the node's kubelet
//! knows.

use std::time::Duration;

use keelson_testbed::cluster::{Cluster, TIMEOUT};
use keelson_testbed::logind::Logind;
use serde_json::json;

use super::{pod, pod_field, reconfigure, run, until_event};

const CONFIGURATION: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
const TERMINATED: &str = "Pod was terminated in response to imminent node shutdown.";

async fn until_held(logind: &Logind, count: usize) {
    let mut held = logind.held();
    let waited = tokio::time::timeout(TIMEOUT, held.wait_for(|held| *held == count)).await;
    waited.unwrap_or_else(|_| panic!("never {count} locks")).expect("logind");
}

#[test]
fn a_node_ends_its_pods_before_it_goes_down() {
    let exe = env!("CARGO_BIN_EXE_keelson");
    let bus = ("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/mnt/shared/bus");
    let config = "--extra-config=kubelet.config=/mnt/shared/kubelet.yaml";
    let cluster = Cluster::up_with_variable(exe, bus, &[("kubelet.yaml", CONFIGURATION)], &[config]);
    let c = &cluster;
    crate::e2e::load_busybox(c);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let shared = cluster.path("shared");
    let logind = tokio.block_on(Logind::start(&shared, Some(Duration::from_secs(60)))).expect("a bus");
    let periods = format!("{CONFIGURATION}shutdownGracePeriod: 20s\nshutdownGracePeriodCriticalPods: 5s\n");
    reconfigure(c, &periods, "\"shutdownGracePeriod\":\"20s\"");
    tokio.block_on(until_held(&logind, 1));

    let script = "trap 'echo bye; exit 0' TERM; touch /up; while true; do sleep 0.1; done";
    let up = json!({"readinessProbe": {"exec": {"command": ["test", "-e", "/up"]}, "periodSeconds": 1}});
    run(c, "web", &pod("web", script, up, json!({})));
    tokio.block_on(logind.prepare_for_shutdown(true)).expect("told");
    let ready = format!(
        "get node {} -o jsonpath={{.status.conditions[?(@.type=='Ready')].status}}:{{.status.conditions[?(@.type=='Ready')].message}}",
        cluster.profile()
    );
    c.wait_for(&ready, |ready| ready == "False:node is shutting down");
    c.wait_for("get pod web -o jsonpath={.status.phase}:{.status.reason}:{.status.message}", |told| {
        told == format!("Failed:Terminated:{TERMINATED}")
    });
    assert_eq!(pod_field(c, "web", ".status.containerStatuses[0].state.terminated.exitCode"), "0");
    tokio.block_on(until_held(&logind, 0));

    let bound = json!({"nodeName": cluster.profile(), "tolerations": [{"operator": "Exists"}]});
    c.apply(&pod("late", "true", json!({}), bound));
    until_event(c, "late", &["Warning", "NodeShutdown", "Pod was rejected as the node is shutting down."]);
    c.wait_for("get pod late -o jsonpath={.status.phase}:{.status.reason}", |told| told == "Failed:NodeShutdown");

    tokio.block_on(logind.prepare_for_shutdown(false)).expect("told");
    c.wait_for(&ready, |ready| ready == "True:kubelet is posting ready status");
    tokio.block_on(until_held(&logind, 1));
    run(c, "again", &pod("again", script, json!({}), json!({})));
    until_event(c, cluster.profile(), &["NodeShutdown", "Shutdown manager detected shutdown cancellation"]);
}
