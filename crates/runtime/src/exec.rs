//! Commands executed in running containers, and the sessions they speak through.

use std::time::Duration;

use keelson_cri::v1::ExecSyncResponse;
use tokio::time::timeout;

use crate::{
    Error,
    core::Container,
    oci,
    shim::protocol::{Kind, Reply, Request},
    shim_client::{Connection, Reader, Writer},
};

/// Largest output of each stream that a synchronous exec returns, in bytes; the rest is dropped, as containerd does at
/// gRPC's limit.
const MAX_SYNC_OUTPUT_BYTES: usize = 4 << 20;

/// Which streams a session carries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Runs `command` in the container and collects its output. At `limit` it is killed, and the answer is an error.
pub(crate) async fn sync(
    container: &Container,
    command: &[String],
    limit: Option<Duration>,
) -> Result<ExecSyncResponse, Error> {
    let streams = Streams { stdout: true, stderr: true, ..Streams::default() };
    let (mut reader, mut writer) = start(container, command, streams).await?;
    let mut response = ExecSyncResponse::default();
    let finished = match limit {
        Some(limit) => timeout(limit, collect(&mut reader, &mut response)).await,
        None => Ok(collect(&mut reader, &mut response).await),
    };
    match finished {
        Ok(outcome) => outcome.map(|()| response),
        Err(_) => {
            writer.send(Kind::Signal, &[9]).await?;
            let limit = limit.unwrap_or_default().as_secs();
            Err(Error::Deadline(format!(
                "failed to exec in container: timeout {limit}s exceeded: context deadline exceeded"
            )))
        }
    }
}

async fn collect(reader: &mut Reader, response: &mut ExecSyncResponse) -> Result<(), Error> {
    while let Some((kind, payload)) = reader.next().await? {
        let out = match kind {
            Kind::Stdout => &mut response.stdout,
            Kind::Stderr => &mut response.stderr,
            Kind::Exit => {
                response.exit_code = exit_code(&payload);
                return Ok(());
            }
            _ => continue,
        };
        let room = MAX_SYNC_OUTPUT_BYTES.saturating_sub(out.len());
        out.extend(payload.iter().take(room));
    }
    Err(Error::Shim("the pod's shim went away during the exec".into()))
}

/// The code in an [`Kind::Exit`] frame.
pub(crate) fn exit_code(payload: &[u8]) -> i32 {
    payload.try_into().map_or(255, i32::from_be_bytes)
}

/// Starts `command` in a running container.
pub(crate) async fn start(
    container: &Container,
    command: &[String],
    streams: Streams,
) -> Result<(Reader, Writer), Error> {
    if command.is_empty() {
        return Err(Error::Invalid("the command is empty".into()));
    }
    require_running(container)?;
    let path = container.bundle.join("config.json");
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let spec = serde_json::from_slice(&bytes).map_err(|error| Error::Other(format!("{}: {error}", path.display())))?;
    let request = Request::Exec {
        id: container.id.clone(),
        process: oci::exec_process(&spec, command, streams.tty),
        tty: streams.tty,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr && !streams.tty,
    };
    open(container, &request, "failed to exec in container: failed to start exec: OCI runtime exec failed").await
}

/// Joins the stdio of a running container.
pub(crate) async fn attach(container: &Container, streams: Streams) -> Result<(Reader, Writer), Error> {
    require_running(container)?;
    let request = Request::Attach {
        id: container.id.clone(),
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr && !streams.tty,
    };
    open(container, &request, "failed to attach to container").await
}

pub(crate) fn require_running(container: &Container) -> Result<(), Error> {
    if container.is_running() {
        return Ok(());
    }
    Err(Error::Precondition(format!("container is in {} state", container.state().as_str_name())))
}

async fn open(container: &Container, request: &Request, failure: &str) -> Result<(Reader, Writer), Error> {
    let mut connection = Connection::open(&container.sandbox.state).await?;
    match connection.ask(request).await? {
        Reply::Started { .. } => Ok(connection.split()),
        Reply::Error { message } => Err(Error::Shim(format!("{failure}: {message}"))),
        Reply::NotRunning => Err(Error::Precondition(format!("container {:?} is not running", container.id))),
        Reply::Ok => Err(Error::Shim("the pod's shim answered something else".into())),
    }
}
