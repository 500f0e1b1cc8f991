//! `up`, `down`, `delete`, `status`: what is there is looked at, and what is missing is made. Each is idempotent, so that
//! the same command heals a cluster of which something was killed.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use keelson_api::time::parse_duration;
use kube::runtime::wait::{Condition, await_condition};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::fabric::Fabric;
use crate::init::{Component, NodeConfig, STOP_GRACE};
use crate::kubeconfig::{self, Access};
use crate::layout::{
    Layout, Mount, Node, Profile, Runtime, Setting, make_dir, make_private_dir, plan_nodes, read_json, write_json,
    write_private,
};
use crate::pki::{self, Identity, KeyCert, Pki};
use crate::process::Handle;
use crate::{Context as _, Error, Result, cgroup, preflight, rootfs};

/// The services' network; its first address is the API server's.
pub const SERVICE_NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 12);
/// The API server's Service.
pub const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The port at which nodes reach the API server, and the first choice on the host.
pub const API_PORT: u16 = 6443;
/// What a node's init is told, in the node's directory.
const INIT_FILE: &str = "init.json";
/// How long `up` waits for the cluster.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a node gets to stop, beyond what its components get.
const SPARE: Duration = Duration::from_secs(5);

/// What `up` is asked for. `None` keeps what the cluster has, or takes the default for a new one.
#[derive(Clone, Debug)]
pub struct UpOptions {
    pub profile: String,
    pub data_dir: PathBuf,
    pub nodes: Option<usize>,
    pub port: Option<u16>,
    pub runtime: Option<Runtime>,
    /// Settings of components; they replace all that the cluster has.
    pub extra_config: Option<Vec<Setting>>,
    /// Directories that nodes see; they replace all that the cluster has.
    pub mounts: Option<Vec<Mount>>,
    /// Where the context is written.
    pub kubeconfig: PathBuf,
    /// Our binary.
    pub exe: PathBuf,
}

/// A step of `up` that is done, and how long it took.
#[derive(Clone, Debug)]
pub struct Step {
    pub what: String,
    pub took: Duration,
}

/// A cluster as it is now.
#[derive(Clone, Debug)]
pub struct Status {
    pub profile: Profile,
    pub nodes: Vec<(Node, Option<Handle>)>,
    /// `ok`, or why the API server is not ready. `None` when the first node does not run.
    pub api: Option<Result<(), String>>,
}

