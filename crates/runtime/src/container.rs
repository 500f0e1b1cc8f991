//! A container's life: file system and specification, start, stop, removal.

use std::{fs::File, io::Write, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc, time::Duration};

use keelson_cri::{
    steps,
    v1::{ContainerConfig, ContainerEventType, LinuxContainerUser, NamespaceMode, PodSandboxConfig},
};
use tokio::task::spawn_blocking;

use crate::{
    Error, cdi, cgroup,
    core::{Container, Core, Sandbox, cgroup_path, new_id, now_ns},
    handlers::Handler,
    huge_pages,
    idmap::{self, Ids},
    image::{Image, builtin, layer},
    machine, mounts, oci,
    records::{ContainerPhase, ContainerRecord},
    refusals,
    shim::{
        EXIT_FILE, Exit, Launch, late,
        protocol::{Reply, Request},
        write_json,
    },
    shim_client, user,
    witness::Witness,
};

/// How long a killed container may take to be gone, and one that is about to be stopped to be made or started.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a dead shim's successor is left to say that a killed container has ended.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(3);
/// How often, and with which pause, a control group is looked at until it is empty.
const GROUP_ROUNDS: u32 = 500;
const GROUP_PAUSE: Duration = Duration::from_millis(20);
/// How long a shim that was killed during a start may take to be replaced.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest seccomp profile, in bytes.
const MAX_PROFILE_BYTES: u64 = 1 << 20;
const DEFAULT_STOP_SIGNAL: &str = "SIGTERM";
/// Why a container ended that never ran.
const START_ERROR: &str = "StartError";

/// Makes a container: its file system, its specification, no process yet. What a failure leaves is removed.
pub(crate) async fn create(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    config: ContainerConfig,
    sandbox_config: PodSandboxConfig,
) -> Result<String, Error> {
    if !sandbox.is_ready() {
        return Err(Error::Precondition(format!("sandbox container {:?} is not running", sandbox.id)));
    }
    if config.metadata.as_ref().is_none_or(|metadata| metadata.name.is_empty()) {
        return Err(Error::Invalid("container config must include metadata".into()));
    }
    refusals::container(&config, &sandbox_config, &core.machine)?;
    let name = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
    // Until its record holds them, layers are not collected.
    let _growing = core.images.grow().await;
    let image = find_image(core, &name).await?;
    let id = new_id();
    let parent = sandbox_config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
    let log_path = match (sandbox_config.log_directory.as_str(), config.log_path.as_str()) {
        ("", _) | (_, "") => String::new(),
        (dir, file) => Path::new(dir).join(file).to_string_lossy().into_owned(),
    };
    let record = ContainerRecord {
        cgroup: cgroup_path(&parent, &id).to_string_lossy().into_owned(),
        id,
        sandbox_id: sandbox.id.clone(),
        config: Some(trimmed(&config)),
        image_ref: image.digests.first().cloned().unwrap_or_else(|| image.id.clone()),
        image_id: image.id.clone(),
        layers: image.layers.clone(),
        created_at: now_ns(),
        phase: ContainerPhase::Creating as i32,
        stop_signal: config.annotations.get(keelson_cri::STOP_SIGNAL).unwrap_or(&image.config.stop_signal).clone(),
        log_path,
        ..ContainerRecord::default()
    };
    let container = core.add_container(sandbox, record)?;
    // Whoever removes it waits for it to be made.
    let _changing = container.changing.lock().await;
    let (core_, container_) = (core.clone(), container.clone());
    let made = core.in_turn(spawn_blocking(move || make(&core_, &container_, &config, &sandbox_config, &image))).await;
    if let Err(error) = made.map_err(|error| Error::Other(error.to_string())).and_then(|made| made) {
        discard(core, &container).await;
        return Err(error);
    }
    core.emit(ContainerEventType::ContainerCreatedEvent, &container.id, sandbox);
    Ok(container.id.clone())
}

async fn find_image(core: &Arc<Core>, name: &str) -> Result<Arc<Image>, Error> {
    if let Some(image) = core.images.find(name) {
        return Ok(image);
    }
    let reference = core.images.reference(name)?;
    if reference.registry == crate::LOCAL_IMAGE_DOMAIN {
        let core = core.clone();
        let provide = spawn_blocking(move || builtin::provide(&core.images, &core.config, &reference));
        return provide.await.map_err(|error| Error::Other(error.to_string()))?;
    }
    Err(Error::ImageNotFound(format!("failed to resolve image {name:?}: not found")))
}

