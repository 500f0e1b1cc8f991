//! The runtime's side of a shim: start it, ask it, hear from it.

use std::{
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::fs::{Mode, OFlags, open};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    time::timeout,
};

use keelson_cri::steps;

use crate::{
    Error,
    shim::protocol::{Event, HEADER_BYTES, Kind, MAX_DATA_BYTES, Reply, Request, SOCKET, frame, parse_header},
};

/// A shim that does not come up in this time has failed.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the shim of the sandbox with this state directory, and waits until it listens.
pub(crate) async fn spawn(exe: &Path, dir: &Path, share_pid: bool) -> Result<Child, Error> {
    let log = dir.join("shim.log");
    let stderr = std::fs::File::create(&log).map_err(Error::io("create", &log))?;
    let mut command = Command::new(exe);
    command.args(["shim", "serve"]).arg(dir).args(share_pid.then_some("share-pid"));
    command.env_clear().envs(steps::environment()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = command.spawn().map_err(Error::io("start the shim", exe))?;
    let mut ready = child.stdout.take();
    let wait = async {
        let mut byte = [0];
        match &mut ready {
            Some(stdout) => stdout.read(&mut byte).await.unwrap_or(0),
            None => 0,
        }
    };
    match timeout(START_TIMEOUT, wait).await {
        Ok(1) => Ok(child),
        _ => {
            let _ = child.kill().await;
            let words = std::fs::read_to_string(&log).unwrap_or_default();
            Err(Error::Shim(format!("the pod's shim did not start: {}", words.trim())))
        }
    }
}

/// How long a shim may take to answer. What starts a process takes as long as that takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(60);

fn limit(request: &Request) -> Option<Duration> {
    match request {
        // The kubelet's own deadline bounds it.
        Request::Start { .. } | Request::Exec { .. } => None,
        Request::Await { .. } => Some(LAUNCH_TIMEOUT),
        _ => Some(ANSWER_TIMEOUT),
    }
}

/// A connection to a shim.
pub(crate) struct Connection {
    reader: Reader,
    writer: Writer,
}

/// The half that frames come from.
pub(crate) struct Reader(BufReader<OwnedReadHalf>);

/// The half that frames go to.
pub(crate) struct Writer(OwnedWriteHalf);

impl Connection {
    pub(crate) async fn open(dir: &Path) -> Result<Self, Error> {
        let fd = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("open", dir))?;
        // A socket's address is short; a state directory's path need not be.
        let path: PathBuf = format!("/proc/self/fd/{}/{SOCKET}", fd.as_raw_fd()).into();
        let stream = UnixStream::connect(&path).await.map_err(Error::io("connect to the shim in", dir))?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: Reader(BufReader::with_capacity(16 << 10, reader)), writer: Writer(writer) })
    }

    /// One request. A shim that hangs (stopped, or waiting for a disk) counts as one that is not there.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Reply, Error> {
        match limit(request) {
            None => self.converse(request).await,
            Some(limit) => timeout(limit, self.converse(request))
                .await
                .unwrap_or_else(|_| Err(Error::Shim(format!("the pod's shim did not answer within {limit:?}")))),
        }
    }

    async fn converse(&mut self, request: &Request) -> Result<Reply, Error> {
        let payload = serde_json::to_vec(request).map_err(|error| Error::Other(error.to_string()))?;
        self.writer.send(Kind::Request, &payload).await?;
        match self.reader.next().await? {
            Some((Kind::Reply, payload)) => {
                serde_json::from_slice(&payload).map_err(|error| Error::Shim(format!("unreadable reply: {error}")))
            }
            _ => Err(Error::Shim("the pod's shim went away".into())),
        }
    }

    pub(crate) fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

impl Reader {
    /// The next frame; `None` when the shim is gone or has said everything.
    pub(crate) async fn next(&mut self) -> Result<Option<(Kind, Vec<u8>)>, Error> {
        let mut header = [0; HEADER_BYTES];
        if self.0.read_exact(&mut header).await.is_err() {
            return Ok(None);
        }
        let (kind, length) = parse_header(header).ok_or_else(|| Error::Shim("a malformed frame".into()))?;
        let mut payload = vec![0; length];
        match self.0.read_exact(&mut payload).await {
            Ok(_) => Ok(Some((kind, payload))),
            Err(_) => Ok(None),
        }
    }
}

/// A connection on which a shim tells events.
pub(crate) struct Subscription(Connection);

impl Subscription {
    pub(crate) async fn open(dir: &Path) -> Result<Self, Error> {
        let mut connection = Connection::open(dir).await?;
        match connection.ask(&Request::Subscribe).await? {
            Reply::Ok => Ok(Self(connection)),
            other => Err(Error::Shim(format!("the pod's shim refused a subscription: {other:?}"))),
        }
    }

    /// The next event; `None` when the shim is gone.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        match self.0.reader.next().await {
            Ok(Some((Kind::Event, payload))) => serde_json::from_slice(&payload).ok(),
            _ => None,
        }
    }
}

impl Writer {
    pub(crate) async fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        let send = self.0.write_all(&frame(kind, payload)).await;
        send.map_err(|error| Error::Shim(format!("the pod's shim went away: {error}")))
    }

    /// Sends standard input, in pieces a frame may hold.
    pub(crate) async fn stdin(&mut self, data: &[u8]) -> Result<(), Error> {
        for piece in data.chunks(MAX_DATA_BYTES) {
            self.send(Kind::Stdin, piece).await?;
        }
        Ok(())
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask(dir: &Path, request: &Request) -> Result<Reply, Error> {
    Connection::open(dir).await?.ask(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shim_that_does_not_answer_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let error = ask(dir.path(), &Request::Stop).await.unwrap_err();
        assert!(error.to_string().contains("did not answer within 10s"), "{error}");
        drop(listener);
    }
}
