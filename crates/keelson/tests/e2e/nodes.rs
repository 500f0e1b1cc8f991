//! Commands about nodes, and debugging.

use super::{BUSYBOX, mentions, run_busybox, says, up_with_busybox};

#[test]
fn nodes_are_cordoned_tainted_and_drained() {
    let cluster = up_with_busybox();
    let c = &cluster;
    let node = cluster.profile();
    cluster.kubectl("create deployment web --image keelson.local/hello --replicas 2");
    cluster.kubectl("rollout status deployment/web --timeout=60s");

    says(c, &format!("kubectl cordon {node}"), &format!("node/{node} cordoned\n"));
    says(c, &format!("kubectl cordon {node}"), &format!("node/{node} already cordoned\n"));
    mentions(c, "kubectl get nodes", &["Ready,SchedulingDisabled"]);
    cluster.kubectl(&format!("run late --image {BUSYBOX} -- sleep 3600"));
    cluster.wait_for("get events --field-selector involvedObject.name=late", |events| {
        events.contains("0/1 nodes are available: 1 node(s) were unschedulable")
    });
    says(c, &format!("kubectl uncordon {node}"), &format!("node/{node} uncordoned\n"));
    cluster.kubectl("wait --for=condition=Ready pod/late --timeout=60s");

    let taint = |what: &str| format!("kubectl taint node {node} {what}");
    says(c, &taint("tier=slow:NoSchedule"), &format!("node/{node} tainted\n"));
    says(
        c,
        &taint("tier=fast:NoSchedule"),
        &format!(
            "error: node {node} already has tier taint(s) with same effect(s) and --overwrite is false\n[exit 1]\n"
        ),
    );
    says(c, &taint("tier=fast:NoSchedule --overwrite"), &format!("node/{node} modified\n"));
    says(
        c,
        "kubectl get nodes -o jsonpath='{.items[0].spec.taints}'",
        r#"[{"effect":"NoSchedule","key":"tier","value":"fast"}]"#,
    );
    says(c, &taint("tier-"), &format!("node/{node} untainted\n"));
    mentions(c, &taint("tier-"), &["taint \"tier\" not found", "[exit 1]"]);
    says(c, &taint("tier=now:NoExecute"), &format!("node/{node} tainted\n"));
    cluster.wait_for("get pods -o name", |pods| !pods.contains("pod/late"));
    says(c, &taint("tier-"), &format!("node/{node} untainted\n"));
    cluster.kubectl("rollout status deployment/web --timeout=60s");

    cluster.kubectl(&format!("run alone --image {BUSYBOX} -- sleep 3600"));
    cluster.kubectl("wait --for=condition=Ready pod/alone --timeout=60s");
    mentions(
        c,
        &format!("kubectl drain {node}"),
        &[
            &format!("node/{node} cordoned\n"),
            "cannot delete Pods that declare no controller (use --force to override): default/alone",
            "[exit 1]",
        ],
    );
    let before = cluster.kubectl("get pods -l app=web -o name");
    let drained = mentions(
        c,
        &format!("kubectl drain {node} --force --grace-period=1 --timeout=60s"),
        &["Warning: deleting Pods that declare no controller: default/alone", &format!("node/{node} drained\n")],
    );
    assert_eq!(drained.matches(" evicted\n").count(), 3, "{drained}");
    // Their replacements wait for the node.
    cluster.wait_for("get pods -l app=web --no-headers", |pods| pods.matches("Pending").count() == 2);
    assert!(cluster.kubectl("get pods -l app=web -o name").lines().all(|pod| !before.contains(pod)));
    says(c, &format!("kubectl uncordon {node}"), &format!("node/{node} uncordoned\n"));
    cluster.kubectl("rollout status deployment/web --timeout=60s");
}

#[test]
fn pods_and_nodes_are_debugged() {
    let cluster = up_with_busybox();
    let c = &cluster;
    run_busybox(c, "shell");
    let debug = format!("kubectl debug --image={BUSYBOX} --profile=general");
    says(
        c,
        &format!("{debug} shell --container=probe --target=shell -- sh -c 'ls /proc/1/cwd/bin/busybox; sleep 3600'"),
        "Targeting container \"shell\". If you don't see processes from this container it may be because the container \
         runtime doesn't support this feature.\n",
    );
    let running = "get pod shell -o jsonpath={.status.ephemeralContainerStatuses[*].state.running.startedAt}";
    cluster.wait_for(running, |time| !time.is_empty());
    cluster.wait_for("logs shell -c probe", |logs| logs.contains("busybox"));
    says(c, "kubectl exec shell -c probe -- pidof sleep | wc -w", "2\n");
    says(c, &format!("{debug} shell --copy-to=twin --container=probe -- sleep 3600"), "");
    cluster.kubectl("wait --for=condition=Ready pod/twin --timeout=60s");
    says(c, "kubectl get pod twin -o jsonpath='{.spec.containers[*].name}'", "shell probe");

    let node = cluster.profile();
    mentions(
        c,
        &format!("{debug} node/{node} -- cat /host/etc/hostname"),
        &[
            &format!("Creating debugging pod node-debugger-{node}-"),
            &format!("with container debugger on node {node}.\n"),
        ],
    );
    cluster.wait_for("logs -l app.kubernetes.io/managed-by=kubectl-debug", |logs| !logs.is_empty());
}

#[test]
fn a_container_that_does_not_run_is_named() {
    let cluster = up_with_busybox();
    let c = &cluster;
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "two"},
        "spec": {"containers": [
            {"name": "up", "image": BUSYBOX, "command": ["sleep", "3600"]},
            {"name": "down", "image": "keelson.local/nowhere"},
        ]},
    });
    cluster.apply(&pod.to_string());
    cluster.wait_for("get pod two -o jsonpath={.status.containerStatuses[?(@.name==\"up\")].ready}", |up| up == "true");
    let why =
        "error: Internal error occurred: unable to upgrade connection: container not found (\"down\")\n[exit 1]\n";
    says(c, "kubectl exec two -c down -- ls", why);
    mentions(c, "kubectl attach two -c down", &[why]);
    says(
        c,
        "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false; export KUBECTL_REMOTE_COMMAND_WEBSOCKETS; kubectl exec two -c down -- ls",
        "error: unable to upgrade connection: container not found (\"down\")\n[exit 1]\n",
    );
}
