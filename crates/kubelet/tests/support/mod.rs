//! A real API server, Debian's containerd and a kubelet, each in directories of its own; dropped, everything is gone.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod, ServiceAccount};
use keelson_apiserver::{ApiServer, Config, Identity, KubeletClient, Pem, ServiceAccountKeys, UserInfo};
use keelson_store::{LocalStore, Options};
use keelson_testbed::image;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tokio_util::sync::CancellationToken;

/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The image of test pods: busybox.
pub const IMAGE: &str = "keelson.test/busybox:1";
const PAUSE: &str = "keelson.test/pause:1";
pub const NODE: &str = "node-1";

/// Debian's containerd with a state of its own.
pub struct Containerd {
    process: Child,
    dir: PathBuf,
    pub socket: PathBuf,
}

impl Containerd {
    pub fn start(dir: &Path) -> Containerd {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        for program in ["containerd", "runc", "ctr", "busybox", "nsenter"] {
            let found =
                ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|dir| Path::new(dir).join(program).exists());
            assert!(found, "{program} is missing: apt-get install containerd runc busybox-static util-linux");
        }
        let dir = dir.join("containerd");
        let cni = dir.join("cni");
        fs::create_dir_all(cni.join("bin")).unwrap();
        fs::create_dir_all(cni.join("net.d")).unwrap();
        let plugin =
            format!("#!/bin/sh\n{}", include_str!("cni.sh").replace("@COUNTER@", &cni.join("next").to_string_lossy()));
        for name in ["loopback", "keelson-test"] {
            let path = cni.join("bin").join(name);
            fs::write(&path, &plugin).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(
            cni.join("net.d/10-test.conflist"),
            r#"{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"keelson-test"}]}"#,
        )
        .unwrap();
        let socket = dir.join("containerd.sock");
        let config = format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{dir}/cni/bin"
    conf_dir = "{dir}/cni/net.d"
"#,
            dir = dir.display(),
            socket = socket.display(),
        );
        let file = dir.join("config.toml");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        // The same tests for our own runtime: the variable names the `keelson-runtime` program.
        if let Some(exe) = std::env::var_os("KEELSON_TEST_RUNTIME") {
            return Self::start_ours(dir, Path::new(&exe));
        }
        let process = Command::new("containerd")
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        let containerd = Containerd { process, dir: dir.clone(), socket };
        containerd.wait();
        let busybox = image::busybox(IMAGE).unwrap();
        let pause = image::busybox(PAUSE).unwrap().cmd(&["sleep", "1000000"]);
        for (name, image) in [("busybox", busybox), ("pause", pause)] {
            let archive = dir.join(format!("{name}.tar"));
            image.write_archive(&archive).unwrap();
            let done = containerd.ctr(&["images", "import", archive.to_str().unwrap()]);
            assert!(done.status.success(), "{done:?}");
        }
        containerd
    }

    /// The `keelson-runtime` program in place of containerd.
    fn start_ours(dir: PathBuf, exe: &Path) -> Containerd {
        let cni = dir.join("cni");
        fs::rename(cni.join("net.d"), dir.join("net.d")).unwrap();
        fs::rename(cni.join("bin/keelson-test"), cni.join("keelson-test")).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let process = Command::new(exe).arg("serve").arg(&dir).stderr(log).spawn().expect("the runtime starts");
        let runtime = Containerd { process, dir: dir.clone(), socket: dir.join("runtime.sock") };
        runtime.wait();
        let archive = dir.join("busybox.tar");
        image::busybox(IMAGE).unwrap().write_archive(&archive).unwrap();
        let socket = runtime.socket.clone();
        block_on(async move { keelson_runtime::client::import_images(&socket, &archive).await.map(drop) }).unwrap();
        runtime
    }

    fn wait(&self) {
        let until = std::time::Instant::now() + DEADLINE;
        while std::os::unix::net::UnixStream::connect(&self.socket).is_err() {
            assert!(std::time::Instant::now() < until, "the runtime does not listen");
            std::thread::yield_now();
        }
    }

    /// Names of all containers the runtime has, running or not.
    pub async fn containers(&self) -> Vec<String> {
        let mut client = keelson_cri::connect(&self.socket.to_string_lossy()).unwrap().runtime;
        let all = client.list_containers(keelson_cri::v1::ListContainersRequest::default()).await.unwrap();
        all.into_inner().containers.into_iter().filter_map(|container| Some(container.metadata?.name)).collect()
    }

    pub fn ctr(&self, arguments: &[&str]) -> std::process::Output {
        Command::new("ctr")
            .args(["--address", self.socket.to_str().unwrap(), "--namespace", "k8s.io"])
            .args(arguments)
            .output()
            .unwrap()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // What a failed test left running, network namespaces included.
        let socket = self.socket.to_string_lossy().into_owned();
        block_on(async move {
            let mut client = keelson_cri::connect(&socket).unwrap().runtime;
            let all = keelson_cri::v1::ListPodSandboxRequest::default();
            let Ok(sandboxes) = client.list_pod_sandbox(all).await else { return };
            for sandbox in sandboxes.into_inner().items {
                let pod_sandbox_id = sandbox.id;
                let stop = keelson_cri::v1::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
                let _ = client.stop_pod_sandbox(stop).await;
                let remove = keelson_cri::v1::RemovePodSandboxRequest { pod_sandbox_id };
                let _ = client.remove_pod_sandbox(remove).await;
            }
        });
        let _ = self.process.kill();
        let _ = self.process.wait();
        for point in mounts_below(&self.dir) {
            let _ = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Runs a future on a thread and a runtime of its own, also from within another.
fn block_on<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    });
    thread.join().unwrap()
}

