//! Commands in containers, their own streams, and ports of pods: what runtimes serve over HTTP beside CRI.

use std::{io::Write, net::IpAddr, time::Duration};

use clap::Args;
use http::Uri;
use keelson_cri::v1::*;
use keelson_streaming::{
    portforward,
    remotecommand::{Client, Options, Outcome, TerminalSize},
    spdy::{Config, Connection},
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{Error, Out, Runtime, format};

/// Size of pieces that are copied, in bytes, and how many may wait to be written.
const PIECE_BYTES: usize = 16 << 10;
const PIECES_AHEAD: usize = 16;

/// `crictl exec`
#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// Run the command synchronously
    #[arg(long, short)]
    sync: bool,
    /// Timeout in seconds, for synchronous commands
    #[arg(long, default_value_t = 0)]
    timeout: i64,
    /// Allocate a pseudo-TTY
    #[arg(long, short)]
    tty: bool,
    /// Keep STDIN open
    #[arg(long, short)]
    interactive: bool,
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<u8, Error> {
        if self.sync {
            let request = ExecSyncRequest { container_id: self.id, cmd: self.command, timeout: self.timeout };
            let answer = runtime.clients.runtime.exec_sync(request).await;
            let answer = answer.map_err(Error::call("execing command in container synchronously"))?.into_inner();
            out.write_all(&answer.stdout).map_err(Error::io("write the output"))?;
            let _ = std::io::stderr().write_all(&answer.stderr);
            return Ok(exit_code(answer.exit_code));
        }
        let options = Options { stdin: self.interactive, stdout: true, stderr: !self.tty, tty: self.tty };
        let request = runtime.ask(ExecRequest {
            container_id: self.id,
            cmd: self.command,
            tty: options.tty,
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr,
        });
        let answer =
            runtime.clients.runtime.exec(request).await.map_err(Error::call("execing command in container"))?;
        session(&answer.into_inner().url, options, out).await
    }
}

/// `crictl attach`
#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// Allocate a pseudo-TTY
    #[arg(long, short)]
    tty: bool,
    /// Keep STDIN open
    #[arg(long, short)]
    stdin: bool,
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Attach {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<u8, Error> {
        let options = Options { stdin: self.stdin, stdout: true, stderr: !self.tty, tty: self.tty };
        let request = runtime.ask(AttachRequest {
            container_id: self.id,
            tty: options.tty,
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr,
        });
        let answer =
            runtime.clients.runtime.attach(request).await.map_err(Error::call("attaching running container"))?;
        session(&answer.into_inner().url, options, out).await
    }
}

fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}

async fn dial(url: &str) -> Result<(TcpStream, Uri), Error> {
    let uri: Uri = url.parse().map_err(|_| Error::Words(format!("the runtime answered {url:?}, which is no URL")))?;
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let stream = TcpStream::connect(authority).await.map_err(Error::io(format!("connect to {authority}")))?;
    Ok((stream, uri))
}