/// The configuration without what only the specification holds: it stays in memory as long as the container exists.
fn trimmed(config: &ContainerConfig) -> ContainerConfig {
    ContainerConfig { command: Vec::new(), args: Vec::new(), envs: Vec::new(), devices: Vec::new(), ..config.clone() }
}

fn make(
    core: &Core,
    container: &Container,
    config: &ContainerConfig,
    sandbox_config: &PodSandboxConfig,
    image: &Image,
) -> Result<(), Error> {
    let (upper, work, rootfs) = (container.root.join("upper"), container.root.join("work"), container.rootfs());
    for dir in [&upper, &work, &rootfs] {
        std::fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
    }
    container.update(|_| true);
    steps::reached("container-recorded");
    let ids = oci::user_namespace(sandbox_config)?;
    let userns = container.sandbox.namespaces().join("user");
    let userns = ids.map(|_| File::open(&userns).map_err(Error::io("open", &userns))).transpose()?;
    let mut lower = core.images.layer_dirs(&image.layers);
    if lower.is_empty() {
        // Overlayfs wants one.
        let empty = container.root.join("empty");
        std::fs::create_dir_all(&empty).map_err(Error::io("make", &empty))?;
        lower.push(empty);
    }
    copy_root_attributes(&lower, &upper, ids.as_ref())?;
    overlay(container, &lower, Some((&upper, &work)), &rootfs, userns.as_ref())?;
    steps::reached("container-mounted");
    let security = oci::security(config);
    let user = user::resolve(&security, &image.config.user, &rootfs)?;
    if let Some(ids) = &ids {
        user.groups.iter().chain([&user.uid, &user.gid]).try_for_each(|id| ids.on_node(*id).map(drop))?;
    }
    let mut devices = if security.privileged {
        machine::all_devices()
    } else {
        config.devices.iter().map(machine::device_nodes).collect::<Result<Vec<_>, _>>()?.concat()
    };
    // Files of devices are made in `/dev` alone.
    for device in devices.iter_mut().filter(|device| !Path::new(&device.path).starts_with("/dev")) {
        device.bound = Some(device.host.clone());
    }
    let mut config = config.clone();
    mount_images(core, container, &mut config, userns.as_ref())?;
    for mount in &mut config.mounts {
        prepare_source(mount)?;
    }
    let mut files = files(&container.sandbox, sandbox_config);
    let mut edits = cdi::resolve(&core.config.cdi_dirs, &cdi::names(&config))?;
    if let Some(userns) = &userns {
        bring_mounts(container, &mut config, &mut files, (&mut edits, &mut devices), userns)?;
    }
    let input = oci::Input {
        config: &config,
        sandbox: sandbox_config,
        image: &image.config,
        user: &user,
        machine: &core.machine,
        rootfs: &rootfs,
        namespaces: &container.sandbox.namespaces(),
        pid_namespace: pid_namespace(core, container, &config, sandbox_config)?,
        cgroup: &container.cgroup(),
        files,
        devices,
        seccomp: oci::seccomp_file(&security).map(|file| seccomp_profile(&file)).transpose()?,
        external: handler(core, &container.sandbox)?.is_some(),
    };
    let mut spec = oci::spec(&input)?;
    edits.apply(&mut spec)?;
    if !input.external && oci::mounts::defer(&mut spec, &rootfs)? {
        late::prepare(&container.bundle).map_err(Error::io("make a file in", &container.bundle))?;
    }
    let cwd = oci::working_dir(&input);
    let owner = ids.map_or(0, |ids| ids.first);
    layer::make_directory_in(&rootfs, Path::new(&cwd), owner).map_err(Error::io("make the working directory", cwd))?;
    let path = container.bundle.join("config.json");
    let bytes = serde_json::to_vec(&spec).map_err(|error| Error::Other(error.to_string()))?;
    // The environment in it is nobody else's business; IDs of a pod's user namespace get as far as this directory.
    let mut file = std::fs::OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(&bytes)).map_err(Error::io("write", path))?;
    steps::reached("container-written");
    container.update(|record| {
        record.user = Some(LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: user.groups.iter().map(|group| i64::from(*group)).collect(),
        });
        record.set_phase(ContainerPhase::Created);
        true
    });
    steps::reached("container-created");
    Ok(())
}