/// Makes the cluster run. Returns when the API server and every node are ready.
pub async fn up(options: &UpOptions, mut progress: impl FnMut(Step)) -> Result<Profile> {
    let mut clock = Instant::now();
    let mut done = |what: &str| {
        let now = Instant::now();
        progress(Step { what: what.into(), took: now - std::mem::replace(&mut clock, now) });
    };
    let checks = preflight::check(&options.data_dir).await;
    refuse_problems(&checks)?;
    done("machine checked");

    let layout = Layout::new(&options.data_dir, &options.profile)?;
    let _lock = layout.take_lock()?;
    let known = layout.read_profile()?;
    let mut listener = None;
    // Held from here on, so that no other program can take the port before the node has it.
    let mut take = |port| {
        listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        listener.is_some()
    };
    let mut profile = plan_profile(known.as_ref(), options, &mut take)?;
    if profile.runtime == Runtime::Containerd {
        refuse_problems(&[preflight::containerd()])?;
    }
    let running: Vec<Option<Handle>> =
        profile.nodes.iter().map(|node| running(&layout, &node.name)).collect::<Result<_>>()?;
    if let Some(known) = known.as_ref().filter(|_| running.iter().any(Option::is_some)) {
        let stop_first = || format!("nodes run with other ones: `keelson down --profile {}` first", known.name);
        if known.extra_config != profile.extra_config {
            return Err(invalid("--extra-config", stop_first()));
        }
        if known.mounts != profile.mounts {
            return Err(invalid("--mount", stop_first()));
        }
    }
    let starts = running.first().is_none_or(Option::is_none);
    if known.is_some() && starts && !take(profile.port) {
        // Somebody has taken it while the cluster was down; the kubeconfig follows.
        profile.port = choose_port(options.port, take)?;
    }
    write_json(&layout.profile(), &profile)?;
    let pki = Pki::open(&layout.pki())?;
    if starts {
        let first = profile.nodes.first().ok_or_else(|| invalid("--nodes", "a cluster has at least one node"))?;
        pki.write_apiserver(SERVICE_IP, first.ip, &first.name)?;
    }
    let admin = pki.client(pki::ADMIN)?;
    done("certificates");

    let fabric = match running.iter().flatten().next() {
        Some(init) => Fabric::of(init)?,
        None => Fabric::create().await?,
    };
    for (index, node) in profile.nodes.iter().enumerate() {
        if running.get(index).copied().flatten().is_some() {
            continue;
        }
        let config = node_config(&layout, &profile, index, fabric.path(), &options.exe);
        prepare_node(&layout, &pki, &profile, node)?;
        let listener = if index == 0 { listener.take() } else { None };
        start_node(&layout, &config, node, &fabric, listener).await?;
        done(&format!("node {} started", node.name));
    }

    let server = format!("https://127.0.0.1:{}", profile.port);
    let access = Access { server: &server, ca_pem: pki.ca_pem(), client: &admin };
    kubeconfig::update(&options.kubeconfig, |config| kubeconfig::put(config, &profile.context(), &access))?;
    let client = client(&access).await?;
    wait(&layout, &profile, "the API server", READY_TIMEOUT, api_ready(&client)).await?;
    done("API server ready");
    for node in &profile.nodes {
        let ready = Box::pin(await_condition(kube::Api::all(client.clone()), &node.name, NodeReady));
        wait(&layout, &profile, &format!("node {} to be Ready", node.name), READY_TIMEOUT, async {
            ready.await.map(drop).map_err(|e| e.to_string())
        })
        .await?;
        done(&format!("node {} Ready", node.name));
    }
    // Without it the first `kubectl run` would be refused.
    let accounts: kube::Api<core::ServiceAccount> = kube::Api::namespaced(client, "default");
    wait(&layout, &profile, "the default service account", READY_TIMEOUT, async {
        await_condition(accounts, "default", Exists).await.map(drop).map_err(|e| e.to_string())
    })
    .await?;
    done("ready for pods");
    Ok(profile)
}

fn refuse_problems(checks: &[preflight::Check]) -> Result<()> {
    let problems = checks.iter().filter_map(|check| check.outcome.as_ref().err());
    let problems: Vec<String> = problems.map(|p| format!("{} ({})", p.what, p.hint)).collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::Preflight(problems.join("; "))) }
}

/// Stops the cluster's nodes. Everything that was stored stays.
pub fn down(data_dir: &Path, profile: &str) -> Result<Profile> {
    let layout = Layout::new(data_dir, profile)?;
    let known = existing(&layout, data_dir, profile)?;
    let _lock = layout.take_lock()?;
    stop_nodes(&layout, &known)?;
    Ok(known)
}

/// Stops the cluster and removes all of it, its context in the kubeconfig too.
pub fn delete(data_dir: &Path, profile: &str) -> Result<Profile> {
    let layout = Layout::new(data_dir, profile)?;
    let known = existing(&layout, data_dir, profile)?;
    let _lock = layout.take_lock()?;
    stop_nodes(&layout, &known)?;
    if known.kubeconfig.exists() {
        kubeconfig::update(&known.kubeconfig, |config| kubeconfig::take(config, &known.context()))?;
    }
    fs::remove_dir_all(layout.dir()).context(|| format!("removing {}", layout.dir().display()))?;
    Ok(known)
}

