//! exec, attach and port-forward: the runtime says where its streaming server is, and the client's connection is joined to
//! it. SPDY passes through untouched; WebSocket ends here and goes on as SPDY.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use keelson_cri::v1 as cri;
use keelson_streaming::idle::Idle;
use keelson_streaming::proxy::{ProxyBody, proxy_upgrade};
use keelson_streaming::remotecommand::{self, Client, Options, Outcome, Pending};
use keelson_streaming::upgrade::{Rejected, Transport, dial, is_websocket};
use keelson_streaming::{portforward, spdy};

use super::route::Target;
use super::text;
use crate::context::{Context, PodHandle};
use crate::pod::observed::State;
use crate::pod::view;

/// Decoded pairs of a query.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// A query's or path's text without its percent signs.
pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (_, Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', None) => {
                bytes.push(b' ');
                rest = after;
            }
            (byte, None) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Why a stream cannot be: the answer's status and what it says.
type Refusal = (StatusCode, String);

fn find(ctx: &Context, target: &Target) -> Result<Arc<PodHandle>, Refusal> {
    let handle = ctx.pods.named(&target.namespace, &target.pod);
    let fits = |handle: &Arc<PodHandle>| match &target.uid {
        Some(uid) => view::uid(&handle.pod.borrow().pod) == uid,
        None => true,
    };
    handle.filter(fits).ok_or_else(|| (StatusCode::NOT_FOUND, "pod does not exist".to_owned()))
}

