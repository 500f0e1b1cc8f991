//! The kubelet's HTTPS server: logs, exec, attach, port-forward and what runs here, for the API server and for whom it
//! allows. Every request is authenticated and authorized; there is no anonymous access and no read-only port.

mod auth;
mod logs;
mod route;
mod stream;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use keelson_streaming::proxy::ProxyBody;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::error::Error;
use crate::pod::observed::State;
use auth::{Auth, User};
use route::Route;

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// A client that has not finished its TLS handshake or its request's head by then is dropped.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A bound server.
pub(crate) struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    port: u16,
}

impl Server {
    /// Binds the configured address; port 0 takes a free one.
    pub(crate) async fn bind(config: &crate::Config) -> Result<Server, Error> {
        let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(config)?));
        let address = SocketAddr::new(config.address, config.port);
        let listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let port = listener.local_addr().map_err(listen)?.port();
        Ok(Server { listener, acceptor, port })
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Serves until `shutdown`.
    pub(crate) async fn run(self, ctx: Arc<Context>, shutdown: CancellationToken) {
        let auth = Arc::new(Auth::new(&ctx));
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of descriptors, mostly: others must close first.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = shutdown.cancelled() => return,
            };
            let (acceptor, ctx, auth) = (self.acceptor.clone(), ctx.clone(), auth.clone());
            let closing = shutdown.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = serve(stream, acceptor, ctx, auth) => {}
                    () = closing.cancelled() => {}
                }
                drop(permit);
            });
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, ctx: Arc<Context>, auth: Arc<Auth>) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await else { return };
    let certificate =
        stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(User::of_certificate);
    let service = service_fn(move |request| {
        let (ctx, auth, certificate) = (ctx.clone(), auth.clone(), certificate.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(&ctx, &auth, certificate, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended badly");
    }
}

async fn answer(
    ctx: &Arc<Context>,
    auth: &Auth,
    certificate: Option<User>,
    request: Request<Incoming>,
) -> Response<ProxyBody> {
    let Some(user) = auth.authenticate(certificate, request.headers()).await else {
        return text(StatusCode::UNAUTHORIZED, "Unauthorized");
    };
    let path = request.uri().path().to_string();
    let subresources = route::subresources(&path);
    let verb = route::verb(request.method());
    if !auth.authorize(&user, verb, &path, subresources).await {
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
            user.name,
            subresources.join(" ")
        );
        return text(StatusCode::FORBIDDEN, message);
    }
    match Route::of(request.method(), &path) {
        Ok(Route::Healthz) => text(StatusCode::OK, "ok"),
        Ok(Route::Pods) => pods(ctx),
        Ok(Route::Metrics) => metrics(ctx),
        Ok(Route::Logs(target)) => logs::answer(ctx, &target, request.uri().query().unwrap_or_default()).await,
        Ok(Route::Exec(target)) => stream::exec(ctx, &target, request).await,
        Ok(Route::Attach(target)) => stream::attach(ctx, &target, request).await,
        Ok(Route::PortForward(target)) => stream::port_forward(ctx, &target, request).await,
        Err(status) => text(status, status.canonical_reason().unwrap_or_default()),
    }
}

/// A plain answer.
fn text(status: StatusCode, message: impl Into<String>) -> Response<ProxyBody> {
    let mut response = Response::new(full(message.into() + if status == StatusCode::OK { "" } else { "\n" }));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn full(content: impl Into<Bytes>) -> ProxyBody {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

fn pods(ctx: &Context) -> Response<ProxyBody> {
    let items: Vec<_> = ctx.pods.all().into_iter().map(|(_, handle)| handle.pod.borrow().pod.clone()).collect();
    let list = serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    let mut response = Response::new(full(list.to_string()));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn metrics(ctx: &Context) -> Response<ProxyBody> {
    let mut states = [0usize; 4];
    let pods = ctx.pods.all();
    for (_, handle) in &pods {
        for record in &handle.observed.borrow().containers {
            states[match record.state {
                State::Created => 0,
                State::Running => 1,
                State::Exited => 2,
                State::Unknown => 3,
            }] += 1;
        }
    }
    let [created, running, exited, unknown] = states;
    text(
        StatusCode::OK,
        format!(
            "# HELP kubelet_running_pods Number of pods that this kubelet keeps\n# TYPE kubelet_running_pods gauge\n\
             kubelet_running_pods {}\n# HELP kubelet_running_containers Number of containers by state\n\
             # TYPE kubelet_running_containers gauge\n\
             kubelet_running_containers{{container_state=\"created\"}} {created}\n\
             kubelet_running_containers{{container_state=\"running\"}} {running}\n\
             kubelet_running_containers{{container_state=\"exited\"}} {exited}\n\
             kubelet_running_containers{{container_state=\"unknown\"}} {unknown}\n",
            pods.len()
        ),
    )
}