/// Mount points below `dir`, deepest first.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(dir)).collect();
    points.reverse();
    points
}

struct Pki {
    ca: Issuer<'static, KeyPair>,
    pem: String,
}

impl Pki {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "test-ca");
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        Pki { ca: Issuer::new(parameters, key), pem }
    }

    fn issue(&self, name: &str, group: Option<&str>) -> (String, String) {
        let mut parameters = CertificateParams::new(vec!["localhost".into()]).unwrap();
        parameters.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        parameters.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        let key = KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.ca).unwrap().pem(), key.serialize_pem())
    }

    fn identity(&self, name: &str, group: Option<&str>) -> Identity {
        let (certificate, key) = self.issue(name, group);
        Identity { certificate: certificate.into(), key: key.into() }
    }
}

/// Everything.
pub struct Cluster {
    pub server: ApiServer,
    pub address: SocketAddr,
    pub containerd: Option<Containerd>,
    pki: Pki,
    dir: Option<tempfile::TempDir>,
    cgroup: String,
    serving: CancellationToken,
    kubelet: Option<(CancellationToken, tokio::task::JoinHandle<Result<(), keelson_kubelet::Error>>)>,
    adjust: Box<dyn Fn(&mut keelson_kubelet::Config) + Send + Sync>,
}

impl Cluster {
    pub async fn start(name: &str) -> Cluster {
        Cluster::start_with(name, |_| {}).await
    }

