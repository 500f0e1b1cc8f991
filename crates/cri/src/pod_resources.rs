//! The pod resources interface, `v1`: which devices, CPUs and memory containers have for themselves. Fields are numbered as
//! in upstream's `podresources/v1/api.proto`. A client and a server.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::device_plugin::{Empty, TopologyInfo};

/// All pods of a node that have not ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pub pod_resources: Vec<PodResources>,
}

/// Asks for one pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetRequest {
    #[prost(string, tag = "1")]
    pub pod_name: String,
    #[prost(string, tag = "2")]
    pub pod_namespace: String,
}

/// One pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetResponse {
    #[prost(message, optional, tag = "1")]
    pub pod_resources: Option<PodResources>,
}

/// What the node could give away.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AllocatableResponse {
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<ContainerDevices>,
    #[prost(int64, repeated, tag = "2")]
    pub cpu_ids: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    pub memory: Vec<ContainerMemory>,
}

/// A pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodResources {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(message, repeated, tag = "3")]
    pub containers: Vec<ContainerResources>,
}

/// A container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerResources {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<ContainerDevices>,
    /// CPUs that are its alone.
    #[prost(int64, repeated, tag = "3")]
    pub cpu_ids: Vec<i64>,
    #[prost(message, repeated, tag = "4")]
    pub memory: Vec<ContainerMemory>,
}

/// Memory of one kind.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerMemory {
    /// `memory`, `hugepages-2Mi`.
    #[prost(string, tag = "1")]
    pub memory_type: String,
    /// Bytes.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// Devices of one resource at one place.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerDevices {
    #[prost(string, tag = "1")]
    pub resource_name: String,
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// A client.
#[derive(Clone, Debug)]
pub struct Client(Grpc<Channel>);

impl Client {
    /// A client of the kubelet that listens on `socket`; nothing is dialled yet.
    pub fn new(socket: &Path) -> Client {
        let channel = crate::channel(socket.to_path_buf());
        Client(Grpc::new(channel).max_decoding_message_size(crate::MAX_MESSAGE_SIZE_BYTES))
    }

    async fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(method);
        Ok(grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await?.into_inner())
    }

    /// All pods.
    pub async fn list(&self) -> Result<ListResponse, Status> {
        self.call("/v1.PodResourcesLister/List", Empty {}).await
    }

    /// One pod.
    pub async fn get(&self, request: GetRequest) -> Result<GetResponse, Status> {
        self.call("/v1.PodResourcesLister/Get", request).await
    }

    /// What the node could give away.
    pub async fn allocatable(&self) -> Result<AllocatableResponse, Status> {
        self.call("/v1.PodResourcesLister/GetAllocatableResources", Empty {}).await
    }
}

/// Who answers.
pub trait Lister: Send + Sync + 'static {
    /// Whether a request is let in now; asked before each.
    fn admit(&self) -> Result<(), Status>;
    /// All pods.
    fn list(&self) -> Result<ListResponse, Status>;
    /// One pod.
    fn get(&self, request: GetRequest) -> Result<GetResponse, Status>;
    /// What the node could give away.
    fn allocatable(&self) -> Result<AllocatableResponse, Status>;
}

/// Serves a [`Lister`].
pub struct Server<L>(Arc<L>);

impl<L> Server<L> {
    /// Serves `lister`.
    pub fn new(lister: Arc<L>) -> Self {
        Server(lister)
    }
}

impl<L> Clone for Server<L> {
    fn clone(&self) -> Self {
        Server(self.0.clone())
    }
}

impl<L> NamedService for Server<L> {
    const NAME: &'static str = "v1.PodResourcesLister";
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

fn answer<Q, A>(
    request: http::Request<Body>,
    make: impl Fn(Q) -> Result<A, Status> + Clone + Send + Sync + 'static,
) -> Answer
where
    Q: prost::Message + Default + Send + Sync + 'static,
    A: prost::Message + Send + Sync + 'static,
{
    Box::pin(async move {
        let handler = tower::service_fn(move |request: Request<Q>| {
            let answer = make(request.into_inner()).map(Response::new);
            async move { answer }
        });
        Ok(tonic::server::Grpc::new(ProstCodec::<A, Q>::default()).unary(handler, request).await)
    })
}

impl<L: Lister> tower::Service<http::Request<Body>> for Server<L> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let own = self.0.clone();
        if let Err(status) = own.admit() {
            return Box::pin(async move { Ok(status.into_http()) });
        }
        match request.uri().path() {
            "/v1.PodResourcesLister/List" => answer(request, move |_: Empty| own.list()),
            "/v1.PodResourcesLister/Get" => answer(request, move |message: GetRequest| own.get(message)),
            "/v1.PodResourcesLister/GetAllocatableResources" => answer(request, move |_: Empty| own.allocatable()),
            _ => Box::pin(async { Ok(Status::unimplemented("unknown method").into_http()) }),
        }
    }
}
