//! A runtime of its own for each test: its process, directories, control groups; everything is gone when it is dropped.

#![allow(unreachable_pub, dead_code, reason = "each test binary uses its part")]

pub mod fuse;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use keelson_cri::{Clients, v1::*};

pub const BUSYBOX: &str = "keelson.local/busybox";
const CGROUPS: &str = "/sys/fs/cgroup";

pub struct World {
    pub dir: tempfile::TempDir,
    pub clients: Clients,
    pub cgroup: String,
    server: Option<Child>,
    attempts: u32,
}

/// What a test's container should be like.
#[derive(Default)]
pub struct Spec {
    pub command: Vec<String>,
    pub config: ContainerConfig,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("keelson-rt-").tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        for sub in ["images", "net.d", "cni", "logs", "steps", "addresses"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        // Compressing takes longer than all else here, and more so on an emulated processor.
        let image = keelson_testbed::image::busybox("keelson.local/busybox:latest").unwrap();
        let image = image.compression(keelson_testbed::image::Compression::None);
        image.write_layout(&dir.path().join("images/busybox")).unwrap();
        write_cni(dir.path());
        let clients = keelson_cri::connect(dir.path().join("runtime.sock").to_str().unwrap()).unwrap();
        let mut world =
            Self { dir, clients, cgroup: format!("/keelson-test-runtime-{name}"), server: None, attempts: 0 };
        world.start().await;
        world
    }

