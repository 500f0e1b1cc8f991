//! What a pod may not see, use or do; and what a stranger may not ask.

use super::{BUSYBOX, run_busybox, up, up_with_busybox};

#[test]
fn pods_do_not_see_each_other() {
    let cluster = up_with_busybox();
    run_busybox(&cluster, "one");
    run_busybox(&cluster, "two");
    cluster.kubectl("exec one -- touch /mark");
    cluster.kubectl_fails("exec two -- ls /mark");
    let processes = cluster.kubectl("exec two -- ps");
    assert_eq!(processes.matches("sleep 3600").count(), 1, "{processes}");
    assert!(!processes.contains("keelson"), "{processes}");
    let (one, two) = (cluster.kubectl("exec one -- ip -4 -o addr"), cluster.kubectl("exec two -- ip -4 -o addr"));
    assert!(one.contains("eth0") && one != two, "{one}{two}");
    assert_eq!(cluster.kubectl("exec two -- hostname").trim(), "two");
}

#[test]
fn a_memory_limit_is_enforced() {
    let cluster = up_with_busybox();
    let overrides = r#"{"spec":{"containers":[{"name":"eater","image":"registry.test/busybox:1",
        "command":["sh","-c","x=a; while true; do x=$x$x; done"],
        "resources":{"limits":{"memory":"16Mi"}}}]}}"#;
    cluster.kubectl_args(&["run", "eater", "--image", BUSYBOX, "--restart", "Never", "--overrides", overrides]);
    let state = "get pod eater -o jsonpath={.status.containerStatuses[0].state.terminated}";
    let state = cluster.wait_for(state, |state| !state.is_empty());
    assert!(state.contains("\"reason\":\"OOMKilled\"") && state.contains("\"exitCode\":137"), "{state}");
    assert!(cluster.kubectl("get pod eater --no-headers").contains("OOMKilled"));
}

#[test]
fn permissions_end_at_the_namespace() {
    let cluster = up_with_busybox();
    for namespace in ["a", "b"] {
        cluster.kubectl(&format!("create namespace {namespace}"));
        cluster.kubectl(&format!("create configmap data --from-literal=x={namespace} -n {namespace}"));
    }
    cluster.kubectl("create role reader --verb get,list --resource configmaps -n a");
    cluster.kubectl("create rolebinding reader --role reader --serviceaccount a:default -n a");
    let token = cluster.kubectl("create token default -n a");
    let as_account =
        |args: &str| cluster.try_kubectl(&format!("--token {} --kubeconfig {} {args}", token.trim(), bare(&cluster)));
    let allowed = as_account("get configmap data -n a -o jsonpath={.data.x}");
    assert_eq!(String::from_utf8_lossy(&allowed.stdout), "a", "{allowed:?}");
    let denied = as_account("get configmap data -n b");
    let words = "configmaps \"data\" is forbidden: User \"system:serviceaccount:a:default\" cannot get resource \
                 \"configmaps\" in API group \"\" in the namespace \"b\"";
    assert!(String::from_utf8_lossy(&denied.stderr).contains(words), "{denied:?}");
    assert_eq!(cluster.kubectl("auth can-i list secrets -n a").trim(), "yes");
    let can = cluster.try_kubectl("auth can-i list secrets -n a --as system:serviceaccount:a:default");
    assert_eq!(String::from_utf8_lossy(&can.stdout).trim(), "no");

    // The same token is in a pod of that namespace.
    cluster.kubectl(&format!("run inside --image {BUSYBOX} -n a -- sleep 3600"));
    cluster.kubectl("wait --for=condition=Ready pod/inside -n a --timeout=60s");
    let dir = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(cluster.kubectl(&format!("exec -n a inside -- cat {dir}/namespace")), "a");
    assert!(cluster.kubectl(&format!("exec -n a inside -- cat {dir}/token")).starts_with("ey"));
}

#[test]
fn strangers_are_turned_away() {
    let cluster = up();
    let server = cluster.kubectl("config view --minify -o jsonpath={.clusters[0].cluster.server}");
    // kubectl would ask for a user name: curl stands in for a client without any credentials.
    let get = |path: &str, token: &str| {
        let header = if token.is_empty() { "Accept: */*".to_owned() } else { format!("Authorization: Bearer {token}") };
        let url = format!("{server}{path}");
        let arguments =
            ["--silent", "--insecure", "--max-time", "10", "--write-out", " %{http_code}", "--header", &header, &url];
        let output = std::process::Command::new("curl").args(arguments).output().expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(get("/readyz", ""), "ok 200");
    assert!(get("/version", "").contains("v1.35"));
    for (path, token, code, words) in [
        ("/api/v1/pods", "", " 403", r#"pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\""#),
        ("/no/such/path", "", " 403", r#"forbidden: User \"system:anonymous\" cannot get path \"/no/such/path\""#),
        ("/api/v1/pods", "nonsense", " 401", "Unauthorized"),
        ("/no/such/path", "nonsense", " 401", "Unauthorized"),
    ] {
        let answer = get(path, token);
        assert!(answer.ends_with(code) && answer.contains(words), "{path} {token}: {answer}");
    }
}

/// A kubeconfig that knows where the cluster is, and nothing of who asks.
pub(super) fn bare(cluster: &keelson_testbed::cluster::Cluster) -> String {
    let path = cluster.path("bare");
    let server = cluster.kubectl("config view --minify -o jsonpath={.clusters[0].cluster.server}");
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         users: [{{name: u, user: {{}}}}]\nclusters: [{{name: c, cluster: {{server: \"{server}\", insecure-skip-tls-verify: true}}}}]\n"
    );
    std::fs::write(&path, config).expect("writing a kubeconfig");
    path.to_str().expect("UTF-8").to_owned()
}
