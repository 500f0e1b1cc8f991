//! What a node's configuration, kernel and API do, on a real node.

mod support;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, LogParams, PostParams};
use serde_json::json;
use support::{Cluster, IMAGE, NODE, container, eventually};

async fn until_failed(cluster: &Cluster, pod: &str) -> (String, String) {
    let status = cluster
        .until(pod, "refused", |pod: &Pod| {
            pod.status.clone().filter(|status| status.phase.as_deref() == Some("Failed"))
        })
        .await;
    (status.reason.unwrap_or_default(), status.message.unwrap_or_default())
}

/// Asks the kubelet through the API server.
async fn get(cluster: &Cluster, path: &str) -> Result<String, kube::Error> {
    let request = http::Request::get(format!("/api/v1/nodes/{NODE}/proxy{path}")).body(Vec::new()).unwrap();
    cluster.admin().request_text(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_is_vetted() {
    let cluster = Cluster::start_with("secure", |config| {
        config.allowed_unsafe_sysctls = vec!["kernel.msg*".into()];
    })
    .await;
    let pod = |name: &str, context: serde_json::Value, script: &str| {
        json!({"metadata": {"name": name}, "spec": {"restartPolicy": "Never", "securityContext": context,
            "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", script]}]}})
    };
    let sysctls = |list: &[(&str, &str)]| {
        let list: Vec<_> = list.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        json!({ "sysctls": list })
    };
    cluster.create(pod("unsafe", sysctls(&[("kernel.sem", "1 2 3 4")]), "true")).await;
    let (reason, message) = until_failed(&cluster, "unsafe").await;
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("SysctlForbidden", "Pod was rejected: forbidden sysctl: \"kernel.sem\" not allowlisted")
    );
    let allowed = sysctls(&[("kernel.msgmax", "12345"), ("kernel.shm_rmid_forced", "1")]);
    cluster.create(pod("allowed", allowed, "cat /proc/sys/kernel/msgmax /proc/sys/kernel/shm_rmid_forced")).await;
    if !std::path::Path::new("/sys/module/apparmor/parameters/enabled").exists() {
        cluster.create(pod("armored", json!({"appArmorProfile": {"type": "RuntimeDefault"}}), "true")).await;
        let refused = until_failed(&cluster, "armored").await;
        assert_eq!(refused.1, "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host");
    }
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        cluster.create(pod("labelled", json!({"seLinuxOptions": {"level": "s0:c1"}}), "true")).await;
        assert_eq!(until_failed(&cluster, "labelled").await.0, "SELinux");
    }
    cluster.create(pod("root", json!({"runAsNonRoot": true}), "true")).await;
    let waiting = cluster
        .until("root", "refused", |pod| {
            container(pod, "c")?
                .state?
                .waiting
                .filter(|waiting| waiting.reason.as_deref() == Some("CreateContainerConfigError"))
        })
        .await;
    assert!(waiting.message.unwrap().starts_with("container has runAsNonRoot and image will run as root"));
    cluster.until("allowed", "done", |pod| (pod.status.as_ref()?.phase.as_deref()? == "Succeeded").then_some(())).await;
    assert_eq!(cluster.pods().logs("allowed", &LogParams::default()).await.unwrap(), "12345\n1\n");
    let events = cluster.events().await;
    assert!(events.contains("unsafe SysctlForbidden: forbidden sysctl"), "{events}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_of_all_sorts() {
    let cluster = Cluster::start("volumes").await;
    let maps = Api::<ConfigMap>::namespaced(cluster.admin(), "default");
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "1", "b": "2"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    cluster
        .create(json!({"metadata": {"name": "user"}, "spec": {"restartPolicy": "Never",
            "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
            "volumes": [
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "disk", "emptyDir": {}},
                {"name": "map", "configMap": {"name": "m", "defaultMode": 0o400, "items": [{"key": "b", "path": "deep/er", "mode": 0o440}]}},
                {"name": "gone", "configMap": {"name": "absent", "optional": true}}],
            "containers": [{"name": "c", "image": IMAGE, "env": [{"name": "DIR", "value": "own"}],
                "command": ["sh", "-c", "stat -c '%a %g' /memory /disk; head -c 2000000 /dev/zero > /memory/x 2>/dev/null || echo full; echo y > /sub/y && cat /disk/own/y; stat -Lc '%a %g' /map/deep/er; cat /map/deep/er; ls /gone | wc -l"],
                "volumeMounts": [{"name": "memory", "mountPath": "/memory"}, {"name": "disk", "mountPath": "/disk"},
                    {"name": "disk", "mountPath": "/sub", "subPathExpr": "$(DIR)"}, {"name": "map", "mountPath": "/map"},
                    {"name": "gone", "mountPath": "/gone"}]}]}}))
        .await;
    cluster.until("user", "done", |pod| (pod.status.as_ref()?.phase.as_deref()? == "Succeeded").then_some(())).await;
    let log = cluster.pods().logs("user", &LogParams::default()).await.unwrap();
    assert_eq!(log, "2777 2000\n2777 2000\nfull\ny\n440 2000\n20\n");
    cluster
        .create(json!({"metadata": {"name": "vague"}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "image": IMAGE, "volumeMounts": [
                {"name": "v", "mountPath": "/v", "subPathExpr": "$(NOBODY)"}]}]}}))
        .await;
    let message = cluster
        .until("vague", "refused", |pod| {
            let waiting = container(pod, "c")?.state?.waiting?;
            (waiting.reason.as_deref() == Some("CreateContainerConfigError")).then_some(waiting.message?)
        })
        .await;
    assert_eq!(
        message,
        "failed to expand subPath for volumeMount \"v\" of container \"c\": missing value for \"NOBODY\""
    );
    cluster
        .create(json!({"metadata": {"name": "git"}, "spec": {"volumes": [
            {"name": "v", "gitRepo": {"repository": "https://keelson.invalid/x"}}],
            "containers": [{"name": "c", "image": IMAGE}]}}))
        .await;
    eventually("git is refused", async || {
        cluster
            .events()
            .await
            .contains(
                "git FailedMount: MountVolume.SetUp failed for volume \"v\" : git-repo volume plugin has been disabled",
            )
            .then_some(())
    })
    .await;
    for name in ["vague", "git"] {
        cluster.pods().delete(name, &DeleteParams::default()).await.unwrap();
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_shows_configuration_and_logs() {
    let cluster = Cluster::start_with("api", |config| {
        config.max_pods = 42;
        config.feature_gates.insert("NodeLogQuery".into(), true);
        config.enable_system_log_query = true;
        config.system_log_dir = config.root_dir.with_file_name("system-logs");
        std::fs::create_dir_all(&config.system_log_dir).unwrap();
        std::fs::write(config.system_log_dir.join("thing.log"), "it said\n").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", config.system_log_dir.join("leak")).unwrap();
    })
    .await;
    let configz: serde_json::Value = serde_json::from_str(&get(&cluster, "/configz").await.unwrap()).unwrap();
    assert_eq!(configz.pointer("/kubeletconfig/maxPods"), Some(&json!(42)));
    assert_eq!(configz.pointer("/kubeletconfig/kind"), Some(&json!("KubeletConfiguration")));
    assert_eq!(get(&cluster, "/healthz").await.unwrap(), "ok");
    assert_eq!(get(&cluster, "/healthz/syncloop").await.unwrap(), "ok");
    assert!(get(&cluster, "/logs/").await.unwrap().contains("<a href=\"thing.log\">thing.log</a>"));
    assert_eq!(get(&cluster, "/logs/thing.log").await.unwrap(), "it said\n");
    assert_eq!(get(&cluster, "/logs/?query=thing").await.unwrap(), "it said\n");
    assert!(get(&cluster, "/logs/leak").await.is_err());
    assert!(get(&cluster, "/logs/?query=a;b").await.is_err());
    cluster
        .create(json!({"metadata": {"name": "runs"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "c", "image": IMAGE, "command": ["sleep", "1000"]}]}}))
        .await;
    cluster.until_running("runs").await;
    let running: serde_json::Value = serde_json::from_str(&get(&cluster, "/runningpods/").await.unwrap()).unwrap();
    assert_eq!(running.pointer("/items/0/metadata/name"), Some(&json!("runs")));
    assert_eq!(running.pointer("/items/0/spec/containers/0/name"), Some(&json!("c")));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_serving_certificate_comes_by_request_and_is_replaced() {
    let cluster = Cluster::start_with("csr", |config| config.server_tls_bootstrap = true).await;
    let node = Api::<Node>::all(cluster.admin()).get(NODE).await.unwrap();
    let port = node.status.unwrap().daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port;
    let address = ([127, 0, 0, 1], u16::try_from(port).unwrap()).into();
    eventually("a request", async || (cluster.sign_requests(true).await == 1).then_some(())).await;
    let first = eventually("the first certificate", async || cluster.serving_serial(address).await).await;
    // It is almost over: the next is asked for at once.
    eventually("another request", async || (cluster.sign_requests(false).await == 1).then_some(())).await;
    eventually("the next certificate", async || {
        cluster.serving_serial(address).await.filter(|serial| *serial != first)
    })
    .await;
    assert_eq!(get(&cluster, "/healthz").await.unwrap(), "ok", "the API server trusts it");
    cluster.finish().await;
}

