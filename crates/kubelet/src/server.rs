//! The kubelet's HTTPS server: logs, exec, attach, port-forward and what runs here, for the API server and for whom it
//! allows. Every request is authenticated and authorized; there is no anonymous access and no read-only port.

mod auth;
mod counted;
mod logs;
mod metrics;
mod node_logs;
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
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::certificates::{self, Serving};
use crate::config::file::KubeletConfiguration;
use crate::context::Context;
use crate::error::Error;
use crate::runtime::labels;
use auth::{Auth, User};
use counted::Counted;
use route::Route;

/// Connections at once, those that were upgraded to streams among them; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// A client that has not finished its TLS handshake or its request's head by then is dropped.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to the health port at once.
const MAX_HEALTH_CONNECTIONS: usize = 64;

/// A bound server.
pub(crate) struct Server {
    /// `None` when it is not to be served.
    listener: Option<TcpListener>,
    healthz: Option<TcpListener>,
    /// Replaced when the files it is made of change.
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
    port: u16,
    /// The certificate, where it comes by request.
    serving: Option<Arc<Serving>>,
}

impl Server {
    /// Binds the configured address; port 0 takes a free one.
    pub(crate) async fn bind(config: &crate::Config) -> Result<Server, Error> {
        let serving = config.server_tls_bootstrap.then(|| Arc::new(Serving::default()));
        if let Some(serving) = &serving {
            serving.load(config)?;
        }
        let tls = watch::Sender::new(Arc::new(tls::server_config(config, serving.clone())?));
        let bind = async |address: SocketAddr| {
            TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
        };
        let healthz = match config.healthz_port {
            0 => None,
            port => Some(bind(SocketAddr::new(config.healthz_bind_address, port)).await?),
        };
        let listener = match config.enable_server {
            true => Some(bind(SocketAddr::new(config.address, config.port)).await?),
            false => None,
        };
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let port = address.map_or(config.port, |address| address.port());
        Ok(Server { listener, healthz, tls, port, serving })
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Serves until `shutdown`.
    pub(crate) async fn run(self, ctx: Arc<Context>, shutdown: CancellationToken) {
        if let Some(listener) = self.healthz {
            tokio::spawn(serve_healthz(ctx.clone(), listener, shutdown.clone()));
        }
        let Some(listener) = self.listener else { return };
        let tls = self.tls.subscribe();
        tokio::spawn({
            let (ctx, serving, stop) = (ctx.clone(), self.serving.clone(), shutdown.clone());
            async move {
                let _ = stop.run_until_cancelled(tls::follow(&ctx.config, serving, &self.tls)).await;
            }
        });
        if let Some(serving) = self.serving {
            let (ctx, stop) = (ctx.clone(), shutdown.clone());
            tokio::spawn(async move { certificates::keep_serving(&ctx.client, &ctx.config, &serving, stop).await });
        }
        let auth = Arc::new(Auth::new(&ctx));
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
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
            let (acceptor, ctx, auth) = (TlsAcceptor::from(tls.borrow().clone()), ctx.clone(), auth.clone());
            let closing = shutdown.clone();
            let _ = stream.set_nodelay(true);
            let stream = Counted::new(stream, permit, shutdown.child_token());
            tokio::spawn(async move {
                tokio::select! {
                    () = serve(stream, acceptor, ctx, auth) => {}
                    () = closing.cancelled() => {}
                }
            });
        }
    }
}

