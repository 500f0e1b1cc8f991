//! Sessions: a client's streams joined to a shim's, or to a port of a pod.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdStream},
    sync::Arc,
    time::Duration,
};

use keelson_streaming::{
    portforward::{self, Forward},
    remotecommand::{Outcome, Pending, RemoteCommand, Resizes, TerminalSize},
    spdy,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};

use crate::{
    Error,
    core::{Container, Sandbox},
    exec::{self, Streams, exit_code},
    namespaces,
    shim::protocol::Kind,
    shim_client::{Reader, Writer},
};

/// How long a connection to a pod's port may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const STDIN_BUFFER_BYTES: usize = 32 << 10;

/// Runs a command for a client.
pub(super) async fn exec(container: Arc<Container>, command: Vec<String>, streams: Streams, pending: Pending) {
    let Ok(client) = pending.streams().await else { return };
    match exec::start(&container, &command, streams).await {
        Ok((reader, writer)) => join(client, reader, writer, Outcome::ExitCode).await,
        Err(error) => fail(client, format!("error executing command in container: {error}")).await,
    }
}

/// Joins a client to a container's own streams.
pub(super) async fn attach(container: Arc<Container>, streams: Streams, pending: Pending) {
    let Ok(client) = pending.streams().await else { return };
    match exec::attach(&container, streams).await {
        // The container's end is no failure of the attachment.
        Ok((reader, writer)) => join(client, reader, writer, |_| Outcome::Success).await,
        Err(error) => fail(client, format!("error attaching to container: {error}")).await,
    }
}

/// Tells in upstream's words, which scripts look for.
async fn fail(client: RemoteCommand, why: String) {
    // A client that has gone needs no reason.
    let _ = client.status.send(&Outcome::Failure(format!("Internal error occurred: {why}"))).await;
}

/// Copies until the process has ended or the client has gone.
async fn join(client: RemoteCommand, mut reader: Reader, writer: Writer, outcome: impl Fn(i32) -> Outcome) {
    let RemoteCommand { stdin, mut stdout, mut stderr, status, resize, closed } = client;
    let input = tokio::spawn(input(stdin, resize, writer));
    let output = async {
        loop {
            let (stream, payload) = match reader.next().await {
                Ok(Some((Kind::Stdout, payload))) => (&mut stdout, payload),
                Ok(Some((Kind::Stderr, payload))) => (&mut stderr, payload),
                Ok(Some((Kind::Exit, payload))) => return Some(outcome(exit_code(&payload))),
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => return Some(Outcome::Failure("the pod's shim went away".into())),
            };
            if let Some(writer) = stream
                && (writer.write_all(&payload).await.is_err() || writer.flush().await.is_err())
            {
                return None;
            }
        }
    };
    let ended = tokio::select! {
        ended = output => ended,
        () = closed.cancelled() => None,
    };
    // Dropping the writer to the shim is what tells it that the client has gone.
    input.abort();
    if let Some(ended) = ended {
        for mut writer in [stdout, stderr].into_iter().flatten() {
            let _ = writer.shutdown().await;
        }
        let _ = status.send(&ended).await;
    }
}

/// Sends a client's input and terminal sizes to the shim. Ends when the client has neither, or the shim is gone; until it
/// is dropped, the shim's connection stays open.
async fn input(mut stdin: Option<keelson_streaming::Reader>, mut resize: Option<Resizes>, mut writer: Writer) {
    let mut buffer = vec![0; if stdin.is_some() { STDIN_BUFFER_BYTES } else { 0 }];
    loop {
        let sent = tokio::select! {
            read = read(&mut stdin, &mut buffer), if stdin.is_some() => match read {
                Some(count) => writer.stdin(buffer.get(..count).unwrap_or_default()).await,
                None => {
                    stdin = None;
                    buffer = Vec::new();
                    writer.send(Kind::StdinEof, &[]).await
                }
            },
            size = next_size(&mut resize), if resize.is_some() => match size {
                Some(size) => {
                    let ([c1, c0], [r1, r0]) = (size.width.to_be_bytes(), size.height.to_be_bytes());
                    writer.send(Kind::Resize, &[c1, c0, r1, r0]).await
                }
                None => {
                    resize = None;
                    Ok(())
                }
            },
            else => std::future::pending().await,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn read(stdin: &mut Option<keelson_streaming::Reader>, buffer: &mut [u8]) -> Option<usize> {
    stdin.as_mut()?.read(buffer).await.ok().filter(|count| *count > 0)
}

async fn next_size(resize: &mut Option<Resizes>) -> Option<TerminalSize> {
    resize.as_mut()?.next().await
}

/// Connects a client to ports of a pod.
pub(super) async fn port_forward(sandbox: Arc<Sandbox>, pending: portforward::Pending, config: spdy::Config) {
    let Ok(mut server) = pending.forwards(config).await else { return };
    loop {
        let forward = tokio::select! {
            forward = server.accept() => forward,
            () = sandbox.stopped.cancelled() => return,
        };
        let Some(forward) = forward else { return };
        let sandbox = sandbox.clone();
        tokio::spawn(async move { forward_one(&sandbox, forward).await });
    }
}

async fn forward_one(sandbox: &Sandbox, mut forward: Forward) {
    match connect(sandbox, forward.port).await {
        Ok(mut port) => {
            // Either side may end it; that is not an error of the forwarding.
            let _ = copy_bidirectional(&mut port, &mut forward.data).await;
        }
        Err(error) => {
            let why = format!("error forwarding port {} to pod {}, uid : {error}", forward.port, sandbox.id);
            let _ = forward.error.send(&why).await;
        }
    }
}

/// Connects to the pod's loopback, where its servers listen whatever address they chose.
async fn connect(sandbox: &Sandbox, port: u16) -> Result<TcpStream, Error> {
    let dial = move || {
        let first = match StdStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let second = StdStream::connect_timeout(&SocketAddr::from((Ipv6Addr::LOCALHOST, port)), CONNECT_TIMEOUT);
        second.map_err(|second| (first, second))
    };
    let netns = sandbox.netns();
    let connected = tokio::task::spawn_blocking(move || match netns {
        Some(netns) => namespaces::in_network(&netns, dial),
        None => Ok(dial()),
    });
    let failed = |ipv4: String, ipv6: String| {
        Error::Network(format!(
            "failed to execute portforward in network namespace: failed to connect to localhost:{port} inside \
             namespace {:?}, IPv4: {ipv4} IPv6 {ipv6}",
            sandbox.id
        ))
    };
    let stream = connected
        .await
        .map_err(|error| Error::Other(error.to_string()))??
        .map_err(|(ipv4, ipv6)| failed(ipv4.to_string(), ipv6.to_string()))?;
    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    stream.map_err(|error| failed(error.to_string(), error.to_string()))
}