/// Looks at the cluster.
pub async fn status(data_dir: &Path, profile: &str) -> Result<Status> {
    let layout = Layout::new(data_dir, profile)?;
    let known = existing(&layout, data_dir, profile)?;
    let mut nodes = Vec::new();
    for node in &known.nodes {
        nodes.push((node.clone(), Handle::read(&layout.node_process(&node.name))?));
    }
    let runs = nodes.first().is_some_and(|(_, init)| init.is_some());
    let api = if runs {
        let client = admin_client(&layout, &known).await?;
        let answer = tokio::time::timeout(Duration::from_secs(5), readyz(&client)).await;
        Some(answer.unwrap_or_else(|_| Err("no answer within 5 s".into())))
    } else {
        None
    };
    Ok(Status { profile: known, nodes, api })
}

/// The cluster's kubeconfig, for the admin.
pub fn admin_kubeconfig(data_dir: &Path, profile: &str) -> Result<String> {
    let layout = Layout::new(data_dir, profile)?;
    let known = existing(&layout, data_dir, profile)?;
    let pki = Pki::open(&layout.pki())?;
    let server = format!("https://127.0.0.1:{}", known.port);
    let client = pki.client(pki::ADMIN)?;
    kubeconfig::render(&known.context(), &Access { server: &server, ca_pem: pki.ca_pem(), client: &client })
}