/// TLS bootstrap from somebody else's kubeconfig, and rotation under a client in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_certificate_comes_by_request_and_is_replaced() {
    use k8s_openapi::api::authentication::v1::SelfSubjectReview;
    let cluster = Cluster::start("bootstrap").await;
    cluster.remote().await;
    let certificate = keelson_kubelet::certificates::ClientCertificate {
        kubeconfig: cluster.path().join("kubelet.kubeconfig"),
        cert_dir: cluster.path().join("certs"),
        node_name: "node-2".into(),
    };
    let (own, first) = (certificate.clone(), cluster.path().join("kubeconfig"));
    let bootstrap = tokio::spawn(async move { own.bootstrap(&first).await });
    eventually("a request", async || (cluster.sign_requests(true).await == 1).then_some(())).await;
    bootstrap.await.unwrap().unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let link = certificate.cert_dir.join("kubelet-client-current.pem");
    let old = std::fs::read_link(&link).unwrap();
    let client = certificate.rotating(shutdown.clone()).await.unwrap();
    let whoami = async || {
        let review = Api::<SelfSubjectReview>::all(client.clone());
        let made = review.create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
        made.status.unwrap().user_info.unwrap().username.unwrap()
    };
    assert_eq!(whoami().await, "system:node:node-2");
    eventually("another request", async || (cluster.sign_requests(false).await == 1).then_some(())).await;
    eventually("the next certificate", async || (std::fs::read_link(&link).ok()? != old).then_some(())).await;
    assert_eq!(whoami().await, "system:node:node-2");
    shutdown.cancel();
    cluster.finish().await;
}
