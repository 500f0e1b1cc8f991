//! Static pods: files on the node, and their mirrors in the API.

use std::path::PathBuf;

use keelson_testbed::cluster::{Cluster, TIMEOUT, wait};
use serde_json::json;

use super::table::{container, until_told, with};
use crate::e2e::{says, up_with_busybox};

#[test]
fn static_pods_follow_their_files() {
    let cluster = up_with_busybox();
    let (c, node) = (&cluster, cluster.profile());
    let directory = PathBuf::from(format!("/proc/{}/root/etc/kubernetes/manifests", cluster.init_pid(node)));
    let manifest = |words: &str, metadata: serde_json::Value| {
        let script = format!("echo {words}; {}", until_told("", 0));
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": with(json!({"name": "web"}), metadata),
            "spec": {"terminationGracePeriodSeconds": 20, "containers": [container("c", &script)]}})
        .to_string()
    };
    std::fs::write(directory.join("web.json"), manifest("one", json!({}))).expect("a manifest");
    let pod = format!("web-{node}");
    let ready = |cluster: &Cluster| {
        wait("the mirror", TIMEOUT, || cluster.try_kubectl(&format!("get pod {pod}")).status.success().then_some(()))
            .unwrap();
        cluster.kubectl(&format!("wait --for=condition=Ready pod/{pod} --timeout=60s"));
    };
    let get = |path: &str| cluster.kubectl(&format!("get pod {pod} -o jsonpath={{{path}}}"));
    ready(c);
    cluster.wait_for(&format!("logs {pod}"), |logs| logs == "one\nup\n");
    says(c, &format!("kubectl exec {pod} -- hostname"), &format!("{pod}\n"));
    let annotation = |name: &str| get(&format!(".metadata.annotations.kubernetes\\.io/config\\.{name}"));
    assert_eq!(annotation("source"), "file");
    assert_eq!(annotation("mirror"), annotation("hash"));
    assert_eq!(
        get(".metadata.ownerReferences[*].kind") + &get(".metadata.ownerReferences[*].name"),
        format!("Node{node}")
    );
    assert_eq!(get(".spec.tolerations[?(@.effect=='NoExecute')].operator"), "Exists");
    assert_eq!(get(".status.observedGeneration"), get(".metadata.generation"));

    // A deleted mirror comes back; the pod does not notice.
    let (id, uid) = (get(".status.containerStatuses[0].containerID"), get(".metadata.uid"));
    cluster.kubectl(&format!("delete pod {pod} --wait=false"));
    cluster.wait_for("get pods --no-headers -o custom-columns=UID:.metadata.uid", |uids| {
        !uids.contains(&uid) && uids.contains('-')
    });
    ready(c);
    assert_eq!(get(".status.containerStatuses[0].containerID"), id, "not started again");

    // So it is when the kubelet comes back.
    for pid in cluster.processes(node, "keelson agent") {
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(killed.expect("kill").success());
    }
    cluster.wait_for("get events", |events| events.matches("Starting kubelet").count() == 2);
    cluster.wait_for(&format!("logs {pod}"), |logs| logs == "one\nup\n");
    // Another file is another pod; the old one ends first.
    std::fs::write(directory.join(".web"), manifest("two", json!({"labels": {"colour": "blue"}}))).expect("a manifest");
    assert_eq!(get(".status.containerStatuses[0].containerID"), id);
    std::fs::rename(directory.join(".web"), directory.join("web.json")).expect("a rename");
    cluster.wait_for("get pods -l colour=blue --no-headers", |pods| pods.contains(" 1/1 "));
    cluster.wait_for(&format!("logs {pod}"), |logs| logs == "two\nup\n");
    assert_eq!(get(".status.containerStatuses[0].restartCount"), "0");
    cluster.wait_for("get events", |events| events.contains("Stopping container c"));

    // What refers to API objects is no static pod, nor is what breaks the API's rules.
    for (name, more) in
        [("secret", json!({"serviceAccountName": "default"})), ("rules", json!({"restartPolicy": "Sometimes"}))]
    {
        let spec = with(json!({"containers": [container("c", "true")]}), more);
        let bad = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        std::fs::write(directory.join(name), bad.to_string()).expect("a manifest");
    }
    wait("the log to tell of both", TIMEOUT, || {
        let logs = cluster.keelson_ok("logs", &["--component", "agent", "--tail", "400"]);
        let told = [
            "static pods may not refer to API objects, but serviceAccountName does",
            "spec.restartPolicy: Unsupported value",
        ];
        told.iter().all(|words| logs.contains(words)).then_some(())
    })
    .unwrap();

    std::fs::remove_file(directory.join("web.json")).expect("removing the manifest");
    cluster.wait_for("get pods --no-headers --ignore-not-found", str::is_empty);
    wait("the processes to end", TIMEOUT, || cluster.processes(node, "sleep 3600").is_empty().then_some(())).unwrap();
}
