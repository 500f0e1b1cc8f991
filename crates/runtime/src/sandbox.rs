//! A sandbox's life: namespaces, shim, network; and all of it undone again.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use keelson_cri::{
    steps,
    v1::{ContainerEventType, DnsConfig, NamespaceMode, PodSandboxConfig},
};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::{
    Error,
    cni::{Attachment, Pod},
    container,
    core::{Core, Sandbox, new_id, now_ns},
    image::layer::remove_tree,
    mounts, namespaces, oci,
    records::{ContainerPhase, SandboxPhase, SandboxRecord},
    refusals,
    shim::{
        self,
        protocol::{Event, Request},
    },
    shim_client::{self, Subscription},
};

/// The network attachment's record in a sandbox's root directory.
const CNI_FILE: &str = "cni.json";
/// After how many attempts to start a dead shim's successor that is worth an error, the pause before the n-th (times n) and
/// the longest, and a life after which the first needs none.
const SHIM_ATTEMPTS: u32 = 5;
const SHIM_PAUSE: Duration = Duration::from_millis(200);
const SHIM_LONGEST_PAUSE: Duration = Duration::from_secs(10);
const SHIM_SHORT_LIFE: Duration = Duration::from_secs(2);

/// Makes and starts a sandbox. What a failure leaves is removed.
pub(crate) async fn run(core: &Arc<Core>, config: PodSandboxConfig, runtime_handler: String) -> Result<String, Error> {
    if config.metadata.as_ref().is_none_or(|metadata| metadata.name.is_empty()) {
        return Err(Error::Invalid("sandbox config must include metadata".into()));
    }
    refusals::sandbox(&config, &core.machine)?;
    if !runtime_handler.is_empty() {
        if !core.config.handlers.contains_key(&runtime_handler) {
            return Err(Error::Other(format!(
                "failed to get sandbox runtime: no runtime for {runtime_handler:?} is configured"
            )));
        }
        if oci::user_namespace(&config)?.is_some() {
            let field = "linux.security_context.namespace_options.userns_options";
            let why = format!("{field} is not supported with the runtime handler {runtime_handler:?}");
            return Err(Error::Unsupported(why));
        }
    }
    let record = SandboxRecord {
        id: new_id(),
        config: Some(config),
        created_at: now_ns(),
        phase: SandboxPhase::Creating as i32,
        ips: Vec::new(),
        runtime_handler,
    };
    let sandbox = core.add_sandbox(record)?;
    let _changing = sandbox.changing.lock().await;
    if let Err(error) = core.in_turn(start(core, &sandbox)).await {
        if dismantle(core, &sandbox).await {
            discard(core, &sandbox);
        } else if let Err(error) = sandbox.update(|record| record.set_phase(SandboxPhase::Stopping)) {
            // Kept all the same: whoever stops it has the network removed.
            tracing::warn!(sandbox = %sandbox.id, %error, "a pod's record could not be written");
        }
        return Err(match error {
            Error::Network(why) => {
                Error::Network(format!("failed to setup network for sandbox {:?}: {why}", sandbox.id))
            }
            other => other,
        });
    }
    for kind in [ContainerEventType::ContainerCreatedEvent, ContainerEventType::ContainerStartedEvent] {
        core.emit(kind, &sandbox.id, &sandbox);
    }
    Ok(sandbox.id.clone())
}

async fn start(core: &Arc<Core>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let config = sandbox.config();
    let network = if oci::host_network(&config) { None } else { Some(core.cni.network()?) };
    make_dirs(sandbox)?;
    sandbox.save_synced().await?;
    steps::reached("sandbox-recorded");
    let wanted = wanted_namespaces(core, &config)?;
    let (blocking, files) = (sandbox.clone(), config.clone());
    spawn_blocking(move || {
        write_files(&blocking, &files)?;
        if wanted.ipc {
            mounts::shm(&blocking.state.join("shm"))?;
        }
        namespaces::create(&blocking.state, wanted)
    })
    .await
    .map_err(|error| Error::Other(error.to_string()))??;
    steps::reached("sandbox-namespaces");
    spawn_shim(core, sandbox).await?;
    steps::reached("sandbox-shim");
    let mut ips = Vec::new();
    if let Some(network) = network {
        let file = sandbox.root.join(CNI_FILE);
        let mut attachment = Attachment::new(network, pod(sandbox, &config));
        // Before and after: what a killed runtime had only begun to add must be removed, too.
        write_attachment(&file, &attachment).await?;
        core.cni.add(&mut attachment).await?;
        steps::reached("sandbox-attached");
        write_attachment(&file, &attachment).await?;
        ips = attachment.addresses();
        if ips.is_empty() {
            return Err(Error::Network("the network plugin gave no address".into()));
        }
    }
    steps::reached("sandbox-networked");
    sandbox.update(|record| {
        record.ips = ips;
        record.set_phase(SandboxPhase::Ready);
    })?;
    steps::reached("sandbox-ready");
    Ok(())
}