/// The overlay's root is its upper directory's; it is to look like the topmost layer's.
fn copy_root_attributes(lower: &[std::path::PathBuf], upper: &Path, ids: Option<&Ids>) -> Result<(), Error> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let Some(top) = lower.first() else { return Ok(()) };
    let metadata = std::fs::metadata(top).map_err(Error::io("inspect", top))?;
    let on_node = |id| ids.map_or(Ok(id), |ids| ids.on_node(id));
    let (uid, gid) = (on_node(metadata.uid())?, on_node(metadata.gid())?);
    chown(upper, Some(uid), Some(gid)).map_err(Error::io("change the owner of", upper))?;
    let mode = std::fs::Permissions::from_mode(metadata.mode() & 0o7777);
    std::fs::set_permissions(upper, mode).map_err(Error::io("change the mode of", upper))
}

/// Mounts an overlay. With a user namespace, the layers' owners are translated; the upper directory's are as the pod's
/// processes write them.
fn overlay(
    container: &Container,
    lower: &[std::path::PathBuf],
    upper: Option<(&Path, &Path)>,
    target: &Path,
    userns: Option<&File>,
) -> Result<(), Error> {
    let Some(userns) = userns else { return mounts::overlay(lower, upper, target) };
    let mut mapped = Vec::new();
    for (index, dir) in lower.iter().enumerate() {
        let point = container.bundle.join(format!("layer{index}"));
        std::fs::create_dir_all(&point).map_err(Error::io("make", &point))?;
        idmap::bind(dir, &point, Some(userns))?;
        mapped.push(point);
    }
    let outcome = mounts::overlay(&mapped, upper, target);
    // The overlay holds on to them.
    mapped.iter().for_each(|point| mounts::unmount_all(point));
    outcome
}

