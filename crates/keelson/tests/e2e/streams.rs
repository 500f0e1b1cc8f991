//! Logs, exec, attach, cp and port-forward.

use keelson_testbed::cluster::Cluster;

use super::{BUSYBOX, http_get, mentions, run_busybox, says, up, up_with_busybox};

#[test]
fn logs_are_followed_cut_and_kept() {
    let cluster = up_with_busybox();
    let c = &cluster;
    // Ends its first run after five lines, then writes until it is told to end.
    let script = r#"if [ -e /data/ran ]; then echo again; while [ ! -e /data/end ]; do echo tick; sleep 0.2; done; echo bye;
        sleep 3600; fi; touch /data/ran; for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2; exit 7"#;
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker", "labels": {"app": "talker"}},
        "spec": {"volumes": [{"name": "data", "emptyDir": {}}], "containers": [{
            "name": "main", "image": BUSYBOX, "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }]},
    });
    cluster.apply(&pod.to_string());
    cluster.wait_for("logs talker --previous", |logs| logs.contains("oops"));
    says(c, "kubectl logs talker --previous | sort", "line 1\nline 2\nline 3\nline 4\nline 5\noops\n");
    says(c, "kubectl logs talker -p --limit-bytes=6", "line 1");
    cluster.wait_for("logs talker", |logs| logs.contains("tick\ntick"));
    says(c, "kubectl logs talker | head -n 2", "again\ntick\n");
    says(c, "kubectl logs talker --tail=1", "tick\n");
    says(c, "kubectl logs talker -c main --since-time=2999-01-01T00:00:00Z", "");
    mentions(c, "kubectl logs talker --since=1h", &["again\ntick\n"]);
    mentions(c, "kubectl logs -l app=talker --tail=2 --prefix", &["[pod/talker/main] tick\n"]);
    let stamped = cluster.kubectl("logs talker --timestamps --tail=1");
    let (time, line) = stamped.split_once(' ').expect("a time and a line");
    assert!(line == "tick\n" && time.ends_with('Z') && time.len() == 30, "{stamped}");

    let mut follow = cluster.background("kubectl logs -f talker --tail=1");
    follow.wait_for(|seen| seen.matches("tick\n").count() > 2);
    cluster.kubectl("exec talker -- touch /data/end");
    follow.wait_for(|seen| seen.ends_with("bye\n"));
    cluster.kubectl("delete pod talker --grace-period=1");
    assert_eq!(follow.exit_code(), 0, "a followed log ends with its container");

    run_busybox(c, "quiet");
    says(
        c,
        "kubectl logs quiet --previous",
        "Error from server (BadRequest): previous terminated container \"quiet\" in pod \"quiet\" not found\n[exit 1]\n",
    );
    says(c, "kubectl logs quiet -c nope", "error: container nope is not valid for pod quiet\n[exit 1]\n");
    says(
        c,
        "kubectl logs nope",
        "error: error from server (NotFound): pods \"nope\" not found in namespace \"default\"\n[exit 1]\n",
    );
    cluster.kubectl("run ghost --image keelson.local/nowhere");
    cluster.wait_for("get pod ghost --no-headers", |line| line.contains("ImagePullBackOff"));
    mentions(
        c,
        "kubectl logs ghost",
        &["Error from server (BadRequest): container \"ghost\" in pod \"ghost\" is waiting to start: ", "[exit 1]"],
    );
}

#[test]
fn commands_run_in_pods_with_and_without_a_terminal() {
    let cluster = up_with_busybox();
    let c = &cluster;
    run_busybox(c, "shell");
    says(c, "kubectl exec shell -- sh -c 'echo $HOSTNAME; pwd'", "shell\n/\n");
    says(c, "kubectl exec shell -- sh -c 'echo out; echo err >&2' 2>/dev/null", "out\n");
    says(c, "kubectl exec shell -- sh -c 'exit 3'", "command terminated with exit code 3\n[exit 3]\n");
    says(c, "kubectl exec shell -- sh -c 'kill -9 $$'", "command terminated with exit code 137\n[exit 137]\n");
    let sum = cluster.shell("seq 20000 | md5sum");
    says(c, "seq 20000 | kubectl exec -i shell -- cat | md5sum", &sum);
    says(c, "kubectl exec shell -- tty", "not a tty\ncommand terminated with exit code 1\n[exit 1]\n");
    mentions(
        c,
        "kubectl exec shell -- nope",
        &[
            "error: Internal error occurred: error executing command in container: failed to exec in container: ",
            "nope",
            "[exit 1]",
        ],
    );
    says(
        c,
        "kubectl exec shell -c nope -- ls",
        "Error from server (BadRequest): container nope is not valid for pod shell\n[exit 1]\n",
    );
    says(c, "kubectl exec nope -- ls", "Error from server (NotFound): pods \"nope\" not found\n[exit 1]\n");
    says(
        c,
        "kubectl exec deployment/nope -- ls",
        "Error from server (NotFound): deployments.apps \"nope\" not found\n[exit 1]\n",
    );

    // A real terminal of 100 columns and 40 rows; the size arrives after the start, so the command waits for it.
    let in_terminal = "until stty size | grep -q 40; do :; done; stty size; tty; echo $TERM; exit 5";
    let line = format!("kubectl exec -it shell -- sh -c '{in_terminal}'");
    let seen = terminal(c, &line);
    assert!(seen.contains("40 100\r\n/dev/pts/0\r\nxterm\r\n"), "{seen:?}");
    assert!(seen.contains("command terminated with exit code 5") && seen.ends_with("[exit 5]\n"), "{seen:?}");

    // Attach: what the main process writes from now on, and what is typed.
    let overrides = r#"{"spec":{"containers":[{"name":"echo","image":"registry.test/busybox:1","stdin":true,
        "command":["sh","-c","while read line; do echo got $line; [ $line = end ] && exit 4; done"]}]}}"#;
    cluster.kubectl_args(&["run", "echo", "--image", BUSYBOX, "--restart", "Never", "--overrides", overrides]);
    cluster.kubectl("wait --for=condition=Ready pod/echo --timeout=60s");
    let mut attached = cluster.background("kubectl attach -i echo");
    attached.type_in("hello\n");
    attached.wait_for(|seen| seen.contains("got hello\n"));
    let watching = cluster.background("kubectl attach echo");
    // Its warning comes before it is attached: only an echo says that it is.
    keelson_testbed::cluster::wait("the second client to be attached", keelson_testbed::cluster::TIMEOUT, || {
        attached.type_in("more\n");
        watching.output().contains("got more\n").then_some(())
    })
    .unwrap();
    attached.type_in("end\n");
    attached.exit_code();
    cluster.wait_for("get pod echo --no-headers", |line| line.contains("Error"));
    says(
        c,
        "kubectl attach shell -c nope",
        "error: cannot attach to the container: container nope not found in pod shell\n[exit 1]\n",
    );

    // `run -i --rm`: the pod lasts as long as its command.
    let once = format!("echo typed | kubectl run once --image {BUSYBOX} -i --rm --restart=Never --");
    mentions(c, &format!("{once} cat"), &["typed\n", "pod \"once\" deleted from default namespace\n"]);
    mentions(c, &format!("{once} sh -c 'exit 6'"), &["pod default/once terminated (Error)\n", "[exit 6]\n"]);
}

