//! Questions about names outside the cluster, asked of the configured servers.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use hickory_proto::op::Message;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, UdpSocket},
    sync::Semaphore,
};

/// Questions under way at once; more are answered with SERVFAIL, as a full queue would in the end.
const MAX_IN_FLIGHT: usize = 512;

/// How long one server may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The configured servers.
pub(crate) struct Forwarder {
    upstreams: Vec<SocketAddr>,
    netns: Option<PathBuf>,
    in_flight: Semaphore,
}

impl Forwarder {
    pub(crate) fn new(upstreams: Vec<SocketAddr>, netns: Option<PathBuf>) -> Self {
        Self { upstreams, netns, in_flight: Semaphore::new(MAX_IN_FLIGHT) }
    }

    /// Whether there is anybody to ask.
    pub(crate) fn is_enabled(&self) -> bool {
        !self.upstreams.is_empty()
    }

    /// Asks the servers in turn and returns the first answer to `question`; `None` when nobody answers.
    pub(crate) async fn ask(&self, question: &Message, over_tcp: bool) -> Option<Message> {
        let _permit = self.in_flight.try_acquire().ok()?;
        let request = question.to_vec().ok()?;
        for server in &self.upstreams {
            let answer = async {
                if over_tcp { self.ask_tcp(*server, &request).await } else { self.ask_udp(*server, &request).await }
            };
            match tokio::time::timeout(TIMEOUT, answer).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "upstream DNS server failed"),
                Err(_) => tracing::debug!(%server, "upstream DNS server did not answer in time"),
            }
        }
        None
    }

    async fn ask_udp(&self, server: SocketAddr, request: &[u8]) -> io::Result<Message> {
        let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        // A socket, and so a random port, for each question: answers are hard to forge.
        let socket = bind_udp(any, self.netns.as_deref())?;
        socket.connect(server).await?;
        socket.send(request).await?;
        let mut buffer = vec![0; 65_535];
        loop {
            let n = socket.recv(&mut buffer).await?;
            let answer = Message::from_vec(buffer.get(..n).unwrap_or_default());
            if let Some(answer) = answer.ok().filter(|a| a.metadata.id.to_be_bytes() == request[..2]) {
                return Ok(answer);
            }
        }
    }

    async fn ask_tcp(&self, server: SocketAddr, request: &[u8]) -> io::Result<Message> {
        let socket =
            inside(self.netns.as_deref(), || if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() })?;
        let mut stream = socket.connect(server).await?;
        let len = u16::try_from(request.len()).map_err(io::Error::other)?;
        stream.write_all(&[&len.to_be_bytes()[..], request].concat()).await?;
        let len = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(len)];
        stream.read_exact(&mut answer).await?;
        Message::from_vec(&answer).map_err(io::Error::other)
    }
}

/// A UDP socket in `netns`, or in the calling thread's network namespace.
pub(crate) fn bind_udp(address: SocketAddr, netns: Option<&Path>) -> io::Result<UdpSocket> {
    let socket = inside(netns, || std::net::UdpSocket::bind(address))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// A TCP listener in `netns`, or in the calling thread's network namespace.
pub(crate) fn bind_tcp(address: SocketAddr, netns: Option<&Path>) -> io::Result<tokio::net::TcpListener> {
    let listener = inside(netns, || std::net::TcpListener::bind(address))?;
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// Runs `make` in a network namespace; what sockets it makes stay there. The thread that enters it ends there.
fn inside<T: Send>(netns: Option<&Path>, make: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let Some(path) = netns else { return make() };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let namespace = std::fs::File::open(path)?;
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            make()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