/// The names of the clusters in `data_dir`.
pub fn profiles(data_dir: &Path) -> Vec<Profile> {
    let Ok(entries) = fs::read_dir(data_dir) else { return Vec::new() };
    let mut found: Vec<Profile> = entries
        .flatten()
        .filter_map(|e| Layout::new(data_dir, e.file_name().to_str()?).ok()?.read_profile().ok()?)
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn existing(layout: &Layout, data_dir: &Path, profile: &str) -> Result<Profile> {
    layout
        .read_profile()?
        .ok_or_else(|| Error::NoCluster { profile: profile.into(), data_dir: data_dir.display().to_string() })
}

fn invalid(field: &'static str, why: impl Into<String>) -> Error {
    Error::Invalid { field, why: why.into() }
}

/// What the cluster is to be, from what it is and what was asked.
fn plan_profile(known: Option<&Profile>, options: &UpOptions, take: impl FnMut(u16) -> bool) -> Result<Profile> {
    let count = options.nodes.unwrap_or_else(|| known.map_or(1, |k| k.nodes.len()));
    if count == 0 || count > crate::layout::MAX_NODES {
        return Err(invalid("--nodes", format!("{count} is not between 1 and {}", crate::layout::MAX_NODES)));
    }
    if let Some(known) = known {
        if count < known.nodes.len() {
            return Err(invalid("--nodes", format!("the cluster has {} nodes already", known.nodes.len())));
        }
        if let Some(port) = options.port.filter(|port| *port != known.port) {
            return Err(invalid("--port", format!("the cluster has port {}, not {port}: delete it first", known.port)));
        }
        if options.runtime.is_some_and(|runtime| runtime != known.runtime) {
            return Err(invalid("--container-runtime", "the cluster has another one: delete it first"));
        }
    }
    let port = match known {
        Some(known) => known.port,
        None => choose_port(options.port, take)?,
    };
    Ok(Profile {
        name: options.profile.clone(),
        port,
        nodes: plan_nodes(&options.profile, count),
        runtime: known.map(|k| k.runtime).or(options.runtime).unwrap_or_default(),
        kubeconfig: options.kubeconfig.clone(),
        extra_config: kept(&options.extra_config, known.map(|k| &k.extra_config)),
        mounts: kept(&options.mounts, known.map(|k| &k.mounts)),
    })
}

/// What was asked for, or else what the cluster has.
fn kept<T: Clone>(asked: &Option<Vec<T>>, known: Option<&Vec<T>>) -> Vec<T> {
    asked.as_ref().or(known).cloned().unwrap_or_default()
}

/// The port that was asked for, or the first that can be taken.
fn choose_port(asked: Option<u16>, mut take: impl FnMut(u16) -> bool) -> Result<u16> {
    match asked {
        Some(port) if take(port) => Ok(port),
        Some(port) => Err(invalid("--port", format!("127.0.0.1:{port} is taken"))),
        None => (API_PORT..API_PORT + 1000)
            .find(|port| take(*port))
            .ok_or_else(|| invalid("--port", "no port from 6443 on is free on 127.0.0.1")),
    }
}

/// The kubelet's, proxy's and DNS server's ways to the API, and the kubelet's serving certificate.
fn prepare_node(layout: &Layout, pki: &Pki, profile: &Profile, node: &Node) -> Result<()> {
    let dir = layout.node_var(&node.name).join("lib/keelson");
    make_dir(&layout.node_logs(&node.name))?;
    make_private_dir(&dir.join("pki"))?;
    let server = match profile.nodes.first() {
        Some(first) => format!("https://{}:{API_PORT}", first.ip),
        None => return Err(invalid("--nodes", "a cluster has at least one node")),
    };
    let kubelet_user = format!("system:node:{}", node.name);
    for (name, user, group) in [
        ("kubelet", kubelet_user.as_str(), Some("system:nodes")),
        ("proxy", "system:kube-proxy", Some("system:node-proxier")),
        ("dns", "system:coredns", None),
    ] {
        let client = pki.client(Identity { user, group })?;
        let access = Access { server: &server, ca_pem: pki.ca_pem(), client: &client };
        write_private(&dir.join(format!("{name}.kubeconfig")), kubeconfig::render(name, &access)?.as_bytes())?;
    }
    let serving = pki.serving(&kubelet_user, &[&node.name], &[IpAddr::V4(node.ip)])?;
    write_private(&dir.join("pki/kubelet.key"), serving.key.as_bytes())?;
    write_private(&dir.join("pki/kubelet.crt"), serving.certificate.as_bytes())?;
    write_private(&dir.join("pki/ca.crt"), pki.ca_pem().as_bytes())
}

/// What the init of node `index` is told.
fn node_config(layout: &Layout, profile: &Profile, index: usize, fabric: PathBuf, exe: &Path) -> NodeConfig {
    let node = &profile.nodes[index];
    let dir = layout.node(&node.name);
    let is_first = index == 0;
    NodeConfig {
        profile: profile.name.clone(),
        node: node.name.clone(),
        root: dir.join("root"),
        var: layout.node_var(&node.name),
        tmp: dir.join("tmp"),
        server_dir: is_first.then(|| layout.server()),
        exe: exe.into(),
        fabric,
        mounts: profile.mounts.clone(),
        components: components(profile, node, is_first),
        stop_grace: STOP_GRACE + if is_first { shutdown_delay(&profile.extra_config) } else { Duration::ZERO },
    }
}

/// For how long the API server goes on serving once it is to stop. (What is no duration, it refuses itself.)
fn shutdown_delay(settings: &[Setting]) -> Duration {
    let delay = settings.iter().rfind(|s| s.program() == Some("server") && s.flag == "shutdown-delay-duration");
    let nanos = delay.and_then(|setting| parse_duration(&setting.value).ok());
    Duration::from_nanos(nanos.and_then(|nanos| nanos.try_into().ok()).unwrap_or_default())
}

/// How long a node that was started may take to stop.
fn stop_grace(layout: &Layout, node: &str) -> Duration {
    let config = read_json::<NodeConfig>(&layout.node(node).join(INIT_FILE));
    config.ok().flatten().map_or(STOP_GRACE, |config| config.stop_grace) + SPARE
}

/// The programs of a node, in the order of their start.
fn components(profile: &Profile, node: &Node, is_first: bool) -> Vec<Component> {
    let component = |name: &str, program: &str, args: Vec<String>, listens: bool| Component {
        name: name.into(),
        program: program.into(),
        args,
        listens,
    };
    let extra = |program: &str| -> Vec<String> {
        profile.extra_config.iter().filter(|s| s.program() == Some(program)).map(Setting::argument).collect()
    };
    let mut components = Vec::new();
    if is_first {
        let mut args = vec![
            "server".into(),
            format!("--data-dir={}", rootfs::SERVER_DIR),
            format!("--advertise-address={}", node.ip),
            format!("--secure-port={API_PORT}"),
            format!("--service-cluster-ip-range={}/{}", SERVICE_NETWORK.0, SERVICE_NETWORK.1),
            format!("--publish-netns={}", rootfs::HOST_NETNS),
            "--listen-on-stdin".into(),
        ];
        args.extend(extra("server"));
        components.push(component("server", rootfs::EXE, args, true));
    }
    let endpoint = match profile.runtime {
        Runtime::Keelson => None,
        Runtime::Containerd => {
            let args = vec!["containerd".into(), "--config-dir=/etc/containerd".into()];
            components.push(component("containerd", rootfs::EXE, args, false));
            Some("unix:///run/containerd/containerd.sock")
        }
    };
    let mut args = vec![
        "agent".into(),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.ip),
        "--data-dir=/var/lib/keelson".into(),
        format!("--pull-netns={}", rootfs::HOST_NETNS),
    ];
    if let Some(endpoint) = endpoint {
        args.push(format!("--container-runtime-endpoint={endpoint}"));
    }
    args.extend(extra("agent"));
    components.push(component("agent", rootfs::EXE, args, false));
    components
}

