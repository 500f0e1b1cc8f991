//! The hello world: a Deployment of two replicas behind a Service of type LoadBalancer.

use std::collections::BTreeSet;

use keelson_testbed::cluster::{Cluster, TIMEOUT, wait};

use super::{http_get, load_busybox, run_busybox, up};

const HELLO: &str = include_str!("../../../../demo/hello.yaml");

#[test]
fn hello_world_is_reached_by_every_way() {
    let cluster = up();
    reach_by_every_way(&cluster);
}

#[test]
fn hello_world_on_containerd() {
    let cluster = Cluster::up(env!("CARGO_BIN_EXE_keelson"), &["--container-runtime", "containerd"]);
    let version = cluster.kubectl("get nodes -o jsonpath={.items[0].status.nodeInfo.containerRuntimeVersion}");
    assert!(version.starts_with("containerd://"), "{version}");
    reach_by_every_way(&cluster);
}

fn reach_by_every_way(cluster: &Cluster) {
    let profile = cluster.profile();
    assert_eq!(cluster.apply(HELLO), "deployment.apps/hello created\nservice/hello created\n");
    cluster.kubectl("rollout status deployment/hello --timeout=60s");
    let ip = cluster.wait_for("get service hello -o jsonpath={.status.loadBalancer.ingress[0].ip}", |ip| {
        ip.starts_with("127.0.0.")
    });

    let all = cluster.kubectl("get all");
    for shape in [
        r"NAME                         READY   STATUS    RESTARTS   AGE",
        r"NAME                 TYPE           CLUSTER-IP",
        r"NAME                    READY   UP-TO-DATE   AVAILABLE   AGE",
        r"deployment.apps/hello   2/2     2            2",
        r"NAME                               DESIRED   CURRENT   READY   AGE",
        "service/kubernetes   ClusterIP      10.96.0.1",
    ] {
        assert!(all.contains(shape), "{shape:?} is not in:\n{all}");
    }
    let service = all.lines().find(|line| line.starts_with("service/hello ")).expect("a line for the service");
    let fields: Vec<&str> = service.split_whitespace().collect();
    assert_eq!((fields[1], fields[3]), ("LoadBalancer", ip.as_str()), "{service}");
    let node_port = fields[4].strip_prefix("80:").and_then(|p| p.strip_suffix("/TCP")).expect("80:PORT/TCP");

    reach_both("the machine's loopback", || http_get((&ip, 80), "/"));
    load_busybox(cluster);
    run_busybox(cluster, "shell");
    let node = cluster.kubectl(&format!("get node {profile} -o jsonpath={{.status.addresses[0].address}}"));
    for url in [
        format!("http://{}/", fields[2]),
        "http://hello/".to_string(),
        "http://hello.default.svc.cluster.local/".to_string(),
        format!("http://{node}:{node_port}/"),
    ] {
        reach_both(&url, || {
            let output = cluster.try_kubectl(&format!("exec shell -- wget -q -O - {url}"));
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        });
    }
    let names = cluster.kubectl("exec shell -- nslookup hello.default.svc.cluster.local");
    assert!(names.contains(fields[2]), "{names}");
    let hosts = cluster.kubectl("exec shell -- cat /etc/resolv.conf");
    assert!(hosts.contains("search default.svc.cluster.local svc.cluster.local cluster.local"), "{hosts}");
    assert!(hosts.contains("nameserver 10.96.0.10") && hosts.contains("ndots:5"), "{hosts}");
}

/// Asks until both replicas have answered.
fn reach_both(what: &str, mut get: impl FnMut() -> Option<String>) {
    let mut pods = BTreeSet::new();
    wait(&format!("two pods to answer by {what}"), TIMEOUT, || {
        let answer = get()?;
        let pod = answer.split("Hello from ").nth(1)?.split_whitespace().next()?;
        pods.insert(pod.to_owned());
        (pods.len() == 2).then_some(())
    })
    .unwrap_or_else(|why| panic!("{why}; answered: {pods:?}"));
}