/// Mounts the sources of a container's mounts inside its bundle: processes of a user namespace cannot go through the
/// directories of the node's root to reach them. Owners are translated where the kubelet says so, and of the runtime's own files.
fn bring_mounts(
    container: &Container,
    config: &mut ContainerConfig,
    files: &mut [(&'static str, std::path::PathBuf)],
    (edits, devices): (&mut cdi::Edits, &mut [oci::DeviceNode]),
    userns: &File,
) -> Result<(), Error> {
    let bring = |index: usize, source: &Path, mapped: bool| {
        let point = container.bundle.join(format!("mount{index}"));
        let make = if source.is_dir() { std::fs::create_dir_all(&point) } else { File::create(&point).map(drop) };
        make.map_err(Error::io("make", &point))?;
        idmap::bind(source, &point, Some(userns).filter(|_| mapped))?;
        Ok::<_, Error>(point)
    };
    let count = config.mounts.len();
    for (index, mount) in config.mounts.iter_mut().enumerate() {
        let point = bring(index, Path::new(&mount.host_path), !mount.uid_mappings.is_empty())?;
        mount.host_path = point.to_string_lossy().into_owned();
    }
    for (index, (destination, source)) in files.iter_mut().enumerate() {
        // The pod's shared memory is written by its processes alone, as whoever they are.
        *source = bring(count + index, source, *destination != "/dev/shm")?;
    }
    let count = count + files.len();
    for (index, mount) in edits.mounts.iter_mut().filter(|mount| mount.is_bind()).enumerate() {
        let point = bring(count + index, Path::new(&mount.host_path), true)?;
        mount.host_path = point.to_string_lossy().into_owned();
    }
    let count = count + edits.mounts.len();
    for (index, device) in devices.iter_mut().enumerate().filter(|(_, device)| device.host != Path::new(&device.path)) {
        device.bound = Some(bring(count + index, &device.host, false)?);
    }
    edits.bind_devices(|index, host| bring(count + devices.len() + index, host, false))
}

/// The OCI runtime that runs the sandbox's containers, unless it is `libcontainer`.
fn handler(core: &Core, sandbox: &Sandbox) -> Result<Option<Handler>, Error> {
    let name = sandbox.with(|record| record.runtime_handler.clone());
    if name.is_empty() {
        return Ok(None);
    }
    let found = core.config.handlers.get(&name).cloned();
    found.map(Some).ok_or_else(|| Error::Other(format!("no runtime for {name:?} is configured")))
}

/// Reads a seccomp profile of the node's own and checks that filters can be made of it.
fn seccomp_profile(file: &Path) -> Result<serde_json::Value, Error> {
    let field = "linux.security_context.seccomp.localhost_ref";
    let bytes = layer::read_small(file, MAX_PROFILE_BYTES)
        .map_err(|error| Error::Invalid(format!("{field}: cannot load seccomp profile {}: {error}", file.display())))?;
    let invalid = |why: String| Error::Invalid(format!("{field}: seccomp profile {}: {why}", file.display()));
    let profile = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    crate::shim::seccomp::profile::compile(&profile).map_err(invalid)?;
    serde_json::to_value(&profile).map_err(|error| invalid(error.to_string()))
}

/// Mounts the images that are volumes, read-only, and points the mounts at them.
fn mount_images(
    core: &Core,
    container: &Container,
    config: &mut ContainerConfig,
    userns: Option<&File>,
) -> Result<(), Error> {
    let is_image = |mount: &&mut keelson_cri::v1::Mount| mount.image.as_ref().is_some_and(|i| !i.image.is_empty());
    for (index, mount) in config.mounts.iter_mut().filter(is_image).enumerate() {
        let name = mount.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image =
            core.images.find(&name).ok_or_else(|| Error::ImageNotFound(format!("image volume {name:?}: not found")))?;
        container.update(|record| {
            record.layers.extend(image.layers.iter().cloned());
            true
        });
        let target = container.bundle.join(format!("image{index}"));
        let empty = container.root.join("empty");
        for dir in [&target, &empty] {
            std::fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
        }
        let mut lower = core.images.layer_dirs(&image.layers);
        // A read-only overlay needs two layers.
        lower.push(empty);
        overlay(container, &lower, None, &target, userns)?;
        let sub_path = config.annotations.get(&format!("{}{}", keelson_cri::IMAGE_SUB_PATH, mount.container_path));
        let source = match sub_path {
            Some(sub_path) => inside_image(&target, sub_path)
                .map_err(|error| Error::Invalid(format!("image volume {name:?}: sub path {sub_path:?}: {error}")))?,
            None => target,
        };
        mount.host_path = source.to_string_lossy().into_owned();
        mount.readonly = true;
    }
    Ok(())
}

/// Where `sub_path` of the image that is mounted at `root` really is: links lead nowhere else.
fn inside_image(root: &Path, sub_path: &str) -> Result<std::path::PathBuf, Error> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
    let dir = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open", root))?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let found = openat2(&dir, sub_path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(Error::io("open", sub_path))?;
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
    // The image is read-only: what is there now stays there.
    std::fs::read_link(&link).map_err(Error::io("read", link))
}

/// Makes a bind mount's source if it is missing, as containerd does, and resolves its links.
fn prepare_source(mount: &mut keelson_cri::v1::Mount) -> Result<(), Error> {
    let source = Path::new(&mount.host_path);
    if !source.exists() {
        std::fs::create_dir_all(source).map_err(Error::io("make the mount source", source))?;
    }
    let resolved = std::fs::canonicalize(source).map_err(Error::io("resolve the mount source", source))?;
    mount.host_path = resolved.to_string_lossy().into_owned();
    Ok(())
}

fn files(sandbox: &Sandbox, config: &PodSandboxConfig) -> Vec<(&'static str, std::path::PathBuf)> {
    let mut files =
        vec![("/etc/hosts", sandbox.root.join("hosts")), ("/etc/resolv.conf", sandbox.root.join("resolv.conf"))];
    if !oci::host_network(config) {
        files.push(("/etc/hostname", sandbox.root.join("hostname")));
    }
    let own_ipc = oci::namespaces(config).ipc() != NamespaceMode::Node;
    files.push(("/dev/shm", if own_ipc { sandbox.state.join("shm") } else { "/dev/shm".into() }));
    files
}

/// The process namespace to join, for a pod that shares one or a container that joins another's.
fn pid_namespace(
    core: &Core,
    container: &Container,
    config: &ContainerConfig,
    sandbox_config: &PodSandboxConfig,
) -> Result<Option<std::path::PathBuf>, Error> {
    let options = oci::security(config).namespace_options.unwrap_or_else(|| oci::namespaces(sandbox_config));
    match options.pid() {
        NamespaceMode::Pod => Ok(Some(container.sandbox.namespaces().join("pid"))),
        NamespaceMode::Target => {
            let target = core.container(&options.target_id)?;
            match running_pid(&target) {
                Some(pid) => Ok(Some(format!("/proc/{pid}/ns/pid").into())),
                None => Err(Error::Precondition(format!("target container {} is not running", options.target_id))),
            }
        }
        NamespaceMode::Container | NamespaceMode::Node => Ok(None),
    }
}

/// PID of a running container's first process.
pub(crate) fn running_pid(container: &Container) -> Option<i32> {
    use crate::shim::{LaunchResult, process_start_time, read_json};
    match read_json(&container.bundle.join(LaunchResult::FILE)) {
        Ok(Some(LaunchResult::Started { pid, start_time, .. })) if process_start_time(pid) == Some(start_time) => {
            Some(pid)
        }
        _ => None,
    }
}

/// Starts a container that was created.
pub(crate) async fn start(core: &Arc<Core>, container: &Arc<Container>) -> Result<(), Error> {
    let _changing = container.changing.lock().await;
    if container.phase() != ContainerPhase::Created {
        return Err(Error::Precondition(format!("container {:?} is in {:?} state", container.id, container.state())));
    }
    if !container.sandbox.is_ready() {
        return Err(Error::Precondition(format!("sandbox container {:?} is not running", container.sandbox.id)));
    }
    let launch = launch(core, container)?;
    container.update(|record| {
        record.set_phase(ContainerPhase::Starting);
        true
    });
    steps::reached("start-recorded");
    let settled = container.settled.notified();
    tokio::pin!(settled);
    settled.as_mut().enable();
    let request = Request::Start { launch };
    let mut answer = core.in_turn(shim_client::ask(&container.sandbox.state, &request)).await;
    if answer.is_err() {
        // The shim was killed. Its successor says how far it got.
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, settled).await;
        answer = shim_client::ask(&container.sandbox.state, &Request::Await { id: container.id.clone() }).await;
    }
    steps::reached("start-answered");
    if answer.is_err() && !end_group(&container.cgroup()).await {
        tracing::error!(container = %container.id, "processes of a container that did not start are left");
    }
    let failure = match answer {
        Ok(Reply::Started { started_at_ns }) => {
            note_started(container, started_at_ns);
            steps::reached("start-running");
            core.emit(ContainerEventType::ContainerStartedEvent, &container.id, &container.sandbox);
            // It may have ended before anybody could say that it runs.
            crate::sandbox::catch_up(core, &container.sandbox);
            return Ok(());
        }
        Ok(Reply::Error { message }) => message,
        Ok(Reply::NotRunning) => "the pod's shim was killed while it started the container".into(),
        Ok(other) => format!("the pod's shim answered {other:?}"),
        Err(error) => error.to_string(),
    };
    let message = format!("failed to create container task: OCI runtime create failed: {failure}");
    container.update(|record| {
        record.started_at = now_ns();
        record.reason = START_ERROR.into();
        record.message.clone_from(&message);
        true
    });
    core.container_ended(container, &Exit { code: 128, finished_at_ns: now_ns(), oom_killed: false, unknown: false });
    Err(Error::Shim(message))
}