/// The init of a node that runs. One that is ending has closed its files already: it is waited for, and runs no more.
fn running(layout: &Layout, node: &str) -> Result<Option<Handle>> {
    let Some(init) = Handle::read(&layout.node_process(node))? else { return Ok(None) };
    if Path::new(&format!("/proc/{}/fd/1", init.pid)).exists() {
        return Ok(Some(init));
    }
    init.terminate(stop_grace(layout, node))?;
    Ok(None)
}

async fn start_node(
    layout: &Layout,
    config: &NodeConfig,
    node: &Node,
    fabric: &Fabric,
    listener: Option<TcpListener>,
) -> Result<()> {
    let failed = |why: String| Error::Node { node: node.name.clone(), why };
    let dir = layout.node(&node.name);
    // A node that was killed leaves its cgroups; its mounts and network went with it.
    cgroup::remove(&config.profile, Some(&node.name))?;
    let config_path = dir.join(INIT_FILE);
    write_json(&config_path, config)?;
    let log_path = layout.node_logs(&node.name).join("init.log");
    let log = fs::File::create(&log_path).context(|| format!("creating {}", log_path.display()))?;
    let talking = || "talking to the node's init".to_string();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().context(talking)?;
    ours.set_nonblocking(true).context(talking)?;
    let mut stage_one = tokio::process::Command::from(Command::new(&config.exe));
    stage_one
        .args(["node-init", "--stage", "1"])
        .arg(&config_path)
        .stdin(listener.map_or_else(Stdio::null, |listener| Stdio::from(OwnedFd::from(listener))))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true);
    let mut child = stage_one.spawn().context(|| format!("starting {}", config.exe.display()))?;
    // It holds our copies of the node's ends, and we must see when the node closes its own.
    drop(stage_one);
    let why = || fs::read_to_string(&log_path).unwrap_or_default().trim().to_string();
    let pid = child.id().ok_or_else(|| failed("its init ended at once".into()))?;
    let mut stream = BufReader::new(tokio::net::UnixStream::from_std(ours).context(talking)?);
    if stream.read_u8().await.is_err() {
        return Err(failed(why()));
    }
    fabric.attach(node, pid, SERVICE_NETWORK).await?;
    stream.write_all(b"g").await.context(talking)?;
    let mut line = String::new();
    stream.read_line(&mut line).await.context(talking)?;
    let init = line.trim().parse().ok().and_then(Handle::of).ok_or_else(|| failed(why()))?;
    init.write(&layout.node_process(&node.name))?;
    child.wait().await.context(|| "waiting for the node's first stage".into())?;
    Ok(())
}