/// The id of the running container.
fn container(ctx: &Context, target: &Target) -> Result<String, Refusal> {
    let handle = find(ctx, target)?;
    let observed = handle.observed.borrow().clone();
    match observed.newest(&target.container).filter(|record| record.state == State::Running) {
        Some(record) => Ok(record.id.clone()),
        // Words that are no YAML: an SPDY client takes any that are for a `Status`.
        None => Err((StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({:?})", target.container))),
    }
}

pub(super) async fn exec(ctx: &Context, target: &Target, request: Request<Incoming>) -> Response<ProxyBody> {
    let query = request.uri().query().unwrap_or_default().to_string();
    let options = match Options::from_query(&query) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let id = match container(ctx, target) {
        Ok(id) => id,
        Err(refusal) => return refuse_command(request, options, refusal),
    };
    let cmd = pairs(&query).filter(|(name, _)| name == "command").map(|(_, value)| value).collect();
    let wanted = cri::ExecRequest {
        container_id: id,
        cmd,
        tty: options.tty,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    join_command(ctx.runtime.exec(wanted).await, options, request, limits(ctx)).await
}

pub(super) async fn attach(ctx: &Context, target: &Target, request: Request<Incoming>) -> Response<ProxyBody> {
    let options = match Options::from_query(request.uri().query().unwrap_or_default()) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let id = match container(ctx, target) {
        Ok(id) => id,
        Err(refusal) => return refuse_command(request, options, refusal),
    };
    let wanted = cri::AttachRequest {
        container_id: id,
        stdin: options.stdin,
        tty: options.tty,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    join_command(ctx.runtime.attach(wanted).await, options, request, limits(ctx)).await
}

/// An SPDY client reads a refusal in the answer. A WebSocket client is let in and told there, as by upstream's API server.
fn refuse_command(mut request: Request<Incoming>, options: Options, (code, message): Refusal) -> Response<ProxyBody> {
    if !is_websocket(request.headers()) {
        return text(code, message);
    }
    match remotecommand::serve(&mut request, options, spdy::Config::default()) {
        Ok((response, pending)) => {
            tell(pending, &message);
            switching(response)
        }
        Err(rejected) => refuse(rejected),
    }
}

fn tell(pending: Pending, why: &str) {
    let outcome = Outcome::Failure(format!("Internal error occurred: unable to upgrade connection: {why}"));
    tokio::spawn(async move {
        let told = async {
            pending.streams().await?.status.send(&outcome).await?;
            Ok::<_, keelson_streaming::Error>(())
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "a client left before it was told why it cannot have its streams");
        }
    });
}

fn runtime_failed(error: impl std::fmt::Display) -> Response<ProxyBody> {
    text(StatusCode::INTERNAL_SERVER_ERROR, format!("error streaming from the container runtime: {error}"))
}

/// The limits of a client's connection.
fn limits(ctx: &Context) -> spdy::Config {
    spdy::Config { idle_timeout: ctx.config.streaming_connection_idle_timeout, ..spdy::Config::default() }
}

/// The request as the runtime's streaming server is to see it; a connection that is `idle` for so long is closed.
async fn pass_through(mut request: Request<Incoming>, url: &Uri, idle: Duration) -> Response<ProxyBody> {
    let path = url.path_and_query().map_or("/", |path| path.as_str()).parse();
    let host = url.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let (Ok(path), Some(host)) = (path, host) else { return runtime_failed("its URL cannot be used") };
    *request.uri_mut() = path;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().remove(http::header::AUTHORIZATION);
    let backend = match dial(url).await {
        Ok(backend) => backend,
        Err(error) => return runtime_failed(error),
    };
    proxy_upgrade(request, Idle::new(backend, idle)).await.unwrap_or_else(runtime_failed)
}

async fn join_command(
    url: Result<String, crate::Error>,
    options: Options,
    mut request: Request<Incoming>,
    config: spdy::Config,
) -> Response<ProxyBody> {
    let url: Uri = match url.map_err(|error| error.to_string()).and_then(|url| url.parse().map_err(|_| url)) {
        Ok(url) => url,
        Err(error) => return refuse_command(request, options, (StatusCode::INTERNAL_SERVER_ERROR, error)),
    };
    if !is_websocket(request.headers()) {
        return pass_through(request, &url, config.idle_timeout).await;
    }
    let (response, pending) = match remotecommand::serve(&mut request, options, config) {
        Ok(accepted) => accepted,
        Err(rejected) => return refuse(rejected),
    };
    let back = match dial(&url).await {
        Ok(io) => Client::connect(io, &url, options, config).await,
        Err(error) => Err(error),
    };
    let back = match back {
        Ok(back) => back,
        Err(error) => {
            tell(pending, &error.to_string());
            return switching(response);
        }
    };
    tokio::spawn(async move {
        let joined = async {
            let front = pending.streams().await?;
            remotecommand::bridge(front, back).await?;
            Ok::<_, keelson_streaming::Error>(())
        };
        if let Err(error) = joined.await {
            tracing::debug!(%error, "a remote command ended early");
        }
    });
    switching(response)
}

fn switching(response: Response<Empty<bytes::Bytes>>) -> Response<ProxyBody> {
    response.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

fn refuse(rejected: Rejected) -> Response<ProxyBody> {
    rejected.into_response().map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

pub(super) async fn port_forward(
    ctx: &Context,
    target: &Target,
    mut request: Request<Incoming>,
) -> Response<ProxyBody> {
    let handle = match find(ctx, target) {
        Ok(handle) => handle,
        Err((code, message)) => return text(code, message),
    };
    let config = limits(ctx);
    let sandbox = handle.observed.borrow().sandbox().map(|sandbox| sandbox.id.clone());
    let Some(sandbox) = sandbox else {
        let message = format!("not found ({:?})", target.pod);
        return text(StatusCode::INTERNAL_SERVER_ERROR, message);
    };
    let url = ctx.runtime.port_forward(&sandbox, Vec::new()).await.map_err(|error| error.to_string());
    let url: Uri = match url.and_then(|url| url.parse().map_err(|_| url)) {
        Ok(url) => url,
        Err(error) => return runtime_failed(error),
    };
    if !is_websocket(request.headers()) {
        return pass_through(request, &url, config.idle_timeout).await;
    }
    let ports = ports(request.uri().query().unwrap_or_default());
    let (response, pending) = match portforward::serve(&mut request) {
        Ok(accepted) => accepted,
        Err(rejected) => return refuse(rejected),
    };
    let mut back = match dial(&url).await {
        Ok(io) => match portforward::request(io, &url).await {
            Ok(back) => back,
            Err(error) => return runtime_failed(error),
        },
        Err(error) => return runtime_failed(error),
    };
    debug_assert_eq!(pending.transport(), Transport::WebSocket);
    if pending.is_channels() {
        let ports = match ports {
            Ok(ports) => ports,
            Err(message) => return text(StatusCode::BAD_REQUEST, message),
        };
        tokio::spawn(async move {
            let back = spdy::Connection::client(back, config);
            let joined = pending.channels(&ports, portforward::Client::new(back), config);
            if let Err(error) = joined.await {
                tracing::debug!(%error, "a port-forward ended early");
            }
        });
        return switching(response);
    }
    tokio::spawn(async move {
        let copied = async {
            let mut front = pending.bytes().await?;
            tokio::io::copy_bidirectional(&mut front, &mut Idle::new(&mut back, config.idle_timeout)).await?;
            Ok::<_, keelson_streaming::Error>(())
        };
        if let Err(error) = copied.await {
            tracing::debug!(%error, "a port-forward ended early");
        }
    });
    switching(response)
}

/// The ports that a query names; clients of the protocol with channels need one at least.
fn ports(query: &str) -> Result<Vec<u16>, String> {
    let texts: Vec<String> = pairs(query).filter(|(name, _)| name == "port").map(|(_, value)| value).collect();
    if texts.is_empty() {
        return Err("query parameter \"port\" is required".into());
    }
    if texts.len() > portforward::MAX_CHANNEL_PORTS {
        return Err(format!("at most {} ports can be forwarded at once", portforward::MAX_CHANNEL_PORTS));
    }
    texts
        .iter()
        .map(|text| text.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("port {text:?} must be > 0")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{pairs, ports};

    #[test]
    fn query_pairs() {
        let got: Vec<_> = pairs("command=sh&command=-c&command=echo+a%20b%26c&tty=1&x&%zz=1").collect();
        let expected =
            [("command", "sh"), ("command", "-c"), ("command", "echo a b&c"), ("tty", "1"), ("x", ""), ("%zz", "1")];
        assert_eq!(got, expected.map(|(name, value)| (name.to_string(), value.to_string())));
    }

    #[test]
    fn ports_of_a_query() {
        assert_eq!(ports("port=80&port=443"), Ok(vec![80, 443]));
        for bad in ["", "port=0", "port=x", "port=70000", &"port=1&".repeat(128)] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
