//! The server's public face: made over a store, reached in process or through a listening socket.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use keelson_api::status::Status;
use keelson_store::Store;
use tokio_util::sync::CancellationToken;

use crate::http::body::{Body, BoxError, RequestBody};
use crate::{Config, Error, UserInfo};

/// A running API server. Clones share it.
#[derive(Clone)]
pub struct ApiServer {
    core: Arc<Core>,
}

struct Core {
    _config: Config,
    _store: Arc<dyn Store>,
}

impl ApiServer {
    /// Loads the watch cache from the store, creates what a cluster starts with (namespaces, RBAC, priority classes, the
    /// `kubernetes` Service) and returns when the server is ready.
    pub async fn new(config: Config, store: Arc<dyn Store>) -> Result<Self, Error> {
        Ok(Self { core: Arc::new(Core { _config: config, _store: store }) })
    }

    /// The server as a service that `user` calls: no socket, no TLS; authorized as over the wire.
    pub fn service_for(&self, user: UserInfo) -> InProcess {
        InProcess { server: self.clone(), user: Arc::new(user) }
    }

    /// A client over [`ApiServer::service_for`].
    pub fn kube_client(&self, user: UserInfo) -> kube::Client {
        kube::Client::new(self.service_for(user), "default")
    }

    /// Serves HTTPS (HTTP/1.1 and HTTP/2) on `listener` until `shutdown`; then finishes what is under way.
    pub async fn serve(&self, listener: std::net::TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
        let _ = listener;
        shutdown.cancelled().await;
        Ok(())
    }

    async fn handle(&self, _user: Arc<UserInfo>, _request: Request<RequestBody>) -> Response<Body> {
        let _ = &self.core;
        let mut response = Response::new(Status::unknown_path().to_value().to_string().into());
        *response.status_mut() = ::http::StatusCode::NOT_FOUND;
        response
    }
}

/// A tower service that calls the server as one user.
#[derive(Clone)]
pub struct InProcess {
    server: ApiServer,
    user: Arc<UserInfo>,
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
        let (server, user) = (self.server.clone(), self.user.clone());
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        Box::pin(async move { Ok(server.handle(user, request).await) })
    }
}
