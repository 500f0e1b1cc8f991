//! Pods with a `gitRepo` volume, on a kubelet whose gate for them is on.

mod support;

use keelson_testbed::git::GitServer;
use kube::api::LogParams;
use serde_json::json;
use support::{Cluster, IMAGE, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_reads_a_repository() {
    let dir = tempfile::tempdir().unwrap();
    let server = GitServer::start(dir.path()).await.unwrap();
    server.commit("shop", "main", &[("page", "hello\n")]);
    let cluster = Cluster::start_with("git", |config| {
        config.feature_gates.insert("GitRepoVolumeDriver".into(), true);
    })
    .await;
    let pod = |name: &str, source: serde_json::Value| {
        json!({"metadata": {"name": name}, "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "securityContext": {"fsGroup": 4242}, "volumes": [{"name": "v", "gitRepo": source}],
            "containers": [{"name": "c", "image": IMAGE, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "command": ["sh", "-c", "cat /v/src/page; stat -c %g /v/src/page; echo more > /v/src/page"]}]}})
    };
    cluster
        .create(pod("reads", json!({"repository": server.url("shop"), "revision": "main", "directory": "src"})))
        .await;
    cluster.create(pod("hostile", json!({"repository": "ext::sh -c id"}))).await;
    cluster
        .until("reads", "done", |pod| (pod.status.as_ref()?.phase.as_deref() == Some("Succeeded")).then_some(()))
        .await;
    assert_eq!(cluster.pods().logs("reads", &LogParams::default()).await.unwrap(), "hello\n4242\n");
    eventually("the other is refused", async || {
        let events = cluster.events().await;
        let start = "hostile FailedMount: MountVolume.SetUp failed for volume \"v\" : failed to exec 'git clone -- ext::sh -c id': ";
        let told = events.lines().any(|line| line.starts_with(start));
        (told && events.contains("transport 'ext' not allowed")).then_some(())
    })
    .await;
    cluster.finish().await;
}
