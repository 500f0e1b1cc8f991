//! What dies is replaced, and what cannot run says why.

use super::{BUSYBOX, run_busybox, up, up_with_busybox};

#[test]
fn a_killed_container_is_restarted_and_a_deleted_pod_replaced() {
    let cluster = up();
    let node = cluster.profile().to_owned();
    cluster.kubectl("create deployment web --image keelson.local/hello");
    cluster.kubectl("rollout status deployment/web --timeout=60s");
    let pids = cluster.processes(&node, "/keelson hello");
    let killed = std::process::Command::new("kill").args(["-9", &pids[0].to_string()]).status();
    assert!(killed.expect("kill").success());
    cluster
        .wait_for("get pods -l app=web -o jsonpath={.items[0].status.containerStatuses[0].restartCount}", |n| n == "1");
    let line = cluster.wait_for("get pods -l app=web --no-headers", |line| line.contains(" 1/1 "));
    assert!(line.contains("1 ("), "RESTARTS counts and says when: {line}");
    let last = "get pods -l app=web -o jsonpath={.items[0].status.containerStatuses[0].lastState.terminated.exitCode}";
    assert_eq!(cluster.kubectl(last), "137");

    let name = cluster.kubectl("get pods -l app=web -o name");
    cluster.kubectl(&format!("delete {}", name.trim()));
    let other = cluster.wait_for("get pods -l app=web -o name", |now| !now.trim().is_empty() && now != name);
    cluster.kubectl(&format!("wait --for=condition=Ready {} --timeout=60s", other.trim()));
}

#[test]
fn a_crashing_container_backs_off_and_a_missing_image_says_so() {
    let cluster = up_with_busybox();
    cluster.kubectl(&format!("run crash --image {BUSYBOX} -- false"));
    cluster.kubectl("run ghost --image keelson.local/nowhere");
    cluster.kubectl(&format!("run done --image {BUSYBOX} --restart Never -- true"));
    cluster.kubectl(&format!("run failed --image {BUSYBOX} --restart Never -- sh -c exit${{IFS}}3"));
    cluster.wait_for("get pod crash --no-headers", |line| line.contains("CrashLoopBackOff"));
    cluster.wait_for("get pod ghost --no-headers", |line| line.contains("ImagePullBackOff"));
    cluster.wait_for("get pod done --no-headers", |line| line.contains("Completed"));
    cluster.wait_for("get pod failed --no-headers", |line| line.contains("Error"));
    let code = "get pod failed -o jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(cluster.kubectl(code), "3");
    let events = cluster.kubectl("get events --field-selector involvedObject.name=ghost");
    assert!(events.contains("Failed") && events.contains("keelson.local/nowhere"), "{events}");
    let events = cluster.kubectl("get events --field-selector involvedObject.name=crash");
    assert!(events.contains("BackOff") && events.contains("Back-off restarting failed container crash"), "{events}");
}

#[test]
fn a_pod_that_fits_nowhere_waits_and_says_why() {
    let cluster = up_with_busybox();
    let overrides = r#"{"spec":{"containers":[{"name":"big","image":"registry.test/busybox:1","resources":{"requests":{"cpu":"1000"}}}]}}"#;
    cluster.kubectl_args(&["run", "big", "--image", BUSYBOX, "--overrides", overrides]);
    let described = cluster.wait_for("describe pod big", |text| text.contains("FailedScheduling"));
    assert!(described.contains("0/1 nodes are available: 1 Insufficient cpu."), "{described}");
    assert!(cluster.kubectl("get pod big --no-headers").contains("Pending"));

    cluster.kubectl(&format!("cordon {}", cluster.profile()));
    cluster.kubectl(&format!("run late --image {BUSYBOX} -- sleep 3600"));
    cluster.wait_for("describe pod late", |text| text.contains("1 node(s) were unschedulable"));
    cluster.kubectl(&format!("uncordon {}", cluster.profile()));
    cluster.kubectl("wait --for=condition=Ready pod/late --timeout=60s");
    run_busybox(&cluster, "next");
}