    /// With a kubelet that is configured by `adjust` in the end.
    pub async fn start_with(
        name: &str,
        adjust: impl Fn(&mut keelson_kubelet::Config) + Send + Sync + 'static,
    ) -> Cluster {
        let dir = tempfile::Builder::new().prefix(&format!("kl-test-{name}-")).tempdir().unwrap();
        let pki = Pki::new();
        let store = Arc::new(LocalStore::open(&dir.path().join("store"), Options::default()).unwrap());
        let signing = KeyPair::generate().unwrap();
        let config = Config {
            serving: Some(pki.identity("kube-apiserver", None)),
            client_ca: Some(Pem::Inline(pki.pem.clone().into_bytes())),
            service_account: Some(ServiceAccountKeys::new(
                signing.serialize_pem().into(),
                vec![signing.public_key_pem().into()],
                "https://kubernetes.default.svc.cluster.local",
            )),
            kubelet: Some(KubeletClient {
                identity: pki.identity("kube-apiserver-kubelet-client", None),
                ca: Pem::Inline(pki.pem.clone().into_bytes()),
            }),
            ..Config::default()
        };
        let server = ApiServer::new(config, store).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = CancellationToken::new();
        let (own, until) = (server.clone(), serving.clone());
        tokio::spawn(async move { own.serve(listener, until).await });
        let containerd = {
            let dir = dir.path().to_path_buf();
            tokio::task::spawn_blocking(move || Containerd::start(&dir)).await.unwrap()
        };
        let cgroup = format!("/keelson-test-kubelet/{name}-{}", std::process::id());
        let mut cluster = Cluster {
            server,
            address,
            containerd: Some(containerd),
            pki,
            dir: Some(dir),
            cgroup,
            serving,
            kubelet: None,
            adjust: Box::new(adjust),
        };
        // What the ServiceAccount controller does in a whole cluster.
        let accounts = Api::<ServiceAccount>::namespaced(cluster.admin(), "default");
        let account = serde_json::from_value(serde_json::json!({"metadata": {"name": "default"}})).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let maps = Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(cluster.admin(), "default");
        let root = serde_json::json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": cluster.pki.pem}});
        maps.create(&PostParams::default(), &serde_json::from_value(root).unwrap()).await.unwrap();
        let _ = Api::<Namespace>::all(cluster.admin()).get("kube-node-lease").await.unwrap();
        cluster.start_kubelet();
        let nodes = Api::<Node>::all(cluster.admin());
        eventually("the node is ready", async || {
            let node = nodes.get_opt(NODE).await.unwrap()?;
            let conditions = node.status?.conditions?;
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True").then_some(())
        })
        .await;
        // The node life-cycle controller would take this taint off.
        cluster
    }

