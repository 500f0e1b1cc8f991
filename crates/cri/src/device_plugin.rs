//! The device plugin interface, `v1beta1`: its messages, the kubelet's end (a client of plugins, a server of
//! registrations) and a plugin's end. Fields are numbered as in upstream's `deviceplugin/v1beta1/api.proto`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// The only version there is.
pub const VERSION: &str = "v1beta1";
/// A device that can be used.
pub const HEALTHY: &str = "Healthy";
/// One that cannot.
pub const UNHEALTHY: &str = "Unhealthy";

/// No content.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// What a plugin wants to be asked.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Options {
    /// `PreStartContainer` before each start.
    #[prost(bool, tag = "1")]
    pub pre_start_required: bool,
    /// `GetPreferredAllocation` before each choice.
    #[prost(bool, tag = "2")]
    pub get_preferred_allocation_available: bool,
}

/// A plugin makes itself known.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegisterRequest {
    #[prost(string, tag = "1")]
    pub version: String,
    /// Name of its socket in the kubelet's directory of plugins.
    #[prost(string, tag = "2")]
    pub endpoint: String,
    #[prost(string, tag = "3")]
    pub resource_name: String,
    #[prost(message, optional, tag = "4")]
    pub options: Option<Options>,
}

/// All of a plugin's devices.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListAndWatchResponse {
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<Device>,
}

/// A device.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Device {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub health: String,
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// Where a device is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TopologyInfo {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NumaNode>,
}

/// A NUMA node.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct NumaNode {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// A container with these devices is about to start.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PreStartContainerRequest {
    #[prost(string, repeated, tag = "1")]
    pub devices_ids: Vec<String>,
}

/// Which devices are best, per container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PreferredAllocationRequest {
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerPreferredAllocationRequest>,
}

/// One container's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerPreferredAllocationRequest {
    #[prost(string, repeated, tag = "1")]
    pub available_device_ids: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub must_include_device_ids: Vec<String>,
    #[prost(int32, tag = "3")]
    pub allocation_size: i32,
}

/// The plugin's choice, per container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PreferredAllocationResponse {
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerPreferredAllocationResponse>,
}

/// One container's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerPreferredAllocationResponse {
    #[prost(string, repeated, tag = "1")]
    pub device_ids: Vec<String>,
}

/// Devices are taken, per container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AllocateRequest {
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerAllocateRequest>,
}

/// One container's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerAllocateRequest {
    #[prost(string, repeated, tag = "1")]
    pub devices_ids: Vec<String>,
}

/// What containers need to use them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AllocateResponse {
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerAllocateResponse>,
}

/// One container's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerAllocateResponse {
    #[prost(map = "string, string", tag = "1")]
    pub envs: HashMap<String, String>,
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<Mount>,
    #[prost(message, repeated, tag = "3")]
    pub devices: Vec<DeviceSpec>,
    #[prost(map = "string, string", tag = "4")]
    pub annotations: HashMap<String, String>,
    #[prost(message, repeated, tag = "5")]
    pub cdi_devices: Vec<CdiDevice>,
}

/// A bind mount.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Mount {
    #[prost(string, tag = "1")]
    pub container_path: String,
    #[prost(string, tag = "2")]
    pub host_path: String,
    #[prost(bool, tag = "3")]
    pub read_only: bool,
}

/// A device node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceSpec {
    #[prost(string, tag = "1")]
    pub container_path: String,
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Of `r`, `w`, `m`.
    #[prost(string, tag = "3")]
    pub permissions: String,
}

/// A fully qualified CDI name, `vendor.com/class=device`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CdiDevice {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A plugin, as the kubelet calls it.
#[derive(Clone, Debug)]
pub struct PluginClient(Grpc<Channel>);

impl PluginClient {
    /// A client of the plugin that listens on `socket`; nothing is dialled yet.
    pub fn new(socket: &Path) -> PluginClient {
        PluginClient(
            Grpc::new(crate::channel(socket.to_path_buf())).max_decoding_message_size(crate::MAX_MESSAGE_SIZE_BYTES),
        )
    }

    async fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.0.clone();
        ready(&mut grpc).await?;
        let path = PathAndQuery::from_static(method);
        Ok(grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await?.into_inner())
    }

    /// What the plugin wants to be asked.
    pub async fn options(&self) -> Result<Options, Status> {
        self.call("/v1beta1.DevicePlugin/GetDevicePluginOptions", Empty {}).await
    }

    /// Its devices now and after each change.
    pub async fn list_and_watch(&self) -> Result<Streaming<ListAndWatchResponse>, Status> {
        let mut grpc = self.0.clone();
        ready(&mut grpc).await?;
        let path = PathAndQuery::from_static("/v1beta1.DevicePlugin/ListAndWatch");
        let codec = ProstCodec::<Empty, ListAndWatchResponse>::default();
        Ok(grpc.server_streaming(Request::new(Empty {}), path, codec).await?.into_inner())
    }

    /// Which of the available devices it would take.
    pub async fn preferred(&self, request: PreferredAllocationRequest) -> Result<PreferredAllocationResponse, Status> {
        self.call("/v1beta1.DevicePlugin/GetPreferredAllocation", request).await
    }

    /// Takes devices.
    pub async fn allocate(&self, request: AllocateRequest) -> Result<AllocateResponse, Status> {
        self.call("/v1beta1.DevicePlugin/Allocate", request).await
    }

    /// Tells of a start.
    pub async fn pre_start(&self, request: PreStartContainerRequest) -> Result<(), Status> {
        self.call::<_, Empty>("/v1beta1.DevicePlugin/PreStartContainer", request).await.map(drop)
    }
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))
}

