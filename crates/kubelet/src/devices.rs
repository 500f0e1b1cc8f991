//! Device plugins: programs that offer devices as extended resources. They register at `device-plugins/kubelet.sock`
//! below the kubelet's root directory, list their devices, and say what a container needs to use those it is given.

mod checkpoint;
mod state;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use keelson_cri::device_plugin as api;
use keelson_cri::v1 as cri;
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::managers;
use crate::managers::hints::{Hints, Mask};
use crate::pod::view;
use crate::quantity::{self, ResourceList};
use state::{Plugin, Share, State};

/// Resources that plugins offer, at most.
const MAX_RESOURCES: usize = 256;
/// Devices of one plugin, at most.
const MAX_DEVICES: usize = 65_536;
/// A plugin that is gone this long offers nothing any more.
const GRACE: Duration = Duration::from_secs(5 * 60);
/// A plugin's answers may take this long.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// The devices of this node.
pub(crate) struct Devices {
    dir: PathBuf,
    state: Mutex<State>,
    /// Told when what there is changes.
    pub changed: Notify,
}

/// What a container's devices add to its configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Additions {
    pub envs: Vec<(String, String)>,
    pub mounts: Vec<cri::Mount>,
    pub devices: Vec<cri::Device>,
    pub annotations: HashMap<String, String>,
    pub cdi_devices: Vec<cri::CdiDevice>,
}

