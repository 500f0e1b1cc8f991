//! A device plugin for tests, made as upstream's sample plugin is: it registers, lists devices whose health the test
//! sets, and says what it was asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_cri::device_plugin::{AllocateRequest, ContainerAllocateRequest};
use keelson_cri::device_plugin::{
    AllocateResponse, CdiDevice, ContainerAllocateResponse, ContainerPreferredAllocationResponse, Device, DeviceSpec,
    HEALTHY, ListAndWatchResponse, Mount, Options, Plugin, PluginServer, PreStartContainerRequest,
    PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest, UNHEALTHY, VERSION, register,
};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

/// The resource it offers.
pub const RESOURCE: &str = "keelson.test/thing";
const SOCKET: &str = "thing.sock";

/// A plugin that serves until it is dropped.
pub struct SamplePlugin {
    dir: PathBuf,
    inner: Arc<Inner>,
    _serving: DropGuard,
}

struct Inner {
    devices: watch::Sender<Vec<(String, bool)>>,
    /// Mounted read-only at `/thing` in containers.
    shared: PathBuf,
    calls: Mutex<Vec<String>>,
    /// `VENDOR/CLASS` by which devices are given as CDI devices, too.
    cdi_kind: Mutex<Option<String>>,
    stop: CancellationToken,
}

impl SamplePlugin {
    /// Serves `devices` (id and whether it works) in the kubelet's directory of plugins `dir`, without registering.
    pub fn start(dir: &Path, shared: &Path, devices: &[(&str, bool)]) -> std::io::Result<SamplePlugin> {
        let stop = CancellationToken::new();
        let devices = devices.iter().map(|(id, healthy)| (id.to_string(), *healthy)).collect();
        let inner = Arc::new(Inner {
            devices: watch::Sender::new(devices),
            shared: shared.into(),
            calls: Mutex::default(),
            cdi_kind: Mutex::default(),
            stop: stop.clone(),
        });
        let _ = std::fs::remove_file(dir.join(SOCKET));
        let incoming = UnixListenerStream::new(UnixListener::bind(dir.join(SOCKET))?);
        let server = tonic::transport::Server::builder().add_service(PluginServer::new(inner.clone()));
        let until = stop.clone();
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, until.cancelled_owned()));
        Ok(SamplePlugin { dir: dir.into(), inner, _serving: stop.drop_guard() })
    }

    /// Registers with the kubelet.
    pub async fn register(&self) -> Result<(), Status> {
        let request = RegisterRequest {
            version: VERSION.into(),
            endpoint: SOCKET.into(),
            resource_name: RESOURCE.into(),
            options: Some(self.inner.options()),
        };
        register(&self.dir.join("kubelet.sock"), request).await
    }

    /// Makes a device work or not.
    pub fn set_health(&self, id: &str, healthy: bool) {
        self.inner.devices.send_modify(|devices| {
            for (_, health) in devices.iter_mut().filter(|(known, _)| known == id) {
                *health = healthy;
            }
        });
    }

    /// From now on it also names the devices that it gives, as `KIND=ID`, for the runtime to look up among CDI's files.
    pub fn give_by_cdi(&self, kind: &str) {
        *self.inner.cdi_kind.lock() = Some(kind.to_owned());
    }

    /// What it was asked so far: `allocate d1,d2`, `preferred 1 of d1,d2`, `start d1`.
    pub fn calls(&self) -> Vec<String> {
        self.inner.calls.lock().clone()
    }
}

#[async_trait::async_trait]
impl Plugin for Inner {
    fn options(&self) -> Options {
        Options { pre_start_required: true, get_preferred_allocation_available: true }
    }

    fn list_and_watch(&self) -> mpsc::Receiver<Result<ListAndWatchResponse, Status>> {
        let (sender, receiver) = mpsc::channel(1);
        let (mut devices, stop) = (self.devices.subscribe(), self.stop.clone());
        tokio::spawn(async move {
            loop {
                let device = |(id, healthy): &(String, bool)| Device {
                    id: id.clone(),
                    health: if *healthy { HEALTHY } else { UNHEALTHY }.into(),
                    topology: None,
                };
                let list = ListAndWatchResponse { devices: devices.borrow_and_update().iter().map(device).collect() };
                if sender.send(Ok(list)).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = devices.changed() => if changed.is_err() { return },
                    () = stop.cancelled() => return,
                    () = sender.closed() => return,
                }
            }
        });
        receiver
    }

    /// Prefers the last ones.
    async fn preferred(&self, request: PreferredAllocationRequest) -> Result<PreferredAllocationResponse, Status> {
        let mut answer = PreferredAllocationResponse::default();
        for mut wish in request.container_requests {
            wish.available_device_ids.sort();
            let names = wish.available_device_ids.join(",");
            self.calls.lock().push(format!("preferred {} of {names}", wish.allocation_size));
            let count = usize::try_from(wish.allocation_size).unwrap_or(0);
            let device_ids = wish.available_device_ids.into_iter().rev().take(count).collect();
            answer.container_responses.push(ContainerPreferredAllocationResponse { device_ids });
        }
        Ok(answer)
    }

    async fn allocate(&self, request: AllocateRequest) -> Result<AllocateResponse, Status> {
        let one = |mut wish: ContainerAllocateRequest| {
            wish.devices_ids.sort();
            let names = wish.devices_ids.join(",");
            self.calls.lock().push(format!("allocate {names}"));
            let kind = self.cdi_kind.lock().clone();
            let cdi =
                |kind: &String| wish.devices_ids.iter().map(|id| CdiDevice { name: format!("{kind}={id}") }).collect();
            let cdi_devices = kind.as_ref().map(cdi).unwrap_or_default();
            ContainerAllocateResponse {
                envs: [("THINGS".to_string(), names)].into(),
                mounts: vec![Mount {
                    container_path: "/thing".into(),
                    host_path: self.shared.to_string_lossy().into_owned(),
                    read_only: true,
                }],
                devices: vec![DeviceSpec {
                    container_path: "/dev/thing".into(),
                    host_path: "/dev/zero".into(),
                    permissions: "r".into(),
                }],
                annotations: [("keelson.test/thing".to_string(), "given".to_string())].into(),
                cdi_devices,
            }
        };
        Ok(AllocateResponse { container_responses: request.container_requests.into_iter().map(one).collect() })
    }

    async fn pre_start(&self, mut request: PreStartContainerRequest) -> Result<(), Status> {
        request.devices_ids.sort();
        self.calls.lock().push(format!("start {}", request.devices_ids.join(",")));
        Ok(())
    }
}
