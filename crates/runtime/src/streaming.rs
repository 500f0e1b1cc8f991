//! The streaming server behind Exec, Attach and PortForward: HTTP on loopback, a token in the path that is good for one use
//! within a minute, then SPDY/3.1 (or WebSocket).

mod session;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Empty, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use keelson_cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use keelson_streaming::{portforward, remotecommand, spdy, upgrade::Rejected};
use parking_lot::Mutex;
use rand::Rng;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    Error,
    core::{Container, Core, Sandbox},
    exec::{Streams, require_running},
};

/// How long a token waits to be used, and how many may wait; upstream's limits.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
const MAX_TOKENS: usize = 1000;
/// Connections at once that have not become a session, and how long one may take to say what it wants.
const MAX_CONNECTIONS: usize = 1000;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a token stands for.
pub(crate) enum Ticket {
    Exec { container: Arc<Container>, command: Vec<String>, streams: Streams },
    Attach { container: Arc<Container>, streams: Streams },
    PortForward { sandbox: Arc<Sandbox> },
}

/// Tokens that wait, and where the server listens.
#[derive(Default)]
pub(crate) struct Streaming {
    address: std::sync::OnceLock<SocketAddr>,
    tickets: Mutex<HashMap<String, (Ticket, Instant)>>,
}

impl Streaming {
    fn url(&self, kind: &str, ticket: Ticket) -> Result<String, Error> {
        let address = self.address.get().ok_or_else(|| Error::Other("the streaming server is not up".into()))?;
        let mut tickets = self.tickets.lock();
        let now = Instant::now();
        tickets.retain(|_, (_, expiry)| *expiry > now);
        if tickets.len() >= MAX_TOKENS {
            return Err(Error::Exhausted("maximum number of in-flight requests exceeded".into()));
        }
        let token: String = crate::image::store::hex(&rand::rng().random::<[u8; 16]>());
        let url = format!("http://{address}/{kind}/{token}");
        tickets.insert(token, (ticket, now + TOKEN_LIFE));
        Ok(url)
    }

    fn take(&self, path: &str) -> Option<Ticket> {
        let token = path.rsplit('/').next()?;
        let (ticket, expiry) = self.tickets.lock().remove(token)?;
        (expiry > Instant::now()).then_some(ticket)
    }
}

/// URL at which `request`'s command is run.
pub(crate) fn exec_url(core: &Core, request: ExecRequest) -> Result<String, Error> {
    let container = core.container(&request.container_id)?;
    require_running(&container)?;
    if request.tty && request.stderr {
        return Err(Error::Invalid("tty and stderr cannot both be true".into()));
    }
    let streams = Streams { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty };
    require_a_stream(streams)?;
    core.streaming.url("exec", Ticket::Exec { container, command: request.cmd, streams })
}

/// URL at which the container's own streams are joined.
pub(crate) fn attach_url(core: &Core, request: AttachRequest) -> Result<String, Error> {
    let container = core.container(&request.container_id)?;
    require_running(&container)?;
    if request.tty && request.stderr {
        return Err(Error::Invalid("tty and stderr cannot both be true".into()));
    }
    let streams = Streams { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty };
    require_a_stream(streams)?;
    core.streaming.url("attach", Ticket::Attach { container, streams })
}

/// URL at which ports of the pod are reached.
pub(crate) fn port_forward_url(core: &Core, request: PortForwardRequest) -> Result<String, Error> {
    let sandbox = core.sandbox(&request.pod_sandbox_id)?;
    if !sandbox.is_ready() {
        return Err(Error::Precondition(format!("sandbox container {:?} is not running", sandbox.id)));
    }
    core.streaming.url("portforward", Ticket::PortForward { sandbox })
}

fn require_a_stream(streams: Streams) -> Result<(), Error> {
    if streams.stdin || streams.stdout || streams.stderr {
        return Ok(());
    }
    Err(Error::Invalid("one of stdin, stdout, or stderr must be set".into()))
}

/// Starts the server; it ends with the runtime.
pub(crate) async fn start(core: &Arc<Core>) -> Result<(), Error> {
    let listen = async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        std::io::Result::Ok((listener.local_addr()?, listener))
    };
    let (address, listener) =
        listen.await.map_err(|error| Error::Other(format!("listen for streaming on 127.0.0.1: {error}")))?;
    let _ = core.streaming.address.set(address);
    let core = core.clone();
    let turns = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok(turn) = turns.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = core.shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(core.clone(), stream, turn))),
                // Out of descriptors, most likely: the next moment may be better.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    Ok(())
}

/// `turn` is given back when the connection has become a session, or has ended.
async fn connection(core: Arc<Core>, stream: TcpStream, turn: OwnedSemaphorePermit) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let core = core.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&core, request)) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    // A client that goes away mid-request is nobody's loss.
    let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    drop(turn);
}

type Answer = Response<Either<Empty<Bytes>, Full<Bytes>>>;

fn answer(core: &Arc<Core>, mut request: Request<Incoming>) -> Answer {
    let Some(ticket) = core.streaming.take(request.uri().path()) else {
        return refuse(Rejected::new(StatusCode::NOT_FOUND, "unknown or expired token"));
    };
    let config = spdy::Config::default();
    let accepted = match ticket {
        Ticket::Exec { container, command, streams } => remotecommand::serve(&mut request, options(streams), config)
            .map(|(response, pending)| {
                tokio::spawn(session::exec(container, command, streams, pending));
                response
            }),
        Ticket::Attach { container, streams } => {
            remotecommand::serve(&mut request, options(streams), config).map(|(response, pending)| {
                tokio::spawn(session::attach(container, streams, pending));
                response
            })
        }
        Ticket::PortForward { sandbox } => portforward::serve(&mut request).map(|(response, pending)| {
            tokio::spawn(session::port_forward(sandbox, pending, config));
            response
        }),
    };
    match accepted {
        Ok(response) => response.map(Either::Left),
        Err(rejected) => refuse(rejected),
    }
}

fn refuse(rejected: Rejected) -> Answer {
    rejected.into_response().map(Either::Right)
}

fn options(streams: Streams) -> remotecommand::Options {
    remotecommand::Options {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr && !streams.tty,
        tty: streams.tty,
    }
}