fn stop_nodes(layout: &Layout, profile: &Profile) -> Result<()> {
    for node in profile.nodes.iter().rev() {
        if let Some(init) = Handle::read(&layout.node_process(&node.name))? {
            init.terminate(stop_grace(layout, &node.name))?;
        }
        cgroup::remove(&profile.name, Some(&node.name))?;
        let _ = fs::remove_file(layout.node_process(&node.name));
        let _ = fs::remove_dir(layout.node(&node.name).join("root"));
    }
    Ok(())
}

async fn admin_client(layout: &Layout, profile: &Profile) -> Result<kube::Client> {
    let pki = Pki::open(&layout.pki())?;
    let (server, admin): (String, KeyCert) = (format!("https://127.0.0.1:{}", profile.port), pki.client(pki::ADMIN)?);
    client(&Access { server: &server, ca_pem: pki.ca_pem(), client: &admin }).await
}

async fn client(access: &Access<'_>) -> Result<kube::Client> {
    let failed = |why: String| Error::Api { what: format!("making a client for {}", access.server), why };
    let yaml = kubeconfig::render("admin", access)?;
    keelson_client::connect::from_kubeconfig_text(&yaml).await.map_err(|e| failed(e.to_string()))
}

/// Waits for `what`, saying why when it fails or takes too long; a node whose init ends while we wait is an error at once.
async fn wait(
    layout: &Layout,
    profile: &Profile,
    what: &str,
    timeout: Duration,
    until: impl Future<Output = Result<(), String>>,
) -> Result<()> {
    let watchdog = async {
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            for node in &profile.nodes {
                if Handle::read(&layout.node_process(&node.name)).ok().flatten().is_none() {
                    let log = layout.node_logs(&node.name).join("init.log");
                    let why = fs::read_to_string(log).unwrap_or_default().trim().to_string();
                    return Error::Node { node: node.name.clone(), why };
                }
            }
        }
    };
    tokio::select! {
        result = until => result.map_err(|why| Error::Api { what: format!("waiting for {what}"), why }),
        error = watchdog => Err(error),
        () = tokio::time::sleep(timeout) => Err(Error::Timeout {
            what: what.into(),
            seconds: timeout.as_secs(),
            profile: profile.name.clone(),
        }),
    }
}