fn note_started(container: &Container, started_at_ns: i64) {
    let changed = container.update(|record| {
        record.started_at = started_at_ns;
        // Its end may have been told already.
        let running = record.phase() != ContainerPhase::Exited;
        if running {
            record.set_phase(ContainerPhase::Running);
        }
        true
    });
    if changed {
        let mut witness = container.witness.lock();
        // Whoever notes its end takes the witness afterwards.
        *witness = if container.is_running() { Witness::of(&container.bundle) } else { None };
    }
}

/// Finds out what became of a container that was running or about to while nobody listened to its shim: from the shim, if
/// there is one, from the exit file, or from its witness.
pub(crate) async fn settle(core: &Core, container: &Container, shim: bool) {
    let question = Request::Await { id: container.id.clone() };
    match container.phase() {
        ContainerPhase::Starting | ContainerPhase::Running => {}
        ContainerPhase::Exited if shim => {
            // Given up when no shim could be asked: it must not run now.
            if let Ok(Reply::Started { .. }) = shim_client::ask(&container.sandbox.state, &question).await {
                let request = Request::Kill { id: container.id.clone(), signal: cgroup::SIGKILL, all: true };
                let _ = shim_client::ask(&container.sandbox.state, &request).await;
            }
            return;
        }
        _ => return,
    }
    let answer = match shim {
        true => shim_client::ask(&container.sandbox.state, &question).await,
        false => Ok(Reply::NotRunning),
    };
    match answer {
        Ok(Reply::Started { started_at_ns }) => note_started(container, started_at_ns),
        Ok(_) => lost(core, container).await,
        // Killed as well: its successor will be asked.
        Err(_) => return,
    }
    container.settled.notify_waiters();
}