/// A line of shell on a terminal of 100 columns and 40 rows.
fn terminal(cluster: &Cluster, line: &str) -> String {
    std::fs::write(
        cluster.path("kubectl.sh"),
        "exec timeout --foreground 60 \"$KUBECTL\" --cache-dir \"$CACHE\" \"$@\"\n",
    )
    .expect("a script");
    let line = line.replacen("kubectl ", "sh ./kubectl.sh ", 1);
    std::fs::write(cluster.path("terminal.sh"), format!("stty cols 100 rows 40\n{line}\n")).expect("a script");
    cluster.shell("TERM=xterm script -qec 'sh ./terminal.sh' /dev/null </dev/null")
}

#[test]
fn files_are_copied_and_ports_forwarded() {
    let cluster = up_with_busybox();
    let c = &cluster;
    run_busybox(c, "shell");
    says(c, "head -c 5000000 /dev/urandom > big && mkdir dir && echo a > dir/a && echo b > dir/b", "");
    says(c, "kubectl cp big shell:/tmp/big && kubectl cp dir shell:/tmp/", "");
    says(c, "kubectl exec shell -- md5sum /tmp/big | cut -c-32", &cluster.shell("md5sum big | cut -c-32"));
    says(c, "kubectl exec shell -- cat /tmp/dir/a /tmp/dir/b", "a\nb\n");
    cluster.shell("kubectl cp shell:/tmp/big back; kubectl cp shell:/tmp/dir dir2");
    says(c, "cmp big back && cmp dir/a dir2/a && cmp dir/b dir2/b", "");
    mentions(c, "kubectl cp big nope:/tmp/big", &["pods \"nope\" not found", "[exit 1]"]);

    cluster.kubectl("create deployment web --image keelson.local/hello --port 80");
    cluster.kubectl("expose deployment web --port 8080 --target-port 80");
    cluster.kubectl("rollout status deployment/web --timeout=60s");
    for (to, port) in [("deployment/web", 80), ("service/web", 8080)] {
        let forward = cluster.background(&format!("kubectl port-forward {to} :{port}"));
        let said = forward.wait_for(|said| said.contains("Forwarding from 127.0.0.1:"));
        let local = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split_once(' ')).map(|(port, _)| port.parse());
        let local = local.and_then(Result::ok).unwrap_or_else(|| panic!("a port in {said}"));
        assert!(said.contains(&format!("Forwarding from 127.0.0.1:{local} -> 80\n")), "{said}");
        for _ in 0..20 {
            let answer = http_get(("127.0.0.1", local), "/through").expect("an answer");
            assert!(answer.contains("Hello from web-") && answer.contains("GET /through"), "{answer}");
        }
    }
    let refused = cluster.background("kubectl port-forward deployment/web :81");
    let said = refused.wait_for(|said| said.contains("Forwarding from 127.0.0.1:"));
    let local = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split_once(' ')).expect("a port").0;
    assert_eq!(http_get(("127.0.0.1", local.parse().unwrap()), "/"), None);
    refused.wait_for(|said| {
        said.contains("error forwarding port 81 to pod") && said.to_lowercase().contains("connection refused")
    });
}