/// Until the API server says that it is ready. The socket exists before the server does, so the first request waits in
/// its backlog rather than fail; requests that fail are made again.
async fn api_ready(client: &kube::Client) -> Result<(), String> {
    while readyz(client).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn readyz(client: &kube::Client) -> Result<(), String> {
    let request = http::Request::get("/readyz").body(Vec::new()).map_err(|e| e.to_string())?;
    client.request_text(request).await.map(drop).map_err(|e| e.to_string())
}

struct NodeReady;

impl Condition<core::Node> for NodeReady {
    fn matches_object(&self, node: Option<&core::Node>) -> bool {
        node.and_then(|n| n.status.as_ref()?.conditions.as_ref())
            .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    }
}

struct Exists;

impl<K> Condition<K> for Exists {
    fn matches_object(&self, object: Option<&K>) -> bool {
        object.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> UpOptions {
        UpOptions {
            profile: "demo".into(),
            data_dir: "/x".into(),
            nodes: None,
            port: None,
            runtime: None,
            extra_config: None,
            mounts: None,
            kubeconfig: "/k".into(),
            exe: "/e".into(),
        }
    }

    #[test]
    fn a_new_cluster_takes_defaults_and_the_first_free_port() {
        let profile = plan_profile(None, &options(), |port| port != API_PORT).unwrap();
        assert_eq!((profile.port, profile.nodes.len(), profile.runtime), (API_PORT + 1, 1, Runtime::Keelson));
    }

    #[test]
    fn a_cluster_keeps_what_it_has() {
        let ask = |nodes, port| UpOptions { nodes, port, ..options() };
        let known = plan_profile(None, &ask(Some(2), Some(7000)), |_| true).unwrap();
        let plan = |nodes, port| plan_profile(Some(&known), &ask(nodes, port), |_| false).map_err(|e| e.to_string());
        assert_eq!(plan(None, None).unwrap(), known);
        assert_eq!(plan(Some(3), Some(7000)).unwrap().nodes.len(), 3, "nodes can be added");
        assert!(plan(Some(1), None).unwrap_err().starts_with("--nodes"));
        assert!(plan(None, Some(7001)).unwrap_err().starts_with("--port"));
        assert!(plan_profile(None, &ask(None, Some(1)), |_| false).unwrap_err().to_string().contains("taken"));
        assert!(plan_profile(None, &ask(Some(0), None), |_| true).is_err());
    }

    #[test]
    fn only_the_first_node_runs_the_control_plane() {
        let names = |first, runtime| {
            let asked = UpOptions { runtime: Some(runtime), ..options() };
            let profile = plan_profile(None, &asked, |_| true).unwrap();
            components(&profile, &profile.nodes[0], first).into_iter().map(|c| c.name).collect::<Vec<_>>()
        };
        assert_eq!(names(true, Runtime::Keelson), ["server", "agent"]);
        assert_eq!(names(false, Runtime::Keelson), ["agent"]);
        assert_eq!(names(false, Runtime::Containerd), ["containerd", "agent"]);
    }

    #[test]
    fn settings_reach_their_program_and_are_kept() {
        let settings = ["apiserver.a=b=c", "kubelet.x=y"].map(|text| text.parse().unwrap()).to_vec();
        let asked = UpOptions { extra_config: Some(settings), ..options() };
        let known = plan_profile(None, &asked, |_| true).unwrap();
        let profile = plan_profile(Some(&known), &options(), |_| true).unwrap();
        let last = |component: &Component| component.args.last().unwrap().clone();
        let components = components(&profile, &profile.nodes[0], true);
        assert_eq!(components.iter().map(last).collect::<Vec<_>>(), ["--a=b=c", "--x=y"]);
    }

    #[test]
    fn a_server_that_goes_on_serving_has_the_time_for_it() {
        let grace = |settings: &[&str], node: usize| {
            let settings: Vec<Setting> = settings.iter().map(|text| text.parse().unwrap()).collect();
            let asked = UpOptions { extra_config: Some(settings), nodes: Some(2), ..options() };
            let profile = plan_profile(None, &asked, |_| true).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::new(dir.path(), "p").unwrap();
            let name = &profile.nodes[node].name;
            fs::create_dir_all(layout.node(name)).unwrap();
            assert_eq!(stop_grace(&layout, name), STOP_GRACE + SPARE, "of a node that was never started");
            let config = node_config(&layout, &profile, node, "/proc/1/fd/1".into(), Path::new("/keelson"));
            write_json(&layout.node(name).join(INIT_FILE), &config).unwrap();
            stop_grace(&layout, name) - STOP_GRACE - SPARE
        };
        let delay = "apiserver.shutdown-delay-duration=1m30s";
        assert_eq!(grace(&[delay], 0), Duration::from_secs(90));
        assert_eq!(grace(&[delay], 1), Duration::ZERO, "there is no server");
        assert_eq!(grace(&["apiserver.shutdown-delay-duration=soon"], 0), Duration::ZERO);
        assert_eq!(grace(&[delay, "apiserver.shutdown-delay-duration=1s"], 0), Duration::from_secs(1));
    }

    #[test]
    fn bad_settings_and_mounts_are_refused() {
        for bad in ["apiserver", "apiserver.a", "apiserver.=x", "etcd.a=b"] {
            assert!(bad.parse::<Setting>().is_err(), "{bad}");
        }
        for bad in ["/tmp", "/tmp:relative", "/nowhere:/mnt/x", "/tmp:/usr/x", "/tmp:/mnt", "/tmp:/mnt/../usr"] {
            assert!(bad.parse::<Mount>().is_err(), "{bad}");
        }
        assert_eq!("/tmp:/mnt/x".parse::<Mount>().unwrap().node, PathBuf::from("/mnt/x"));
    }
}