/// A container that its shim does not know: it never began, has ended, or was ended because nobody knew how far it got.
async fn lost(core: &Core, container: &Container) {
    if let Some(exit) = container.recorded_exit() {
        return core.container_ended(container, &exit);
    }
    let file = container.root.join(EXIT_FILE);
    if container.phase() == ContainerPhase::Starting && !container.bundle.join(Launch::FILE).exists() {
        container.update(|record| {
            record.set_phase(ContainerPhase::Created);
            true
        });
        return;
    }
    // Whatever runs of it would go on beside what is started in its place.
    if !end_group(&container.cgroup()).await {
        tracing::error!(container = %container.id, "processes of a lost container are left");
    }
    let witness = container.witness.lock().take();
    let code = match witness {
        Some(witness) => witness.exit_code().await,
        None => None,
    };
    let exit = Exit { code: code.unwrap_or(255), finished_at_ns: now_ns(), oom_killed: false, unknown: code.is_none() };
    if let Err(error) = write_json(&file, &exit) {
        tracing::warn!(container = %container.id, %error, "a container's end could not be noted");
    }
    core.container_ended(container, &exit);
}

/// Kills what is in a control group until it is empty; `false` if it does not get so.
pub(crate) async fn end_group(group: &Path) -> bool {
    for _ in 0..GROUP_ROUNDS {
        let group = group.to_owned();
        let round = spawn_blocking(move || {
            let empty = cgroup::is_empty(&group);
            if !empty {
                cgroup::signal_all(&group, cgroup::SIGKILL);
            }
            empty
        });
        if round.await.unwrap_or(false) {
            return true;
        }
        tokio::time::sleep(GROUP_PAUSE).await;
    }
    false
}

fn launch(core: &Core, container: &Container) -> Result<Launch, Error> {
    let config = container.with(|record| record.config.clone()).unwrap_or_default();
    let options =
        oci::security(&config).namespace_options.unwrap_or_else(|| oci::namespaces(&container.sandbox.config()));
    let ids = oci::user_namespace(&container.sandbox.config())?;
    let first_uid = ids.map_or(0, |ids| ids.first);
    let runtime = handler(core, &container.sandbox)?;
    Ok(container.with(|record| Launch {
        id: record.id.clone(),
        tty: config.tty,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        log_path: Some(record.log_path.clone()).filter(|path| !path.is_empty()).map(Into::into),
        own_pid_namespace: options.pid() == NamespaceMode::Container,
        cgroup: record.cgroup.clone().into(),
        exit_file: container.root.join(EXIT_FILE),
        uid: first_uid + record.user.as_ref().and_then(|user| u32::try_from(user.uid).ok()).unwrap_or(0),
        first_uid,
        runtime,
    }))
}

/// Stops a container: its stop signal, `grace` to obey, then SIGKILL. One that does not run is stopped already.
pub(crate) async fn stop(core: &Arc<Core>, container: &Arc<Container>, grace: Duration) -> Result<(), Error> {
    // One that is being started has to be there to be stopped.
    let _ = tokio::time::timeout(CHANGE_TIMEOUT, container.changing.lock()).await;
    if !matches!(container.phase(), ContainerPhase::Running | ContainerPhase::Starting) {
        return Ok(());
    }
    let name = container.with(|record| record.stop_signal.clone());
    let name = if name.is_empty() { DEFAULT_STOP_SIGNAL.to_owned() } else { name };
    if !grace.is_zero() {
        let signal = parse_signal(&name).ok_or_else(|| Error::Invalid(format!("unknown stop signal {name:?}")))?;
        if let Err(error) = kill(core, container, signal, false).await {
            tracing::warn!(container = %container.id, %error, "a container could not be asked to stop; it is killed when its time is over");
        }
        steps::reached("stop-signalled");
        if container.wait_ended(grace).await {
            return Ok(());
        }
    }
    let reached = kill(core, container, cgroup::SIGKILL, true).await?;
    steps::reached("stop-killed");
    if container.wait_ended(if reached { KILL_TIMEOUT } else { SUCCESSOR_TIMEOUT }).await {
        return Ok(());
    }
    if !reached && end_group(&container.cgroup()).await {
        // Nobody is there to tell.
        lost(core, container).await;
        return Ok(());
    }
    Err(Error::Deadline(format!(
        "container {:?} is still there {} s after SIGKILL",
        container.id,
        KILL_TIMEOUT.as_secs()
    )))
}