impl Devices {
    /// Devices of the kubelet whose directory is `root`, and who has them, as far as is known from before.
    pub(crate) fn new(root: &Path) -> Arc<Devices> {
        let dir = root.join("device-plugins");
        let state = checkpoint::read(&dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "who has which devices is forgotten");
            State::default()
        });
        Arc::new(Devices { dir, state: Mutex::new(state), changed: Notify::new() })
    }

    /// Lets plugins register until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let known: Vec<String> = self.state.lock().resources.keys().cloned().collect();
        for resource in known {
            self.forget_later(resource, 0);
        }
        let listener = match self.listen() {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "device plugins cannot register");
                return;
            }
        };
        let (own, stop) = (self.clone(), shutdown.clone());
        let service = api::RegistrationServer::new(move |request| own.register(request, &stop));
        let incoming = UnixListenerStream::new(listener);
        let mut server = tonic::transport::Server::builder().max_connection_age(Duration::from_secs(600));
        let serving = server.add_service(service).serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(%error, "device plugins cannot register any more");
        }
    }

    /// A new socket. That the old one goes is how plugins learn that the kubelet was restarted; theirs go, too.
    fn listen(&self) -> Result<UnixListener, Error> {
        let dir = &self.dir;
        fs::DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(Error::file("create", dir))?;
        for entry in fs::read_dir(dir).map_err(Error::file("read", dir))?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
                fs::remove_file(entry.path()).map_err(Error::file("remove", entry.path()))?;
            }
        }
        let socket = dir.join("kubelet.sock");
        UnixListener::bind(&socket).map_err(Error::file("listen on", socket))
    }

    fn register(
        self: &Arc<Self>,
        request: api::RegisterRequest,
        shutdown: &CancellationToken,
    ) -> Result<(), tonic::Status> {
        let refuse = |message: String| Err(tonic::Status::unknown(message));
        if request.version != api::VERSION {
            return refuse(format!(
                "requested API version, {:?}, is not supported by kubelet. Supported version is {:?}",
                request.version,
                [api::VERSION]
            ));
        }
        let resource = request.resource_name;
        if !is_extended(&resource) {
            return refuse(format!("the ResourceName {resource:?} is invalid"));
        }
        if request.endpoint.is_empty() || request.endpoint.contains('/') || request.endpoint.starts_with('.') {
            return refuse(format!("the Endpoint {:?} is no socket's name", request.endpoint));
        }
        let client = api::PluginClient::new(&self.dir.join(&request.endpoint));
        let generation = {
            let mut state = self.state.lock();
            if !state.resources.contains_key(&resource) && state.resources.len() >= MAX_RESOURCES {
                return Err(tonic::Status::resource_exhausted("too many device plugins"));
            }
            let known = state.resources.entry(resource.clone()).or_default();
            known.generation += 1;
            known.plugin = Some(Plugin { client: client.clone(), options: request.options.unwrap_or_default() });
            known.generation
        };
        tracing::info!(resource, endpoint = request.endpoint, "a device plugin registered");
        let (own, stop) = (self.clone(), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                why = own.follow(&client, &resource, generation) => {
                    tracing::warn!(resource, why, "a device plugin is gone");
                    if own.state.lock().stopped(&resource, generation) {
                        own.changed.notify_one();
                        own.forget_later(resource, generation);
                    }
                }
                () = stop.cancelled() => {}
            }
        });
        Ok(())
    }

    /// Takes in the plugin's lists until it ends; gives why it did.
    async fn follow(&self, client: &api::PluginClient, resource: &str, generation: u64) -> String {
        let mut lists = match client.list_and_watch().await {
            Ok(lists) => lists,
            Err(status) => return status.message().to_string(),
        };
        loop {
            match lists.message().await {
                Ok(Some(list)) if list.devices.len() > MAX_DEVICES => return "it lists too many devices".into(),
                Ok(Some(list)) => {
                    if self.state.lock().update(resource, generation, list.devices) {
                        self.changed.notify_one();
                        self.save().await;
                    }
                }
                Ok(None) => return "it ended its list".into(),
                Err(status) => return status.message().to_string(),
            }
        }
    }

    /// Takes the devices of a plugin that does not come back out of the node's capacity.
    fn forget_later(self: &Arc<Self>, resource: String, generation: u64) {
        let own = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            let Some(own) = own.upgrade() else { return };
            {
                let mut state = own.state.lock();
                let Some(known) = state.resources.get_mut(&resource) else { return };
                if known.generation != generation || known.plugin.is_some() {
                    return;
                }
                known.devices.clear();
            }
            own.changed.notify_one();
            own.save().await;
        });
    }

    /// Adds what plugins offer to the node's capacity and to what pods may use of it.
    pub(crate) fn add_to(&self, capacity: &mut ResourceList, allocatable: &mut ResourceList) {
        for (resource, all, healthy) in self.state.lock().counts() {
            let count = |number: usize| quantity::from_count(i64::try_from(number).unwrap_or(i64::MAX));
            capacity.insert(resource.to_string(), count(all));
            allocatable.insert(resource.to_string(), count(healthy));
        }
    }

    /// Gives a container its devices, unless it has them: from the NUMA nodes of `affinity` as far as they have them, and
    /// those of the pod's containers in `over`, which have ended. Whoever calls this gives one pod after the other its
    /// devices. The error is why the pod may not run here.
    pub(crate) async fn allocate(
        &self,
        pod: &Pod,
        container: &Container,
        over: &[&str],
        affinity: Option<Mask>,
    ) -> Result<(), String> {
        let mut given = false;
        for (resource, required) in self.wishes(container) {
            given |= self.allocate_one(pod, container, &resource, required, over, affinity).await?;
        }
        if given {
            self.save().await;
        }
        Ok(())
    }

    /// What NUMA nodes would suit a container, by resource.
    pub(crate) fn hints(&self, pod: &Pod, container: &Container, over: &[&str], nodes: &BTreeSet<usize>) -> Vec<Hints> {
        let wishes = self.wishes(container);
        let state = self.state.lock();
        let of = |(resource, required): (String, usize)| {
            state.hints(view::uid(pod), &[container.name.as_str()], &resource, required, over, nodes)
        };
        wishes.into_iter().map(of).collect()
    }

    /// What NUMA nodes would suit all containers of a pod, by resource.
    pub(crate) fn pod_hints(&self, pod: &Pod, nodes: &BTreeSet<usize>) -> Vec<Hints> {
        let wishes: Vec<_> = view::all_containers(pod).map(|container| (container, self.wishes(container))).collect();
        let resources: BTreeSet<&String> =
            wishes.iter().flat_map(|(_, wishes)| wishes.iter().map(|(resource, _)| resource)).collect();
        let names: Vec<&str> = view::all_containers(pod).map(|container| container.name.as_str()).collect();
        let state = self.state.lock();
        let of = |resource: &String| {
            let wish = |container: &Container| -> u64 {
                let own = wishes.iter().filter(|(known, _)| known.name == container.name);
                own.flat_map(|(_, wishes)| wishes)
                    .filter(|(known, _)| known == resource)
                    .map(|(_, count)| *count as u64)
                    .sum()
            };
            let required = usize::try_from(managers::most_at_once(pod, wish)).unwrap_or(usize::MAX);
            state.hints(view::uid(pod), &names, resource, required, &[], nodes)
        };
        resources.into_iter().map(of).collect()
    }

    /// The devices that a container asks for, as far as plugins give them.
    fn wishes(&self, container: &Container) -> Vec<(String, usize)> {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        let state = self.state.lock();
        limits
            .into_iter()
            .flatten()
            .filter(|(name, _)| state.knows(name))
            .map(|(name, amount)| (name.clone(), usize::try_from(quantity::value(amount)).unwrap_or(0)))
            .collect()
    }

    async fn allocate_one(
        &self,
        pod: &Pod,
        container: &Container,
        resource: &str,
        required: usize,
        reusable: &[&str],
        affinity: Option<Mask>,
    ) -> Result<bool, String> {
        let uid = view::uid(pod);
        let (choice, plugin) = {
            let state = self.state.lock();
            let Some(choice) = state.choice((uid, &container.name), resource, required, reusable, affinity)? else {
                return Ok(false);
            };
            let plugin = state.resources.get(resource).and_then(|known| known.plugin.clone());
            (choice, plugin.ok_or_else(|| format!("unknown Device Plugin {resource}"))?)
        };
        let mut preferred = Vec::new();
        if plugin.options.get_preferred_allocation_available && choice.offered().len() > choice.size {
            let request = api::PreferredAllocationRequest {
                container_requests: vec![api::ContainerPreferredAllocationRequest {
                    available_device_ids: choice.offered().into_iter().collect(),
                    must_include_device_ids: choice.must.iter().cloned().collect(),
                    allocation_size: i32::try_from(choice.size).unwrap_or(i32::MAX),
                }],
            };
            let mut answer = call(plugin.client.preferred(request)).await?;
            preferred = answer.container_responses.pop().map(|response| response.device_ids).unwrap_or_default();
        }
        let devices = choice.take(&preferred);
        let request = api::AllocateRequest {
            container_requests: vec![api::ContainerAllocateRequest { devices_ids: devices.iter().cloned().collect() }],
        };
        let mut answer = call(plugin.client.allocate(request)).await?;
        let Some(response) = answer.container_responses.pop() else {
            return Err("no containers return in allocation response".into());
        };
        let key = (uid.to_string(), container.name.clone(), resource.to_string());
        self.state.lock().shares.insert(key, Share { devices, response: Some(response) });
        Ok(true)
    }

    /// What the container's devices add to it; plugins that want to hear of its start do.
    pub(crate) async fn before_start(&self, pod: &Pod, container: &str) -> Result<Additions, Error> {
        let shares: Vec<(String, Share, Option<Plugin>)> = {
            let state = self.state.lock();
            let own = state.shares.iter().filter(|((uid, name, _), _)| uid == view::uid(pod) && name == container);
            own.map(|((_, _, resource), share)| {
                let plugin = state.resources.get(resource).and_then(|known| known.plugin.clone());
                (resource.clone(), share.clone(), plugin)
            })
            .collect()
        };
        let mut additions = Additions::default();
        for (_, share, plugin) in shares {
            if let Some(plugin) = plugin.filter(|plugin| plugin.options.pre_start_required) {
                let devices_ids = share.devices.iter().cloned().collect();
                let told = call(plugin.client.pre_start(api::PreStartContainerRequest { devices_ids })).await;
                told.map_err(|why| {
                    Error::message(format!("device plugin PreStartContainer rpc failed with err: {why}"))
                })?;
            }
            additions.add(share.response.unwrap_or_default());
        }
        Ok(additions)
    }

    /// A pod needs its devices no more.
    pub(crate) async fn release(&self, pod_uid: &str) {
        let freed = {
            let mut state = self.state.lock();
            let before = state.shares.len();
            state.shares.retain(|key, _| key.0 != pod_uid);
            before != state.shares.len()
        };
        if freed {
            self.save().await;
        }
    }

    /// Resource, id and NUMA nodes of each device that a container has.
    pub(crate) fn of_container(&self, pod_uid: &str, container: &str) -> Vec<(String, String, Option<Mask>)> {
        let state = self.state.lock();
        let own = state.shares.iter().filter(|((uid, name, _), _)| uid == pod_uid && name == container);
        own.flat_map(|((_, _, resource), share)| {
            let known = state.resources.get(resource);
            let near = move |id: &String| known.and_then(|known| known.devices.get(id)).and_then(|device| device.near);
            share.devices.iter().map(move |id| (resource.clone(), id.clone(), near(id)))
        })
        .collect()
    }

    /// Resource, id and NUMA nodes of each device that works.
    pub(crate) fn healthy(&self) -> Vec<(String, String, Option<Mask>)> {
        let state = self.state.lock();
        let of = |(resource, known): (&String, &state::Resource)| {
            let healthy = known.devices.iter().filter(|(_, device)| device.healthy);
            healthy.map(|(id, device)| (resource.clone(), id.clone(), device.near)).collect::<Vec<_>>()
        };
        state.resources.iter().flat_map(of).collect()
    }

    /// Uids of pods that have devices.
    pub(crate) fn pods(&self) -> BTreeSet<String> {
        self.state.lock().shares.keys().map(|key| key.0.clone()).collect()
    }

    async fn save(&self) {
        let (dir, state) = (self.dir.clone(), self.state.lock().clone());
        match tokio::task::spawn_blocking(move || checkpoint::write(&dir, &state)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "who has which devices is not written down"),
            Err(error) => tracing::error!(%error, "who has which devices is not written down"),
        }
    }
}