async fn serve(stream: Counted<TcpStream>, acceptor: TlsAcceptor, ctx: Arc<Context>, auth: Arc<Auth>) {
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
    let config = &ctx.config;
    match Route::of(request.method(), &path) {
        Ok(route) if route.is_for_debugging() && !config.enable_debugging_handlers => {
            text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.")
        }
        Ok(Route::Healthz) => health(ctx, None),
        Ok(Route::Health(check)) => health(ctx, Some(&check)),
        Ok(Route::Configz) => json(&serde_json::json!({ "kubeletconfig": configz(config) })),
        Ok(Route::NodeLogs(_)) if !config.enable_system_log_handler => {
            text(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.")
        }
        Ok(Route::NodeLogs(below)) => {
            let query = request.uri().query().unwrap_or_default();
            node_logs::answer(&config.system_log_dir, &below, query, config.enable_system_log_query).await
        }
        Ok(Route::RunningPods) => running_pods(ctx).await,
        Ok(Route::Pods) => pods(ctx),
        Ok(Route::Metrics) => metrics::own(ctx).await,
        Ok(Route::MetricsResource) => metrics::resource(ctx).await,
        Ok(Route::MetricsCadvisor) => metrics::cadvisor(ctx).await,
        Ok(Route::MetricsProbes) => metrics::probes(ctx),
        Ok(Route::StatsSummary) => metrics::summary(ctx, request.uri().query().unwrap_or_default()).await,
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
    json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn json(value: &serde_json::Value) -> Response<ProxyBody> {
    let mut response = Response::new(full(value.to_string()));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// The configuration in use, with its kind.
fn configz(config: &crate::Config) -> serde_json::Value {
    let mut value = serde_json::to_value(KubeletConfiguration::of(config)).unwrap_or_default();
    if let serde_json::Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
        fields.insert("kind".into(), "KubeletConfiguration".into());
        fields.insert("apiVersion".into(), "kubelet.config.k8s.io/v1beta1".into());
    }
    value
}

/// Whether the kubelet is well: it answers (`ping`, `log`), and the runtime does, without which pods stand still
/// (`syncloop`).
fn health(ctx: &Context, check: Option<&str>) -> Response<ProxyBody> {
    let down = ctx.health.borrow().runtime_error.clone();
    match (check, down) {
        (None | Some("ping" | "log"), None) | (Some("ping" | "log"), Some(_)) => text(StatusCode::OK, "ok"),
        (Some("syncloop"), None) => text(StatusCode::OK, "ok"),
        (None | Some("syncloop"), Some(why)) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("[+]ping ok\n[+]log ok\n[-]syncloop failed: {why}\nhealthz check failed"),
        ),
        (Some(_), _) => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// `/healthz` for probes of the machine's own, without TLS; on loopback by default.
async fn serve_healthz(ctx: Arc<Context>, listener: TcpListener, shutdown: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_HEALTH_CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => return,
        };
        let (ctx, closing) = (ctx.clone(), shutdown.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = match Route::of(request.method(), request.uri().path()) {
                    Ok(Route::Healthz) => health(&ctx, None),
                    Ok(Route::Health(check)) => health(&ctx, Some(&check)),
                    _ => text(StatusCode::NOT_FOUND, "404 page not found"),
                };
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                () = closing.cancelled() => {}
            }
            drop(permit);
        });
    }
}

/// What the runtime has, in upstream's shape: no more of a pod than its name and its running containers' names.
async fn running_pods(ctx: &Context) -> Response<ProxyBody> {
    let containers = match ctx.runtime.list_containers(None).await {
        Ok(containers) => containers,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut pods: std::collections::BTreeMap<String, serde_json::Value> = std::collections::BTreeMap::new();
    for container in containers {
        if container.state != keelson_cri::v1::ContainerState::ContainerRunning as i32 {
            continue;
        }
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        let pod = pods.entry(label(labels::POD_UID)).or_insert_with(|| {
            serde_json::json!({
                "metadata": {"name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE),
                    "uid": label(labels::POD_UID)},
                "spec": {"containers": []}, "status": {},
            })
        });
        let image = container.image.clone().unwrap_or_default().image;
        if let Some(list) = pod.pointer_mut("/spec/containers").and_then(serde_json::Value::as_array_mut) {
            list.push(serde_json::json!({"name": label(labels::CONTAINER_NAME), "image": image, "resources": {}}));
        }
    }
    let items: Vec<_> = pods.into_values().collect();
    json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}