/// Signals a container by its shim; `false` if only its control group could be reached.
async fn kill(core: &Arc<Core>, container: &Arc<Container>, signal: i32, all: bool) -> Result<bool, Error> {
    let request = Request::Kill { id: container.id.clone(), signal, all };
    match shim_client::ask(&container.sandbox.state, &request).await {
        Ok(Reply::Ok) => Ok(true),
        // Ended meanwhile: its word is in the exit file, or on its way.
        Ok(Reply::NotRunning) => {
            crate::sandbox::catch_up(core, &container.sandbox);
            Ok(true)
        }
        Ok(Reply::Error { message }) => Err(Error::Shim(message)),
        Ok(other) => Err(Error::Shim(format!("the pod's shim answered {other:?}"))),
        // A shim that is being replaced; what runs is reached without it.
        Err(_) if all => {
            cgroup::signal_all(&container.cgroup(), cgroup::SIGKILL);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Real-time signals that programs may use; glibc keeps those before.
const FIRST_REAL_TIME: i32 = 34;
const LAST_REAL_TIME: i32 = 64;

/// A signal's number from its name, with or without `SIG`, or number; real-time ones as `SIGRTMIN+1` and `SIGRTMAX-1`.
pub(crate) fn parse_signal(name: &str) -> Option<i32> {
    use std::str::FromStr;
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    for (base, sign, first) in [("SIGRTMIN", "+", FIRST_REAL_TIME), ("SIGRTMAX", "-", -LAST_REAL_TIME)] {
        if let Some(rest) = full.strip_prefix(base) {
            let offset = if rest.is_empty() { 0 } else { rest.strip_prefix(sign)?.parse::<i32>().ok()? };
            let number = first.checked_add(offset)?.abs();
            return (FIRST_REAL_TIME..=LAST_REAL_TIME).contains(&number).then_some(number);
        }
    }
    nix::sys::signal::Signal::from_str(&full).ok().map(|signal| signal as i32)
}

/// Removes a container, ending it first if it runs.
pub(crate) async fn remove(core: &Arc<Core>, container: &Arc<Container>) -> Result<(), Error> {
    stop(core, container, Duration::ZERO).await?;
    let _changing = container.changing.lock().await;
    if !end_group(&container.cgroup()).await {
        // Once its record is gone, nobody would know of them.
        return Err(Error::Deadline(format!("processes of container {:?} do not die", container.id)));
    }
    discard(core, container).await;
    core.emit(ContainerEventType::ContainerDeletedEvent, &container.id, &container.sandbox);
    Ok(())
}

/// Deletes what a container has: mounts, control groups, directories, record. Used on half-made containers too.
pub(crate) async fn discard(core: &Arc<Core>, container: &Arc<Container>) {
    let doomed = container.clone();
    let undo = spawn_blocking(move || {
        for point in mounts::below(&doomed.bundle) {
            mounts::unmount_all(&point);
        }
        steps::reached("container-unmounted");
        if !cgroup::remove(&doomed.cgroup()) {
            cgroup::signal_all(&doomed.cgroup(), cgroup::SIGKILL);
            cgroup::remove(&doomed.cgroup());
        }
        huge_pages::remove_parents(&doomed.cgroup());
        for dir in [&doomed.bundle, &doomed.root] {
            if let Err(error) = layer::remove_tree(dir) {
                tracing::warn!(container = %doomed.id, %error, "a container's directory could not be removed");
            }
            steps::reached("container-half-removed");
        }
    });
    let _ = undo.await;
    core.forget_container(&container.id);
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals() {
        for (name, number) in [
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+15", Some(49)),
            ("SIGRTMAX-14", Some(50)),
            ("SIGRTMIN+31", None),
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGNOPE", None),
            ("0", None),
        ] {
            assert_eq!(parse_signal(name), number, "{name}");
        }
    }
}