impl Additions {
    fn add(&mut self, response: api::ContainerAllocateResponse) {
        let mut envs: Vec<_> = response.envs.into_iter().collect();
        envs.sort();
        self.envs.extend(envs);
        self.mounts.extend(response.mounts.into_iter().map(|mount| cri::Mount {
            container_path: mount.container_path,
            host_path: mount.host_path,
            readonly: mount.read_only,
            ..Default::default()
        }));
        self.devices.extend(response.devices.into_iter().map(|device| cri::Device {
            container_path: device.container_path,
            host_path: device.host_path,
            permissions: device.permissions,
        }));
        self.annotations.extend(response.annotations);
        self.cdi_devices.extend(response.cdi_devices.into_iter().map(|device| cri::CdiDevice { name: device.name }));
    }
}

async fn call<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, String> {
    match tokio::time::timeout(CALL_LIMIT, Box::pin(call)).await {
        Ok(answer) => answer.map_err(|status| Error::Cri(status).to_string()),
        Err(_) => Err("rpc error: code = DeadlineExceeded desc = context deadline exceeded".into()),
    }
}

/// Whether it is a name that Kubernetes keeps for others: `vendor.domain/resource`.
fn is_extended(name: &str) -> bool {
    let Some((domain, resource)) = name.split_once('/') else { return false };
    let good = |text: &str, longest: usize, more: &[char]| {
        (1..=longest).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    let native = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") || domain.starts_with("requests.");
    !native && good(domain, 253 - "requests.".len(), &['-', '.']) && good(resource, 63, &['-', '_', '.'])
}

#[cfg(test)]
mod tests {
    use super::is_extended;

    #[test]
    fn names_of_resources() {
        for (name, good) in [
            ("vendor.example/gpu", true),
            ("cpu", false),
            ("kubernetes.io/x", false),
            ("a.kubernetes.io/x", false),
            ("requests.example/x", false),
            ("vendor.example/", false),
            ("vendor.example/a/b", false),
            ("../x", false),
        ] {
            assert_eq!(is_extended(name), good, "{name}");
        }
    }
}