    pub fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// The parent of `kubepods`.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    pub fn admin(&self) -> Client {
        self.server.kube_client(UserInfo::new("admin", ["system:masters"]))
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin(), "default")
    }

    /// A client over TLS, for what needs a connection of its own.
    pub async fn remote(&self) -> Client {
        let (certificate, key) = self.pki.issue("admin", Some("system:masters"));
        let encode = |text: &str| {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.encode(text)
        };
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("https://{}", self.address),
                "certificate-authority-data": encode(&self.pki.pem)}}],
            "users": [{"name": "u", "user": {"client-certificate-data": encode(&certificate),
                "client-key-data": encode(&key)}}],
        });
        fs::write(self.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        keelson_client::connect::from_kubeconfig(&self.path().join("kubeconfig"), None).await.unwrap()
    }

    pub fn start_kubelet(&mut self) {
        let dir = self.path().to_path_buf();
        let mut config = keelson_kubelet::Config::new(NODE, IpAddr::V4(Ipv4Addr::LOCALHOST));
        config.container_runtime_endpoint = format!("unix://{}", self.containerd.as_ref().unwrap().socket.display());
        config.root_dir = dir.join("kubelet");
        config.pod_logs_dir = dir.join("logs/pods");
        config.container_logs_dir = dir.join("logs/containers");
        config.cgroup_root = self.cgroup.clone();
        config.address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        config.port = 0;
        config.healthz_port = 0;
        // This machine's disk may be as full as it likes.
        config.eviction_hard.clear();
        config.image_gc_high_threshold_percent = 100;
        config.container_log_max_size_bytes = 64 << 10;
        config.container_log_monitor_interval = Duration::from_millis(200);
        let write = |name: &str, content: &str| {
            let path = dir.join(name);
            fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
            path
        };
        let (certificate, key) = self.pki.issue("system:node:node-1", Some("system:nodes"));
        config.tls_cert_file = Some(write("kubelet.crt", &certificate));
        config.tls_private_key_file = Some(write("kubelet.key", &key));
        config.client_ca_file = Some(write("ca.crt", &self.pki.pem));
        (self.adjust)(&mut config);
        let client = self.server.kube_client(UserInfo::new("system:node:node-1", ["system:nodes"]));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(keelson_kubelet::run(client, config, shutdown.clone()));
        self.kubelet = Some((shutdown, task));
    }

    /// Stops the kubelet as `kill -9` does: nothing is said or written any more.
    pub async fn kill_kubelet(&mut self) {
        if let Some((shutdown, task)) = self.kubelet.take() {
            task.abort();
            let _ = task.await;
            shutdown.cancel();
        }
    }

    /// Signs all CertificateSigningRequests that are open, as an administrator and the signing controller do. With
    /// `old`, certificates whose time is almost over. Gives how many there were.
    pub async fn sign_requests(&self, old: bool) -> usize {
        use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
        let api = Api::<CertificateSigningRequest>::all(self.admin());
        let mut signed = 0;
        for mut request in api.list(&ListParams::default()).await.unwrap() {
            if request.status.as_ref().is_some_and(|status| status.certificate.is_some()) {
                continue;
            }
            let text = String::from_utf8(request.spec.request.0.clone()).unwrap();
            let mut wanted = rcgen::CertificateSigningRequestParams::from_pem(&text).unwrap();
            let now = std::time::SystemTime::now();
            wanted.params.not_before = (now - Duration::from_secs(if old { 3600 } else { 60 })).into();
            wanted.params.not_after = (now + Duration::from_secs(if old { 120 } else { 86_400 })).into();
            let certificate = wanted.signed_by(&self.pki.ca).unwrap().pem();
            let name = request.metadata.name.clone().unwrap();
            request.status.get_or_insert_default().conditions =
                serde_json::from_value(serde_json::json!([{"type": "Approved", "status": "True", "reason": "Test",
                    "message": "", "lastUpdateTime": null, "lastTransitionTime": null}]))
                .unwrap();
            let approved: CertificateSigningRequest =
                api.replace_subresource("approval", &name, &PostParams::default(), &request).await.unwrap();
            let mut approved = approved;
            approved.status.get_or_insert_default().certificate =
                Some(k8s_openapi::ByteString(certificate.into_bytes()));
            let _: CertificateSigningRequest =
                api.replace_status(&name, &PostParams::default(), &approved).await.unwrap();
            signed += 1;
        }
        signed
    }

    /// The serial number of the certificate that `address` serves; nothing when it has none.
    pub async fn serving_serial(&self, address: SocketAddr) -> Option<Vec<u8>> {
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(self.pki.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let name = rustls::pki_types::ServerName::from(address.ip());
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        let certificate = stream.get_ref().1.peer_certificates()?.first()?.clone();
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        Some(parsed.raw_serial().to_vec())
    }

    pub async fn create(&self, pod: serde_json::Value) -> Pod {
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        pod.spec.as_mut().unwrap().node_name = Some(NODE.into());
        self.pods().create(&PostParams::default(), &pod).await.unwrap()
    }

    /// Waits until `test` gives something for the pod.
    pub async fn until<T>(&self, name: &str, what: &str, test: impl Fn(&Pod) -> Option<T>) -> T {
        let pods = self.pods();
        let got = wait(async || test(&pods.get_opt(name).await.unwrap()?)).await;
        match got {
            Some(got) => got,
            None => {
                let pod = pods.get_opt(name).await.unwrap().map(|pod| pod.status);
                panic!(
                    "pod {name} is never {what}: {}\n{}",
                    serde_json::to_string_pretty(&pod).unwrap(),
                    self.events().await
                )
            }
        }
    }

    pub async fn until_running(&self, name: &str) -> Pod {
        self.until(name, "ready", |pod| condition(pod, "Ready").then(|| pod.clone())).await
    }

    pub async fn until_gone(&self, name: &str) {
        let pods = self.pods();
        eventually(&format!("pod {name} is gone"), async || pods.get_opt(name).await.unwrap().is_none().then_some(()))
            .await;
    }

    /// `reason: message` of all events, a line each.
    pub async fn events(&self) -> String {
        let events = Api::<Event>::all(self.admin()).list(&ListParams::default()).await.unwrap();
        let lines = events.items.iter().map(|event| {
            let name = event.involved_object.name.clone().unwrap_or_default();
            let (reason, message) =
                (event.reason.clone().unwrap_or_default(), event.message.clone().unwrap_or_default());
            format!("{name} {reason}: {message}")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Deletes all pods and checks that nothing is left of them on this machine.
    pub async fn finish(self) {
        self.finish_with_mounts(0).await;
    }

    /// The same where the test itself mounted `own` filesystems at the kubelet's directory.
    pub async fn finish_with_mounts(mut self, own: usize) {
        let pods = self.pods();
        for pod in pods.list(&ListParams::default()).await.unwrap() {
            let _ = pods.delete(&pod.metadata.name.unwrap(), &kube::api::DeleteParams::default().grace_period(1)).await;
        }
        eventually("all pods are gone", async || {
            pods.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
        })
        .await;
        let dir = self.path().to_path_buf();
        eventually("the pods' directories are gone", async || {
            let left = fs::read_dir(dir.join("kubelet/pods")).unwrap().count();
            (left == 0 && mounts_below(&dir.join("kubelet")).len() == own).then_some(())
        })
        .await;
        assert!(self.containerd.as_ref().unwrap().containers().await.is_empty(), "no container is left");
        assert_eq!(fs::read_dir(dir.join("logs/pods")).unwrap().count(), 0, "no log is left");
        self.kill_kubelet().await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.serving.cancel();
        if let Some((shutdown, task)) = self.kubelet.take() {
            shutdown.cancel();
            task.abort();
        }
        if std::thread::panicking()
            && let (Some(_), Some(dir)) = (&self.containerd, &self.dir)
        {
            let log = fs::read_to_string(dir.path().join("containerd/log")).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(10).collect();
            eprintln!("containerd said last:\n{}", end.join("\n"));
        }
        self.containerd = None;
        if let Some(dir) = &self.dir {
            for point in mounts_below(dir.path()) {
                let _ = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH);
            }
        }
        let parent = Path::new("keelson-test-kubelet");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_group(&hierarchy.path().join(self.cgroup.trim_start_matches('/')));
            // The last test to end takes the tests' own parent along.
            let _ = fs::remove_dir(hierarchy.path().join(parent));
        }
        remove_group(&Path::new("/sys/fs/cgroup").join(self.cgroup.trim_start_matches('/')));
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(parent));
    }
}

fn remove_group(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// Whether a condition is `True`.
pub fn condition(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// The status of the pod's container of this name.
pub fn container(pod: &Pod, name: &str) -> Option<k8s_openapi::api::core::v1::ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.init_container_statuses, &status.container_statuses];
    all.into_iter().flatten().flatten().find(|status| status.name == name).cloned()
}

async fn wait<T>(test: impl AsyncFn() -> Option<T>) -> Option<T> {
    let until = tokio::time::Instant::now() + DEADLINE;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    while tokio::time::Instant::now() < until {
        ticks.tick().await;
        if let Some(got) = test().await {
            return Some(got);
        }
    }
    None
}

/// Waits until `test` gives something.
pub async fn eventually<T>(what: &str, test: impl AsyncFn() -> Option<T>) -> T {
    wait(test).await.unwrap_or_else(|| panic!("in vain: {what}"))
}