/// Registers a plugin with the kubelet that listens on `socket`.
pub async fn register(socket: &Path, request: RegisterRequest) -> Result<(), Status> {
    PluginClient::new(socket).call::<_, Empty>("/v1beta1.Registration/Register", request).await.map(drop)
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// gRPC's answer to a method that is not there.
fn unknown_method() -> Answer {
    Box::pin(async { Ok(Status::unimplemented("unknown method").into_http()) })
}

/// The kubelet's end: told of each plugin that registers.
#[derive(Clone)]
pub struct RegistrationServer(Arc<dyn Fn(RegisterRequest) -> Result<(), Status> + Send + Sync>);

impl RegistrationServer {
    /// Calls `register` for each request.
    pub fn new(register: impl Fn(RegisterRequest) -> Result<(), Status> + Send + Sync + 'static) -> Self {
        RegistrationServer(Arc::new(register))
    }
}

impl NamedService for RegistrationServer {
    const NAME: &'static str = "v1beta1.Registration";
}

impl tower::Service<http::Request<Body>> for RegistrationServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        if request.uri().path() != "/v1beta1.Registration/Register" {
            return unknown_method();
        }
        let register = self.0.clone();
        Box::pin(async move {
            let handler = tower::service_fn(move |request: Request<RegisterRequest>| {
                let answer = register(request.into_inner()).map(|()| Response::new(Empty {}));
                async move { answer }
            });
            Ok(tonic::server::Grpc::new(ProstCodec::default()).unary(handler, request).await)
        })
    }
}

/// A plugin's end.
#[async_trait::async_trait]
pub trait Plugin: Send + Sync + 'static {
    /// What it wants to be asked.
    fn options(&self) -> Options;
    /// Its devices now and after each change.
    fn list_and_watch(&self) -> tokio::sync::mpsc::Receiver<Result<ListAndWatchResponse, Status>>;
    /// Which devices it would take.
    async fn preferred(&self, request: PreferredAllocationRequest) -> Result<PreferredAllocationResponse, Status>;
    /// Devices are taken.
    async fn allocate(&self, request: AllocateRequest) -> Result<AllocateResponse, Status>;
    /// A container is about to start.
    async fn pre_start(&self, request: PreStartContainerRequest) -> Result<(), Status>;
}

/// Serves a plugin.
pub struct PluginServer<P>(Arc<P>);

impl<P> PluginServer<P> {
    /// Serves `plugin`.
    pub fn new(plugin: Arc<P>) -> Self {
        PluginServer(plugin)
    }
}

impl<P> Clone for PluginServer<P> {
    fn clone(&self) -> Self {
        PluginServer(self.0.clone())
    }
}

impl<P> NamedService for PluginServer<P> {
    const NAME: &'static str = "v1beta1.DevicePlugin";
}

/// Answers one method with `$call`, which is given the plugin and the message.
macro_rules! unary {
    ($plugin:expr, $request:expr, |$own:ident, $message:ident: $kind:ty| $call:expr) => {{
        let (plugin, request) = ($plugin, $request);
        Box::pin(async move {
            let handler = tower::service_fn(move |request: Request<$kind>| {
                let ($own, $message) = (plugin.clone(), request.into_inner());
                async move { Ok::<_, Status>(Response::new($call)) }
            });
            Ok(tonic::server::Grpc::new(ProstCodec::default()).unary(handler, request).await)
        })
    }};
}

impl<P: Plugin> tower::Service<http::Request<Body>> for PluginServer<P> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let plugin = self.0.clone();
        match request.uri().path() {
            "/v1beta1.DevicePlugin/GetDevicePluginOptions" => {
                unary!(plugin, request, |own, _message: Empty| own.options())
            }
            "/v1beta1.DevicePlugin/ListAndWatch" => Box::pin(async move {
                let handler = tower::service_fn(move |_: Request<Empty>| {
                    let devices = ReceiverStream::new(plugin.list_and_watch());
                    async move { Ok::<_, Status>(Response::new(devices)) }
                });
                let mut grpc = tonic::server::Grpc::new(ProstCodec::<ListAndWatchResponse, Empty>::default());
                Ok(grpc.server_streaming(handler, request).await)
            }),
            "/v1beta1.DevicePlugin/GetPreferredAllocation" => {
                unary!(plugin, request, |own, message: PreferredAllocationRequest| own.preferred(message).await?)
            }
            "/v1beta1.DevicePlugin/Allocate" => {
                unary!(plugin, request, |own, message: AllocateRequest| own.allocate(message).await?)
            }
            "/v1beta1.DevicePlugin/PreStartContainer" => {
                unary!(plugin, request, |own, message: PreStartContainerRequest| {
                    own.pre_start(message).await?;
                    Empty {}
                })
            }
            _ => unknown_method(),
        }
    }
}
