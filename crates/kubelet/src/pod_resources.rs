//! The pod resources endpoint, `pod-resources/kubelet.sock` below the kubelet's root directory: tells monitors on the node
//! which devices, CPUs and memory containers have for themselves. Its socket's owner alone may ask.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use keelson_cri::device_plugin::{NumaNode, TopologyInfo};
use keelson_cri::pod_resources as api;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Registry};
use tokio::net::UnixListener;
use tokio::time::Instant;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::context::Context;
use crate::error::Error;
use crate::managers::cpuset::CpuSet;
use crate::managers::hints::Mask;
use crate::managers::state_file::Block;
use crate::metrics::counters;
use crate::pod::view;

/// Requests a second, and so many at once.
const RATE: f64 = 100.0;
const BURST: f64 = 10.0;
/// Requests of one connection at a time.
const STREAMS: u32 = 16;

/// What is counted of the endpoint.
#[derive(Clone, Debug)]
pub(crate) struct EndpointMetrics {
    all: IntCounterVec,
    /// Of list, get and get_allocatable: requests and errors.
    each: [(IntCounterVec, IntCounterVec); 3],
}

impl EndpointMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |kind: &str, about: &str| {
            let name = format!("kubelet_pod_resources_endpoint_{kind}");
            let help =
                format!("[ALPHA] Number of {about} to the PodResource endpoint. Broken down by server api version.");
            counters(registry, &name, &help, &["server_api_version"])
        };
        let pair = |method: &str| -> Result<_, prometheus::Error> {
            let requests = counter(&format!("requests_{method}"), &format!("{method} requests"))?;
            Ok((requests, counter(&format!("errors_{method}"), &format!("{method} requests that failed"))?))
        };
        Ok(EndpointMetrics {
            all: counter("requests_total", "requests")?,
            each: [pair("list")?, pair("get")?, pair("get_allocatable")?],
        })
    }

    fn counted<T>(&self, method: usize, answer: Result<T, Status>) -> Result<T, Status> {
        self.all.with_label_values(&["v1"]).inc();
        if let Some((requests, errors)) = self.each.get(method) {
            requests.with_label_values(&["v1"]).inc();
            errors.with_label_values(&["v1"]).inc_by(answer.is_err().into());
        }
        answer
    }
}

/// Serves until `shutdown`.
pub(crate) async fn run(ctx: Arc<Context>, shutdown: CancellationToken) {
    let listener = match listen(&ctx) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "nobody can ask for pods' resources"),
    };
    let lister = Lister { ctx, bucket: Mutex::new(Bucket { tokens: BURST, at: Instant::now() }) };
    let mut server = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS)
        .max_connection_age(Duration::from_secs(600));
    let service = api::Server::new(Arc::new(lister));
    let incoming = UnixListenerStream::new(listener);
    let serving = server.add_service(service).serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "nobody can ask for pods' resources any more");
    }
}

fn listen(ctx: &Context) -> Result<UnixListener, Error> {
    let dir = ctx.config.root_dir.join("pod-resources");
    fs::DirBuilder::new().recursive(true).mode(0o750).create(&dir).map_err(Error::file("create", &dir))?;
    let socket = dir.join("kubelet.sock");
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::file("remove", socket)(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&socket).map_err(Error::file("listen on", &socket))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).map_err(Error::file("chmod", &socket))?;
    Ok(listener)
}

/// Upstream's limit: a bucket of tokens.
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        self.tokens = (self.tokens + now.duration_since(self.at).as_secs_f64() * RATE).min(BURST);
        self.at = now;
        let some = self.tokens >= 1.0;
        if some {
            self.tokens -= 1.0;
        }
        some
    }
}

struct Lister {
    ctx: Arc<Context>,
    bucket: Mutex<Bucket>,
}