async fn write_attachment(file: &Path, attachment: &Attachment) -> Result<(), Error> {
    let (path, attachment) = (file.to_owned(), attachment.clone());
    let write = spawn_blocking(move || shim::write_json_synced(&path, &attachment));
    write.await.map_err(|error| Error::Other(error.to_string()))?.map_err(Error::io("write", file))
}

/// Stops a sandbox: its containers at once, then network, shim and namespaces. Repeating it is fine.
pub(crate) async fn stop(core: &Arc<Core>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    // One that is being made is made first, or given up.
    let _changing = sandbox.changing.lock().await;
    if core.sandbox(&sandbox.id).is_err() {
        return Ok(());
    }
    if sandbox.is_ready() {
        sandbox.update(|record| record.set_phase(SandboxPhase::Stopping))?;
    }
    steps::reached("stopping-recorded");
    // One that cannot be stopped keeps the others from nothing.
    let containers = core.containers_of(&sandbox.id);
    let stopping = containers.iter().map(|container| container::stop(core, container, Duration::ZERO));
    futures::future::join_all(stopping).await.into_iter().collect::<Result<(), Error>>()?;
    detach(core, sandbox).await?;
    dismantle(core, sandbox).await;
    steps::reached("stopping-dismantled");
    if sandbox.with(SandboxRecord::phase) == SandboxPhase::Stopping {
        sandbox.update(|record| record.set_phase(SandboxPhase::NotReady))?;
        core.emit(ContainerEventType::ContainerStoppedEvent, &sandbox.id, sandbox);
    }
    Ok(())
}

/// Removes a sandbox and its containers.
pub(crate) async fn remove(core: &Arc<Core>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    stop(core, sandbox).await?;
    for container in core.containers_of(&sandbox.id) {
        container::remove(core, &container).await?;
    }
    let _changing = sandbox.changing.lock().await;
    discard(core, sandbox);
    core.emit(ContainerEventType::ContainerDeletedEvent, &sandbox.id, sandbox);
    Ok(())
}

/// Takes the pod off its network.
async fn detach(core: &Core, sandbox: &Sandbox) -> Result<(), Error> {
    let file = sandbox.root.join(CNI_FILE);
    if let Ok(Some(attachment)) = shim::read_json::<Attachment>(&file) {
        core.cni.del(&attachment).await.map_err(|error| {
            Error::Network(format!("failed to destroy network for sandbox {:?}: {error}", sandbox.id))
        })?;
        steps::reached("stopping-detached");
        let _ = std::fs::remove_file(&file);
    }
    Ok(())
}

/// Has the plugins remove what the record in `dir` says that they added, for a sandbox of which nothing else is known.
pub(crate) async fn release_network(core: &Core, dir: &Path) {
    if let Ok(Some(attachment)) = shim::read_json::<Attachment>(&dir.join(CNI_FILE))
        && let Err(error) = core.cni.del(&attachment).await
    {
        tracing::warn!(dir = %dir.display(), %error, "a lost pod's network could not be removed");
    }
}

/// What the network's plugins said when they made it.
pub(crate) fn network_result(sandbox: &Sandbox) -> Value {
    let attachment = shim::read_json::<Value>(&sandbox.root.join(CNI_FILE)).ok().flatten().unwrap_or_default();
    attachment.get("result").cloned().unwrap_or_default()
}

/// Whether the pod's network is still as its plugins made it.
pub(crate) async fn check_network(core: &Core, sandbox: &Sandbox) -> Result<(), Error> {
    match shim::read_json::<Attachment>(&sandbox.root.join(CNI_FILE)) {
        Ok(Some(attachment)) => core.cni.check(&attachment).await,
        _ => Ok(()),
    }
}