#[test]
fn the_api_server_proxies_to_pods_and_services() {
    let cluster = up();
    cluster.kubectl("run web --image keelson.local/hello --port 80");
    cluster.kubectl("wait --for=condition=Ready pod/web --timeout=60s");
    for path in ["pods/web/proxy/abc", "pods/web:80/proxy/abc", "pods/http:web:80/proxy/abc"] {
        let answer = cluster.kubectl(&format!("get --raw /api/v1/namespaces/default/{path}"));
        assert!(answer.contains("Hello from web") && answer.contains("GET /abc HTTP/1.1"), "{path}: {answer}");
    }
}

/// Both ways that kubectl has of reaching the API server.
const TRANSPORTS: [&str; 2] = ["true", "false"];

#[test]
fn a_gibibyte_is_copied_intact() {
    let cluster = up_with_busybox();
    let c = &cluster;
    run_busybox(c, "shell");
    let sum = c.shell("seq 200000000 | head -c 1G > big; sha256sum < big");
    says(c, "kubectl cp big shell:/big", "");
    says(c, "kubectl exec shell -- sha256sum < /dev/null /big | cut -c-64", &sum.replace("  -", ""));
    c.shell("rm big");
    says(c, "kubectl exec shell -- cat /big | sha256sum", &sum);
}

#[test]
fn many_connections_go_through_one_port_forward() {
    let cluster = up();
    cluster.kubectl("run web --image keelson.local/hello --port 80");
    cluster.kubectl("wait --for=condition=Ready pod/web --timeout=60s");
    for websockets in TRANSPORTS {
        let line = format!("env KUBECTL_PORT_FORWARD_WEBSOCKETS={websockets} kubectl port-forward pod/web :80");
        let forward = cluster.background(&line);
        let said = forward.wait_for(|said| said.contains("Forwarding from 127.0.0.1:"));
        let local = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split_once(' ')).expect("a port").0;
        let local: u16 = local.parse().expect("a port");
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..40)
                .map(|number| scope.spawn(move || http_get(("127.0.0.1", local), &format!("/number/{number}/"))))
                .collect();
            for (number, answer) in asking.into_iter().enumerate() {
                let answer = answer.join().expect("a thread").expect("an answer");
                assert!(answer.contains(&format!("GET /number/{number}/")), "{websockets}: {answer}");
            }
        });
    }
}

#[test]
fn pods_are_debugged() {
    let cluster = up_with_busybox();
    let c = &cluster;
    // Its processes come and go while others join it.
    c.kubectl_args(&["run", "shell", "--image", BUSYBOX, "--", "sh", "-c", "while :; do sleep 0.1; done"]);
    c.kubectl("wait --for=condition=Ready pod/shell --timeout=60s");
    // Beside: another container in the pod, which sees the processes of its target.
    c.kubectl(&format!(
        "debug shell --image {BUSYBOX} -c beside --target shell --profile general -- sh -c ps;echo${{IFS}}over;sleep${{IFS}}3600"
    ));
    let seen = c.wait_for("logs shell -c beside", |log| log.contains("over"));
    assert!(seen.contains("while :; do sleep 0.1; done"), "{seen}");
    let state = "get pod shell -o jsonpath={.status.ephemeralContainerStatuses[0].state}";
    c.wait_for(state, |state| state.contains("running"));
    says(c, "kubectl exec shell -c beside -- sh -c 'echo here'", "here\n");
    // A copy with another command.
    c.kubectl(&format!(
        "debug shell --copy-to copy --container shell --image {BUSYBOX} --share-processes -- sh -c echo${{IFS}}copied;sleep${{IFS}}3600"
    ));
    c.wait_for("logs copy -c shell", |log| log.contains("copied"));
    // The node, whose file system is at /host.
    let said = c.kubectl(&format!(
        "debug node/{} --image {BUSYBOX} --profile sysadmin -- sh -c ls${{IFS}}/host;echo${{IFS}}over",
        c.profile()
    ));
    let name = said.split_whitespace().find(|word| word.starts_with("node-debugger-")).expect("the pod's name");
    let log = c.wait_for(&format!("logs {name}"), |log| log.contains("over"));
    assert!(log.contains("etc\n") && log.contains("mnt\n"), "{log}");
}