impl Lister {
    fn pods(&self) -> impl Iterator<Item = Arc<Pod>> + use<> {
        let pods = self.ctx.pods.all().into_iter().map(|(_, handle)| handle.pod.borrow().pod.clone());
        pods.filter(|pod| !matches!(view::phase(pod), "Succeeded" | "Failed"))
    }

    fn of_pod(&self, pod: &Pod) -> api::PodResources {
        let sidecars = view::init_containers(pod).iter().filter(|container| view::is_sidecar(container));
        let container = |container: &Container| {
            let (cpus, memory) = self.ctx.managers.given_to(view::uid(pod), &container.name);
            api::ContainerResources {
                name: container.name.clone(),
                devices: devices(self.ctx.devices.of_container(view::uid(pod), &container.name)),
                cpu_ids: numbers(&cpus),
                memory: memory.iter().map(memory_of).collect(),
            }
        };
        api::PodResources {
            name: view::name(pod).into(),
            namespace: view::namespace(pod).into(),
            containers: sidecars.chain(view::containers(pod)).map(container).collect(),
        }
    }
}

impl api::Lister for Lister {
    fn admit(&self) -> Result<(), Status> {
        match self.bucket.lock().take(Instant::now()) {
            true => Ok(()),
            false => Err(Status::resource_exhausted("rejected by rate limit")),
        }
    }

    fn list(&self) -> Result<api::ListResponse, Status> {
        let pod_resources = self.pods().map(|pod| self.of_pod(&pod)).collect();
        self.ctx.metrics.endpoint().counted(0, Ok(api::ListResponse { pod_resources }))
    }

    fn get(&self, request: api::GetRequest) -> Result<api::GetResponse, Status> {
        let api::GetRequest { pod_name: name, pod_namespace: namespace } = request;
        let found = self.pods().find(|pod| view::name(pod) == name && view::namespace(pod) == namespace);
        let found = found.ok_or_else(|| Status::unknown(format!("pod {name} in namespace {namespace} not found")));
        let answer = found.map(|pod| api::GetResponse { pod_resources: Some(self.of_pod(&pod)) });
        self.ctx.metrics.endpoint().counted(1, answer)
    }

    fn allocatable(&self) -> Result<api::AllocatableResponse, Status> {
        let (cpus, memory) = self.ctx.managers.allocatable();
        let answer = api::AllocatableResponse {
            devices: devices(self.ctx.devices.healthy()),
            cpu_ids: numbers(&cpus),
            memory: memory.iter().map(memory_of).collect(),
        };
        self.ctx.metrics.endpoint().counted(2, Ok(answer))
    }
}

fn numbers(cpus: &CpuSet) -> Vec<i64> {
    cpus.iter().filter_map(|cpu| i64::try_from(cpu).ok()).collect()
}

fn at(nodes: impl IntoIterator<Item = usize>) -> TopologyInfo {
    let nodes = nodes.into_iter().filter_map(|node| i64::try_from(node).ok());
    TopologyInfo { nodes: nodes.map(|id| NumaNode { id }).collect() }
}

fn memory_of(block: &Block) -> api::ContainerMemory {
    api::ContainerMemory {
        memory_type: block.kind.clone(),
        size: block.size,
        topology: Some(at(block.numa_affinity.iter().copied())),
    }
}

/// One entry each, as upstream.
fn devices(found: Vec<(String, String, Option<Mask>)>) -> Vec<api::ContainerDevices> {
    let one = |(resource_name, id, near): (String, String, Option<Mask>)| api::ContainerDevices {
        resource_name,
        device_ids: vec![id],
        topology: near.map(|near| at(near.nodes())),
    };
    found.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_a_rate() {
        let mut bucket = Bucket { tokens: BURST, at: Instant::now() };
        let mut let_in = |count: usize| (0..count).filter(|_| bucket.take(Instant::now())).count();
        assert_eq!(let_in(15), 10);
        tokio::time::advance(Duration::from_millis(31)).await;
        assert_eq!(let_in(15), 3);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(let_in(15), 10);
    }
}