    /// Debian's containerd in place of our runtime, with busybox and a pause image.
    pub async fn containerd() -> Self {
        let dir = tempfile::Builder::new().prefix("keelson-cd-").tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        for sub in ["net.d", "cni", "logs", "addresses"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        write_cni(dir.path());
        let config = dir.path().join("config.toml");
        std::fs::write(&config, containerd_config(dir.path())).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("/usr/bin/containerd")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let socket = dir.path().join("containerd/containerd.sock");
        let clients = keelson_cri::connect(socket.to_str().unwrap()).unwrap();
        let mut world =
            Self { clients, cgroup: format!("/keelson-test-runtime-{name}"), server: Some(child), attempts: 0, dir };
        let deadline = Instant::now() + Duration::from_secs(60);
        while world.clients.runtime.version(VersionRequest::default()).await.is_err() {
            assert!(Instant::now() < deadline, "containerd does not answer: {}", world.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for (name, entry) in [("keelson.local/busybox:latest", "/bin/sh"), ("keelson.local/pause:1", "/bin/pause")] {
            let archive = world.dir.path().join("image.tar");
            let pause =
                keelson_testbed::image::Layer::new().file("bin/pause", 0o755, "#!/bin/sh\nexec sleep 2147483647\n");
            let image = keelson_testbed::image::busybox(name).unwrap().layer(pause).entrypoint(&[entry]);
            image.write_docker_archive(&archive).unwrap();
            let mut import = Command::new("/usr/bin/ctr");
            import.arg("--address").arg(&socket).args(["-n", "k8s.io", "images", "import"]).arg(&archive);
            let output = import.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            // It announces nothing, and shows images to CRI when it comes to it.
            let image = Some(ImageSpec { image: name.into(), ..Default::default() });
            let request = ImageStatusRequest { image, verbose: false };
            while world.clients.image.image_status(request.clone()).await.unwrap().into_inner().image.is_none() {
                assert!(Instant::now() < deadline, "no {name}: {}", world.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        world
    }

    /// Starts the server and waits until it answers.
    pub async fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_keelson-runtime"))
            .arg("serve")
            .arg(self.dir.path())
            .env("KEELSON_TEST_STEPS", self.dir.path().join("steps"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.clients.runtime.version(VersionRequest::default()).await.is_err() {
            assert!(Instant::now() < deadline, "the runtime does not answer: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills the server as a crash would.
    pub fn kill_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Starts the server again if it was killed; whether it was.
    pub async fn revive(&mut self) -> bool {
        let dead = self.server.as_mut().is_some_and(|server| server.try_wait().unwrap().is_some());
        if dead {
            self.start().await;
        }
        dead
    }

    pub fn server_pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A file of a container's control group, or of the pods' with an empty `id`: `v1` under `controller`, or `v2`.
    pub fn group_file(&self, id: &str, controller: &str, v1: &str, v2: &str) -> PathBuf {
        let group = self.cgroup.trim_start_matches('/');
        if is_unified() {
            Path::new(CGROUPS).join(group).join(id).join(v2)
        } else {
            Path::new(CGROUPS).join(controller).join(group).join(id).join(v1)
        }
    }

    /// The pods' group under `controller`, which a kubelet would make.
    pub fn make_pods_group(&self, controller: &str) -> PathBuf {
        let group = self.group_file("", controller, "", "");
        std::fs::create_dir_all(&group).unwrap();
        if is_unified() {
            std::fs::write(Path::new(CGROUPS).join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
        }
        group
    }

    /// A container's processes, one a line; none once it is gone.
    pub fn processes(&self, id: &str) -> String {
        let file = self.group_file(id, "memory", "cgroup.procs", "cgroup.procs");
        std::fs::read_to_string(file).unwrap_or_default()
    }

    pub fn logs_dir(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    /// A pod's configuration; `change` makes it special.
    pub fn pod(&mut self, name: &str) -> PodSandboxConfig {
        self.attempts += 1;
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: self.attempts,
            }),
            hostname: name.into(),
            log_directory: self.logs_dir().to_str().unwrap().into(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".into()],
                searches: vec!["default.svc.cluster.local".into()],
                options: vec!["ndots:5".into()],
            }),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup.clone(),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container as i32,
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub async fn run_pod(&mut self, config: &PodSandboxConfig) -> String {
        self.run_pod_on(config, "").await
    }

    /// On the OCI runtime with this handler.
    pub async fn run_pod_on(&mut self, config: &PodSandboxConfig, handler: &str) -> String {
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
        match self.clients.runtime.run_pod_sandbox(request).await {
            Ok(response) => response.into_inner().pod_sandbox_id,
            Err(status) => panic!("run pod: {status}\n{}", self.log()),
        }
    }

    /// A container running `script` in busybox's shell.
    pub fn shell(&self, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: BUSYBOX.into(), ..Default::default() }),
            command: ["/bin/sh", "-c", script].map(String::from).to_vec(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig::default()),
            ..Default::default()
        }
    }

    pub async fn create(
        &mut self,
        sandbox: &str,
        pod: &PodSandboxConfig,
        config: ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(pod.clone()),
        };
        Ok(Box::pin(self.clients.runtime.create_container(request)).await?.into_inner().container_id)
    }

    pub async fn start_container(&mut self, id: &str) -> Result<(), tonic::Status> {
        self.clients.runtime.start_container(StartContainerRequest { container_id: id.into() }).await.map(drop)
    }

    pub async fn run(&mut self, sandbox: &str, pod: &PodSandboxConfig, config: ContainerConfig) -> String {
        let id = match Box::pin(self.create(sandbox, pod, config)).await {
            Ok(id) => id,
            Err(status) => panic!("create: {status}\n{}", self.log()),
        };
        if let Err(status) = self.start_container(&id).await {
            panic!("start: {status}\n{}", self.log());
        }
        id
    }

    pub async fn status(&mut self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        self.clients.runtime.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// Waits until the container has ended.
    pub async fn ended(&mut self, id: &str) -> ContainerStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.status(id).await;
            if status.state() == ContainerState::ContainerExited {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn exec(&mut self, id: &str, command: &[&str]) -> Result<ExecSyncResponse, tonic::Status> {
        let cmd = command.iter().map(|word| (*word).to_owned()).collect();
        let request = ExecSyncRequest { container_id: id.into(), cmd, timeout: 20 };
        Ok(self.clients.runtime.exec_sync(request).await?.into_inner())
    }

    /// A shell script's output inside the container.
    pub async fn sh(&mut self, id: &str, script: &str) -> String {
        let response = self.exec(id, &["/bin/sh", "-c", script]).await.unwrap();
        assert_eq!(response.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&response.stderr));
        String::from_utf8_lossy(&response.stdout).trim_end().to_owned()
    }

    /// Lines of a container's log without their times: `stdout F text`.
    pub fn container_log(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.logs_dir().join(file)).unwrap_or_default();
        text.lines().map(|line| line.split_once(' ').map_or("", |(_, rest)| rest).to_owned()).collect()
    }

    /// Waits until the container's log has this line.
    pub async fn logged(&self, file: &str, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.container_log(file).iter().any(|found| found == line) {
            assert!(Instant::now() < deadline, "no {line:?} in {:?}\n{}", self.container_log(file), self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Removes every pod and checks that nothing is left of them.
    pub async fn finish(mut self) {
        let pods = self.clients.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner();
        for pod in pods.items {
            let request = StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
            self.clients.runtime.stop_pod_sandbox(request).await.unwrap();
            let request = RemovePodSandboxRequest { pod_sandbox_id: pod.id };
            self.clients.runtime.remove_pod_sandbox(request).await.unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while !processes_of(self.dir.path(), self.server_pid()).is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let left = processes_of(self.dir.path(), self.server_pid());
        assert!(left.is_empty(), "processes are left: {left:?}");
        let mounts = mounts_below(self.dir.path());
        assert_eq!(mounts, [self.dir.path().join("state/keelson")], "only the shim's binary stays mounted");
        for dir in ["root/sandboxes", "root/containers", "state/sandboxes", "addresses"] {
            let left: Vec<_> =
                std::fs::read_dir(self.dir.path().join(dir)).unwrap().flatten().map(|e| e.path()).collect();
            assert!(left.is_empty(), "left: {left:?}");
        }
        for dir in cgroup_dirs(&self.cgroup) {
            let left: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().filter(|e| e.path().is_dir()).collect();
            assert!(left.is_empty(), "control groups are left: {left:?}");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_server();
        for dir in cgroup_dirs(&self.cgroup) {
            kill_groups_below(&dir);
        }
        for pid in processes_of(self.dir.path(), 0) {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid).unwrap(),
                rustix::process::Signal::KILL,
            );
        }
        for point in mounts_below(self.dir.path()).iter().rev() {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
        // Killed processes leave their groups a moment later.
        let deadline = Instant::now() + Duration::from_secs(5);
        while cgroup_dirs(&self.cgroup).iter().any(|dir| std::fs::remove_dir(dir).is_err()) && Instant::now() < deadline
        {
            cgroup_dirs(&self.cgroup).iter().for_each(|dir| kill_groups_below(dir));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A plugin that gives the pod an interface with a fixed address (a pair that stays inside the pod).
fn write_cni(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let script = r#"#!/bin/sh
cat > /dev/null
if [ $CNI_COMMAND = ADD ] && mv "@DIR@/steps/cni-adding" "@DIR@/steps/cni-adding.reached" 2>/dev/null; then
    kill -9 $(cat "@DIR@/steps/cni-adding.reached")
    sleep 0.5
fi
case $CNI_COMMAND in
DEL) rm -f "@DIR@/addresses/$CNI_CONTAINERID" ;;
ADD)
    touch "@DIR@/addresses/$CNI_CONTAINERID"
    nsenter --net="$CNI_NETNS" sh -c 'ip link add eth0 type veth peer name eth1 && ip link set eth1 up && ip addr add 10.99.0.2/24 dev eth0 && ip link set eth0 up' >&2 || exit 1
    echo '{"cniVersion":"1.0.0","ips":[{"address":"10.99.0.2/24"}]}' ;;
esac
"#;
    // What containerd wants to have for every pod.
    let loopback = "#!/bin/sh\ncat > /dev/null\n[ $CNI_COMMAND = ADD ] || exit 0\n\
        nsenter --net=\"$CNI_NETNS\" ip link set lo up >&2 || exit 1\necho '{\"cniVersion\":\"1.0.0\"}'\n";
    for (name, script) in [("dummy", script), ("loopback", loopback)] {
        let path = dir.join("cni").join(name);
        std::fs::write(&path, script.replace("@DIR@", dir.to_str().unwrap())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let conflist = r#"{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"dummy"}]}"#;
    std::fs::write(dir.join("net.d/10-test.conflist"), conflist).unwrap();
}

fn containerd_config(dir: &Path) -> String {
    let path = |name: &str| dir.join(name);
    format!(
        r#"version = 2
root = {root:?}
state = {state:?}
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart"]
[grpc]
  address = {socket:?}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "keelson.local/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {bin:?}
    conf_dir = {conf:?}
"#,
        root = path("containerd-root"),
        state = path("containerd"),
        socket = path("containerd/containerd.sock"),
        bin = path("cni"),
        conf = path("net.d"),
    )
}

/// Processes whose command line names `dir`, except one.
pub fn processes_of(dir: &Path, except: u32) -> Vec<i32> {
    let needle = dir.to_str().unwrap().as_bytes();
    let names = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(needle.len()).any(|window| window == needle)
    };
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid as u32 != except && names(pid)).collect()
}

pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

/// Whether the machine has the unified hierarchy only.
pub fn is_unified() -> bool {
    Path::new(CGROUPS).join("cgroup.controllers").exists()
}

pub fn cgroup_dirs(group: &str) -> Vec<PathBuf> {
    let v1 = std::fs::read_dir(CGROUPS).unwrap().flatten().map(|entry| entry.path());
    let hierarchies = v1.chain([PathBuf::from(CGROUPS)]);
    hierarchies.map(|dir| dir.join(group.trim_start_matches('/'))).filter(|dir| dir.is_dir()).collect()
}

fn kill_groups_below(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        kill_groups_below(&entry.path());
        let procs = std::fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = std::fs::remove_dir(entry.path());
    }
}