/// Undoes everything but the record and the files; whether the network is gone, too. Used on half-made sandboxes as well, so
/// nothing here may be missing.
pub(crate) async fn dismantle(core: &Core, sandbox: &Arc<Sandbox>) -> bool {
    let detached = detach(core, sandbox).await;
    if let Err(error) = &detached {
        tracing::warn!(sandbox = %sandbox.id, %error, "a pod's network could not be removed");
    }
    sandbox.stopped.cancel();
    // It may be at starting another shim, which then is to be stopped.
    let supervisor = sandbox.supervisor.lock().take();
    if let Some(supervisor) = supervisor {
        let _ = supervisor.await;
    }
    // A shim that does not answer is already gone, or ends with its last container.
    let _ = shim_client::ask(&sandbox.state, &Request::Stop).await;
    steps::reached("stopping-shim");
    let sandbox = sandbox.clone();
    let undo = spawn_blocking(move || {
        shim::end_pause(&sandbox.state);
        namespaces::remove(&sandbox.state);
        mounts::unmount_all(&sandbox.state.join("shm"));
    });
    let _ = undo.await;
    detached.is_ok()
}

fn discard(core: &Core, sandbox: &Sandbox) {
    for point in mounts::below(&sandbox.state) {
        mounts::unmount_all(&point);
    }
    for dir in [&sandbox.state, &sandbox.root] {
        if let Err(error) = remove_tree(dir) {
            tracing::warn!(sandbox = %sandbox.id, %error, "a pod's directory could not be removed");
        }
        steps::reached("sandbox-half-removed");
    }
    core.forget_sandbox(&sandbox.id);
}

fn make_dirs(sandbox: &Sandbox) -> Result<(), Error> {
    let state = &sandbox.state;
    for dir in [sandbox.root.clone(), state.join("ns"), state.join("c"), state.join("shm")] {
        std::fs::create_dir_all(&dir).map_err(Error::io("make", &dir))?;
    }
    Ok(())
}

fn wanted_namespaces(core: &Core, config: &PodSandboxConfig) -> Result<namespaces::Wanted, Error> {
    let options = oci::namespaces(config);
    let network = options.network() != NamespaceMode::Node;
    let hostname = if config.hostname.is_empty() { "localhost".to_owned() } else { config.hostname.clone() };
    let sysctls: BTreeMap<String, String> = config.linux.iter().flat_map(|linux| linux.sysctls.clone()).collect();
    Ok(namespaces::Wanted {
        network,
        ipc: options.ipc() != NamespaceMode::Node,
        hostname: network.then_some(hostname),
        sysctls,
        user: oci::user_namespace(config)?.map(|ids| (ids, core.shim_exe.clone())),
    })
}

/// Whether the pod's containers share one process namespace.
fn share_pid(config: &PodSandboxConfig) -> bool {
    oci::namespaces(config).pid() == NamespaceMode::Pod
}

/// The files a pod's containers get unless the kubelet mounts its own.
fn write_files(sandbox: &Sandbox, config: &PodSandboxConfig) -> Result<(), Error> {
    let write = |name: &str, text: String| {
        let path = sandbox.root.join(name);
        // Readable by everybody in the pod, whatever this process's mask.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let write = std::fs::write(&path, text).and_then(|()| std::fs::set_permissions(&path, mode));
        write.map_err(Error::io("write", path))
    };
    write("resolv.conf", resolv_conf(config))?;
    write(
        "hosts",
        std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1 localhost\n::1 localhost\n".into()),
    )?;
    write("hostname", format!("{}\n", oci::hostname(config)))
}

