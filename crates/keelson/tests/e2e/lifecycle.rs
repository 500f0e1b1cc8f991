//! `up`, `down`, `up` again, `delete`; and what happens when parts are killed.

use std::collections::BTreeSet;

use keelson_testbed::cluster::{Cluster, TIMEOUT, text, wait};

use super::{http_get, up};

const UIDS: &str = "get namespaces,deployments,services,configmaps,pods -o jsonpath={range.items[*]}{.kind}/{.metadata.name}={.metadata.uid}{'\\n'}{end}";

#[test]
fn down_and_up_again_bring_everything_back() {
    let cluster = up();
    cluster.kubectl("create deployment web --image keelson.local/hello --replicas 2");
    cluster.kubectl("create configmap kept --from-literal=a=b");
    cluster.kubectl("rollout status deployment/web --timeout=60s");
    let before = cluster.kubectl(UIDS);
    assert!(before.contains("ConfigMap/kept=") && before.matches("Pod/web-").count() == 2, "{before}");

    let again = cluster.keelson_ok("up", &[]);
    assert!(!again.contains("started"), "a running cluster is left as it is:\n{again}");

    cluster.keelson_ok("down", &[]);
    let status = cluster.keelson("status", &[]);
    assert!(!status.status.success() && text(&status).contains("stopped"), "{}", text(&status));
    cluster.kubectl_fails("--request-timeout=2s get nodes");

    // Meanwhile somebody takes the port (if no other test has); the kubeconfig follows to the new one.
    let port =
        text(&status).split_once("127.0.0.1:").map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect());
    let port: String = port.expect("the status shows the endpoint");
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port.parse().unwrap()));
    let steps = cluster.keelson_ok("up", &[]);
    for step in ["certificates", "started", "API server ready", "Ready", "in all"] {
        assert!(steps.contains(step), "{step:?} is not in:\n{steps}");
    }
    cluster.kubectl("wait --for=condition=Available deployment/web --timeout=60s");
    assert_eq!(cluster.kubectl(UIDS), before, "the same objects with the same UIDs");
    cluster.wait_for("get pods -l app=web --no-headers", |pods| pods.matches(" 1/1 ").count() == 2);
    assert!(cluster.keelson_ok("status", &[]).contains("ready"));
}