/// Copies between this program's streams and those at `url`, until the process has ended; its exit code.
async fn session(url: &str, options: Options, out: Out<'_>) -> Result<u8, Error> {
    let (stream, uri) = dial(url).await?;
    let client = Client::connect(stream, &uri, options, Config::default()).await;
    let mut client = client.map_err(|error| Error::Words(format!("{url}: {error}")))?;
    let _raw = if options.tty && options.stdin { Raw::new() } else { None };
    if let Some(mut stdin) = client.stdin.take() {
        tokio::spawn(async move {
            let mut buffer = vec![0; PIECE_BYTES];
            let mut own = tokio::io::stdin();
            while let Ok(count @ 1..) = own.read(&mut buffer).await {
                if stdin.write_all(buffer.get(..count).unwrap_or_default()).await.is_err() {
                    return;
                }
            }
            let _ = stdin.shutdown().await;
        });
    }
    if let Some(mut resize) = client.resize.take() {
        tokio::spawn(async move {
            let changes = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change());
            let Ok(mut changes) = changes else { return };
            loop {
                if let Ok(size) = tcgetwinsize(std::io::stdout()) {
                    let size = TerminalSize { width: size.ws_col, height: size.ws_row };
                    if resize.send(size).await.is_err() {
                        return;
                    }
                }
                changes.recv().await;
            }
        });
    }
    let (sender, mut pieces) = mpsc::channel::<(bool, Vec<u8>)>(PIECES_AHEAD);
    for (error, reader) in [(false, client.stdout.take()), (true, client.stderr.take())] {
        let (Some(mut reader), sender) = (reader, sender.clone()) else { continue };
        tokio::spawn(async move {
            let mut buffer = vec![0; PIECE_BYTES];
            while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                if sender.send((error, buffer.get(..count).unwrap_or_default().to_vec())).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    while let Some((error, piece)) = pieces.recv().await {
        let written =
            if error { std::io::stderr().write_all(&piece) } else { out.write_all(&piece).and_then(|()| out.flush()) };
        written.map_err(Error::io("write the output"))?;
    }
    match client.status.outcome().await.map_err(Error::io("read how it ended"))? {
        Outcome::Success => Ok(0),
        Outcome::ExitCode(code) => Ok(exit_code(code)),
        Outcome::Failure(why) => Err(Error::Words(why)),
    }
}

/// The terminal without echo and line editing, until dropped.
struct Raw(Termios);

impl Raw {
    fn new() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// `crictl port-forward`
#[derive(Args, Debug)]
pub(crate) struct PortForward {
    /// Addresses to listen on
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1")]
    address: Vec<IpAddr>,
    #[arg(value_name = "POD-ID")]
    id: String,
    /// Ports of this machine (0 for any free one) and of the pod
    #[arg(value_name = "[LOCAL_PORT:]REMOTE_PORT", required = true, value_parser = ports)]
    ports: Vec<(u16, u16)>,
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let port = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a port"));
    let local = if local.is_empty() { 0 } else { port(local)? };
    match port(remote)? {
        0 => Err("a pod has no port 0".into()),
        remote => Ok((local, remote)),
    }
}

impl PortForward {
    pub(crate) async fn run(self, runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let mut listeners = Vec::new();
        for address in &self.address {
            for (local, remote) in &self.ports {
                let listener = TcpListener::bind((*address, *local)).await;
                let listener = listener.map_err(Error::io(format!("listen on {address}:{local}")))?;
                let own = listener.local_addr().map_err(Error::io("listen"))?;
                format::line(out, &format!("Forwarding from {own} -> {remote}"))?;
                listeners.push((listener, *remote));
            }
        }
        let mut accepting = tokio::task::JoinSet::new();
        for (listener, port) in listeners {
            let (clients, id, timeout) = (runtime.clients.clone(), self.id.clone(), runtime.timeout);
            accepting.spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            let runtime = Runtime { clients: clients.clone(), timeout };
                            let id = id.clone();
                            tokio::spawn(async move {
                                if let Err(error) = forward(runtime, id, port, stream).await {
                                    eprintln!("forward to port {port}: {error}");
                                }
                            });
                        }
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                }
            });
        }
        // Until interrupted, or until the pod is not there to begin with.
        let mut first = runtime;
        let request = first.ask(PortForwardRequest { pod_sandbox_id: self.id, port: Vec::new() });
        first.clients.runtime.port_forward(request).await.map_err(Error::call("port forwarding"))?;
        accepting.join_next().await;
        Ok(())
    }
}

async fn forward(mut runtime: Runtime, id: String, port: u16, mut stream: TcpStream) -> Result<(), Error> {
    let request = runtime.ask(PortForwardRequest { pod_sandbox_id: id, port: vec![port.into()] });
    let answer = runtime.clients.runtime.port_forward(request).await.map_err(Error::call("port forwarding"))?;
    let (io, uri) = dial(&answer.into_inner().url).await?;
    let io = portforward::request(io, &uri).await.map_err(|error| Error::Words(error.to_string()))?;
    let mut client = portforward::Client::new(Connection::client(io, Config::default()));
    let (mut data, mut error) = client.open(port).await.map_err(Error::io("open the port"))?;
    let copied = copy_bidirectional(&mut stream, &mut data).await;
    let mut words = Vec::new();
    // What the pod's side has to say explains more than the connection's end.
    if copied.is_err() {
        let _ = tokio::time::timeout(Duration::from_secs(1), (&mut error).take(4096).read_to_end(&mut words)).await;
    }
    if !words.is_empty() {
        return Err(Error::Words(String::from_utf8_lossy(&words).into_owned()));
    }
    copied.map(drop).map_err(Error::io("copy"))
}