fn resolv_conf(config: &PodSandboxConfig) -> String {
    let any = |dns: &&DnsConfig| ![&dns.servers, &dns.searches, &dns.options].iter().all(|list| list.is_empty());
    let Some(dns) = config.dns_config.as_ref().filter(any) else {
        return std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

fn pod(sandbox: &Sandbox, config: &PodSandboxConfig) -> Pod {
    let metadata = config.metadata.clone().unwrap_or_default();
    let mapping = |port: &keelson_cri::v1::PortMapping| -> Option<Value> {
        let protocol = port.protocol().as_str_name().to_ascii_lowercase();
        (port.host_port > 0).then(|| {
            json!({"hostPort": port.host_port, "containerPort": port.container_port, "protocol": protocol, "hostIP": port.host_ip})
        })
    };
    Pod {
        sandbox_id: sandbox.id.clone(),
        netns: namespaces::path(&sandbox.state, "net"),
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        port_mappings: config.port_mappings.iter().filter_map(mapping).collect(),
    }
}

/// Starts the sandbox's shim, subscribes to it, and keeps a task that replaces it when it dies.
pub(crate) async fn spawn_shim(core: &Arc<Core>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let events = subscribe(core, sandbox).await?;
    keep_shim(core, sandbox, Some(events));
    Ok(())
}

/// For a sandbox whose shim cannot be started just now: it is tried until it can.
pub(crate) fn keep_starting_shim(core: &Arc<Core>, sandbox: &Arc<Sandbox>) {
    keep_shim(core, sandbox, None);
}

fn keep_shim(core: &Arc<Core>, sandbox: &Arc<Sandbox>, events: Option<Subscription>) {
    let (core, supervised) = (core.clone(), sandbox.clone());
    let task = tokio::spawn(async move { supervise(&core, &supervised, events).await });
    *sandbox.supervisor.lock() = Some(task);
}

/// Connects to the running shim, or to a new one.
async fn subscribe(core: &Core, sandbox: &Sandbox) -> Result<Subscription, Error> {
    if let Ok(events) = Subscription::open(&sandbox.state).await {
        return Ok(events);
    }
    let share_pid = share_pid(&sandbox.config());
    let mut child = shim_client::spawn(&core.shim_exe, &sandbox.state, share_pid).await?;
    // Somebody has to collect it when it ends.
    tokio::spawn(async move { child.wait().await });
    Subscription::open(&sandbox.state).await
}

async fn supervise(core: &Arc<Core>, sandbox: &Arc<Sandbox>, mut events: Option<Subscription>) {
    loop {
        let began = Instant::now();
        if let Some(events) = &mut events {
            // After the subscription: an end in between is in a file, a later one is an event.
            catch_up(core, sandbox);
            loop {
                let event = tokio::select! {
                    event = events.event() => event,
                    () = sandbox.stopped.cancelled() => return,
                };
                match event {
                    Some(Event::Exited { id, exit }) => {
                        if let Ok(container) = core.container(&id) {
                            core.container_ended(&container, &exit);
                        }
                    }
                    None => break,
                }
            }
            tracing::warn!(sandbox = %sandbox.id, "a pod's shim is gone; starting another");
        }
        let first = if began.elapsed() < SHIM_SHORT_LIFE { 1 } else { 0 };
        let Some(next) = resubscribe(core, sandbox, first).await else { return };
        events = Some(next);
        for container in core.containers_of(&sandbox.id) {
            container::settle(core, &container, true).await;
        }
    }
}

/// Starts a successor of a dead shim, however often it takes: its containers run on, and nobody else can say how they are.
/// `None` once the sandbox is being stopped.
async fn resubscribe(core: &Core, sandbox: &Sandbox, mut attempt: u32) -> Option<Subscription> {
    loop {
        if attempt > 0 {
            tokio::select! {
                () = tokio::time::sleep((SHIM_PAUSE * attempt).min(SHIM_LONGEST_PAUSE)) => {}
                () = sandbox.stopped.cancelled() => return None,
            }
        }
        if sandbox.stopped.is_cancelled() {
            return None;
        }
        match subscribe(core, sandbox).await {
            Ok(next) => return Some(next),
            Err(error) => {
                attempt = attempt.saturating_add(1);
                if attempt == SHIM_ATTEMPTS {
                    tracing::error!(sandbox = %sandbox.id, %error, "a pod's shim cannot be started; it is tried again");
                }
            }
        }
    }
}

/// Notes the ends that shims recorded while nobody listened.
pub(crate) fn catch_up(core: &Core, sandbox: &Sandbox) {
    for container in core.containers_of(&sandbox.id) {
        if matches!(container.phase(), ContainerPhase::Running)
            && let Some(exit) = container.recorded_exit()
        {
            core.container_ended(&container, &exit);
        }
    }
}