#[test]
fn components_take_settings_and_nodes_take_mounts() {
    let exe = env!("CARGO_BIN_EXE_keelson");
    let issuer = "--extra-config=apiserver.service-account-issuer=https://issuer.test";
    let cluster = Cluster::up_with_files(exe, &[("words.txt", "from the host\n")], &[issuer]);
    let payload = "kubectl create token default | cut -d. -f2 | tr '_-' '/+' | sed 's/$/==/' | base64 -d 2>/dev/null";
    let claims = cluster.shell(payload);
    assert!(claims.contains(r#""iss":"https://issuer.test""#), "{claims}");
    let init = cluster.init_pid(cluster.profile());
    let seen = std::fs::read_to_string(format!("/proc/{init}/root/mnt/shared/words.txt"));
    assert_eq!(seen.expect("the mounted file"), "from the host\n");

    let refused = cluster.keelson("up", &["--extra-config=apiserver.no-such-flag=x"]);
    assert!(text(&refused).contains("apiserver has no flag --no-such-flag"), "{}", text(&refused));
    let refused = cluster.keelson("up", &["--extra-config=apiserver.api-audiences=x"]);
    assert!(text(&refused).contains("down --profile"), "{}", text(&refused));
}

#[test]
fn killed_parts_come_back_and_containers_go_on() {
    let cluster = up();
    let node = cluster.profile().to_owned();
    cluster.kubectl("create deployment web --image keelson.local/hello");
    cluster.kubectl("expose deployment web --port 80 --type LoadBalancer");
    cluster.kubectl("rollout status deployment/web --timeout=60s");
    let ip = cluster.wait_for("get service web -o jsonpath={.status.loadBalancer.ingress[0].ip}", |ip| !ip.is_empty());
    let container =
        cluster.kubectl("get pods -l app=web -o jsonpath={.items[0].status.containerStatuses[0].containerID}");
    let workload = cluster.processes(&node, "/keelson hello");
    assert_eq!(workload.len(), 1, "{workload:?}");
    cluster.kubectl("create configmap acknowledged --from-literal=a=b");

    for part in ["keelson server", "keelson agent", "keelson shim serve"] {
        for pid in cluster.processes(&node, part) {
            let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
            assert!(killed.expect("kill").success());
        }
        assert_eq!(cluster.processes(&node, "/keelson hello"), workload, "the container goes on when {part} dies");
    }
    cluster.wait_for("get configmap acknowledged -o jsonpath={.data.a}", |value| value == "b");
    cluster.kubectl(&format!("wait --for=condition=Ready node/{node} --timeout=60s"));
    let after = cluster.kubectl("get pods -l app=web -o jsonpath={.items[0].status.containerStatuses[0].containerID}");
    assert_eq!(after, container, "not started a second time");
    assert_eq!(cluster.processes(&node, "/keelson hello"), workload);

    // The loop is closed again: new pods run, and the Service leads to all of them.
    cluster.kubectl("scale deployment web --replicas 2");
    cluster.kubectl("rollout status deployment/web --timeout=60s");
    wait("the service to answer", TIMEOUT, || http_get((&ip, 80), "/")).unwrap();
}

#[test]
fn a_killed_node_is_healed_by_up() {
    let cluster = up();
    let node = cluster.profile().to_owned();
    cluster.kubectl("create deployment web --image keelson.local/hello");
    cluster.kubectl("rollout status deployment/web --timeout=60s");
    let killed = std::process::Command::new("kill").args(["-9", &cluster.init_pid(&node).to_string()]).status();
    assert!(killed.expect("kill").success());
    cluster.keelson_ok("up", &[]);
    cluster.kubectl("wait --for=condition=Available deployment/web --timeout=60s");
    cluster.wait_for("get pods -l app=web --no-headers", |pods| pods.contains(" 1/1 ") && pods.contains("Running"));
}

#[test]
fn profiles_run_side_by_side() {
    let (one, two) = (up(), up());
    for cluster in [&one, &two] {
        cluster.kubectl("create deployment web --image keelson.local/hello");
        cluster.kubectl("expose deployment web --port 8099 --target-port 80 --type LoadBalancer");
    }
    let address = |cluster: &Cluster| {
        cluster.kubectl("rollout status deployment/web --timeout=60s");
        cluster.wait_for("get service web -o jsonpath={.status.loadBalancer.ingress[0].ip}", |ip| !ip.is_empty())
    };
    let (first, second) = (address(&one), address(&two));
    assert_ne!(first, second, "the same port on two addresses");
    for ip in [first, second] {
        wait("an answer", TIMEOUT, || http_get((&ip, 8099), "/")).unwrap();
    }
    let contexts = one.kubectl("config get-contexts -o name");
    assert_eq!(contexts.trim(), format!("keelson-{}", one.profile()));
    assert!(one.keelson_ok("kubeconfig", &[]).contains(&format!("keelson-{}", one.profile())));
    assert!(one.keelson_ok("logs", &["--component", "server"]).contains("control plane is up"));
}

#[test]
fn two_nodes_are_one_cluster() {
    let cluster = Cluster::up(env!("CARGO_BIN_EXE_keelson"), &["--nodes", "2"]);
    assert_eq!(cluster.kubectl("get nodes --no-headers").matches(" Ready ").count(), 2);
    cluster.kubectl("create deployment web --image keelson.local/hello --replicas 4");
    cluster.kubectl("expose deployment web --port 80");
    cluster.kubectl("rollout status deployment/web --timeout=60s");
    let nodes = "get pods -l app=web -o jsonpath={range.items[*]}{.spec.nodeName}{'\\n'}{end}";
    let placed: BTreeSet<String> = cluster.kubectl(nodes).lines().map(Into::into).collect();
    assert_eq!(placed.len(), 2, "the scheduler spreads: {placed:?}");
    // From one pod, by DNS and the Service, to pods on both nodes.
    let mut answered = BTreeSet::new();
    wait("all four pods to answer", TIMEOUT, || {
        let answer = cluster.kubectl("exec deploy/web -- /keelson hello get http://web/");
        answered.extend(answer.split_whitespace().nth(2).map(Into::<String>::into));
        (answered.len() == 4).then_some(())
    })
    .unwrap_or_else(|why| panic!("{why}; answered: {answered:?}"));
}
