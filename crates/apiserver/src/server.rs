//! The server's public face: made over a store, reached in process or through a listening socket.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::{HeaderValue, USER_AGENT};
use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use keelson_store::Store;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::admission::settings::Settings;
use crate::admission::{self, Extensions};
use crate::aggregator::{self, Aggregator};
use crate::alloc::ServiceAllocator;
use crate::alloc::repair::Repair;
use crate::audit::Audit;
use crate::authn::{self, Authenticator};
use crate::authz::Authorizer;
use crate::authz::chain::Chain;
use crate::authz::index::RbacIndex;
use crate::authz::node::NodeAuthorizer;
use crate::bootstrap;
use crate::cache::Cache;
use crate::cache::feed::{Feed, Listener};
use crate::compaction;
use crate::config::features;
use crate::core::Core;
use crate::dispatch::Caller;
use crate::encryption::{self, Encryption};
use crate::executor::{Executor, Flow};
use crate::flow::FlowControl;
use crate::http::body::{Body, BoxError};
use crate::http::listen;
use crate::kubelet::Kubelets;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::{Config, Error, UserInfo, crd, dispatch};

/// A running API server. Clones share it; when the last one is gone, its tasks end.
#[derive(Clone)]
pub struct ApiServer {
    core: Arc<Core>,
    _stop: Arc<DropGuard>,
}

impl ApiServer {
    /// Loads the watch cache from the store, creates what a cluster starts with (namespaces, RBAC, priority classes, the
    /// `kubernetes` Service) and returns when the server is ready.
    pub async fn new(config: Config, store: Arc<dyn Store>) -> Result<Self, Error> {
        Box::pin(Self::assemble(config, store)).await
    }

    async fn assemble(config: Config, store: Arc<dyn Store>) -> Result<Self, Error> {
        let kinds = features::served(&config.feature_gates, &config.runtime_config)?;
        let (registry, caches) = Registry::built_in(kinds);
        let (cache, installs) = Cache::new(caches);
        let cache = Arc::new(cache);
        let rbac = Arc::new(RbacIndex::default());
        let allocator = Arc::new(ServiceAllocator::new(config.service_cidr, config.node_ports.clone()));
        let shutdown = CancellationToken::new();
        let node = Arc::new(NodeAuthorizer::new(cache.clone(), bootstrap::node_rules()));
        let metrics =
            Metrics::new().map_err(|error| Error::Bootstrap { object: "metrics".into(), why: error.to_string() })?;
        let store = metrics.measured(store, cache.clone());
        let flow = FlowControl::new(config.max_requests_inflight + config.max_mutating_requests_inflight);
        let extensions = Arc::new(Extensions::default());
        let admission = Settings::new(&config)?;
        let namespaces = admission.namespaces.clone();
        let listeners: Vec<Arc<dyn Listener>> =
            vec![rbac.clone(), node.clone(), allocator.clone(), flow.clone(), extensions.clone(), namespaces];
        let encryption = Arc::new(Encryption::load(config.encryption.as_ref())?);
        let feed = Feed::new(cache.clone(), store.clone(), encryption.clone(), listeners, installs);
        let chain = Chain::new(&config.authorization)?;
        let authenticator = Authenticator::new(&config, cache.clone())?;
        let kubelets = config.kubelet.as_ref().map(Kubelets::new).transpose()?;
        let aggregator = Aggregator::new(&config)?;
        let audit = Audit::new(&config)?;
        let revision = feed.load().await?;
        encryption.check_made(config.encryption.as_ref(), &cache)?;
        let executor = Executor::new();
        // Every write waits for it: among requests, it is one user more, whose name nobody can have.
        executor.spawn(Flow::of(executor.key("")), feed.run(revision, shutdown.clone())).detach();
        let core = Arc::new_cyclic(|me| Core {
            me: me.clone(),
            config,
            store,
            registry,
            cache,
            encryption,
            authenticator,
            authorizer: Authorizer { rbac, node, chain },
            extensions,
            admission,
            allocator,
            kubelets,
            aggregator,
            limits: Limits::default(),
            metrics,
            flow: flow.clone(),
            discovery: Default::default(),
            openapi: Default::default(),
            audit,
            executor,
            requests: Default::default(),
            stopping: CancellationToken::new(),
            draining: shutdown.child_token(),
            left: CancellationToken::new(),
            shutdown: shutdown.clone(),
        });
        core.extensions.attach(&core);
        let stop = Arc::new(shutdown.drop_guard());
        crd::start(&core).await?;
        let repair = Repair::take_over(&core).await?;
        bootstrap::run(&core).await?;
        bootstrap::endpoints::start(&core).await?;
        aggregator::start(&core).await?;
        let chain = core.clone();
        tokio::spawn(async move { chain.authorizer.chain.keep(chain.shutdown.clone()).await });
        tokio::spawn(bootstrap::aggregation::run(core.clone()));
        tokio::spawn(admission::typecheck::run(core.clone()));
        tokio::spawn(repair.run());
        tokio::spawn(bootstrap::later::run(core.clone()));
        tokio::spawn(bootstrap::identity::run(core.clone()));
        tokio::spawn(bootstrap::trust::run(core.clone()));
        tokio::spawn(authn::keep(core.clone()));
        tokio::spawn(flow.run(core.shutdown.clone()));
        if !core.store.is_shared() && !core.config.event_ttl.is_zero() {
            tokio::spawn(bootstrap::event_ttl::run(core.clone()));
        }
        tokio::spawn(compaction::run(core.clone()));
        if let Some(file) = core.config.encryption.clone().filter(|file| file.automatic_reload) {
            tokio::spawn(encryption::reload::run(core.clone(), file));
        }
        Ok(Self { core, _stop: stop })
    }

    /// The server as a service that `user` calls: no socket, no TLS; authorized as over the wire.
    pub fn service_for(&self, user: UserInfo) -> InProcess {
        InProcess { server: self.clone(), user: Arc::new(user), program: None }
    }

    /// A client over [`ApiServer::service_for`].
    pub fn kube_client(&self, user: UserInfo) -> kube::Client {
        kube::Client::new(self.service_for(user), "default")
    }

    /// The same for a component that is known by the name of its program, which managed fields give as the manager of what
    /// it writes: `kube-scheduler`.
    pub fn kube_client_of(&self, user: UserInfo, program: &'static str) -> kube::Client {
        let program = Some(HeaderValue::from_static(program));
        kube::Client::new(InProcess { program, ..self.service_for(user) }, "default")
    }

    /// How long [`ApiServer::serve`] takes at most to end, beyond what the audit log's backends need.
    pub fn longest_shutdown(&self) -> std::time::Duration {
        listen::longest_shutdown(&self.core.config)
    }

    /// Serves HTTPS (HTTP/1.1 and HTTP/2) on `listener` until `shutdown`; then finishes what is under way.
    pub async fn serve(&self, listener: std::net::TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
        listen::serve(self.core.clone(), listener, shutdown).await
    }
}

/// A tower service that calls the server as one user.
#[derive(Clone)]
pub struct InProcess {
    server: ApiServer,
    user: Arc<UserInfo>,
    /// The `User-Agent` of requests that have none.
    program: Option<HeaderValue>,
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (core, user) = (self.server.core.clone(), self.user.clone());
        let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        if let Some(program) = &self.program {
            request.headers_mut().entry(USER_AGENT).or_insert_with(|| program.clone());
        }
        Box::pin(async move { Ok(dispatch::handle(core, Caller::InProcess(user), request).await) })
    }
}
