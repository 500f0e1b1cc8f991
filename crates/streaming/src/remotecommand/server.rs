//! The server's side: the upgrade, and the client's streams over SPDY.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::watch,
};

use super::{Options, RemoteCommand, Resizes, SizeParser, StatusWriter, TerminalSize, V4, V5, ws};
use crate::{
    Error, Writer,
    spdy::{Config, Connection, Stream},
    upgrade::{Rejected, Transport, Upgrade, negotiate},
};

/// A client that has not opened all its streams by then is given up; upstream's default.
const STREAMS_WITHIN: Duration = Duration::from_secs(30);

/// An accepted request whose streams are still to come.
pub struct Pending {
    upgrade: Upgrade,
    options: Options,
    config: Config,
}

/// Answers a request for exec or attach, by SPDY or WebSocket as the client asks. The response is to be returned at once,
/// and the streams awaited in another task.
pub fn serve<B>(
    request: &mut Request<B>,
    options: Options,
    config: Config,
) -> Result<(Response<Empty<Bytes>>, Pending), Rejected> {
    let (response, upgrade) = negotiate(request, &[V4], &[V5, V4])?;
    Ok((response, Pending { upgrade, options, config }))
}

impl Pending {
    /// What carries the streams.
    pub fn transport(&self) -> Transport {
        self.upgrade.transport
    }

    /// The client's streams.
    pub async fn streams(self) -> Result<RemoteCommand, Error> {
        let Pending { upgrade, options, config } = self;
        let (transport, v5) = (upgrade.transport, upgrade.protocol == V5);
        let io = upgrade.connection().await?;
        match transport {
            Transport::Spdy => spdy(io, options, config).await,
            Transport::WebSocket => Ok(ws::streams(io, options, config, v5).await),
        }
    }
}

/// The streams over a connection that has been switched to SPDY.
pub(super) async fn spdy<T>(io: T, options: Options, config: Config) -> Result<RemoteCommand, Error>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let connection = Connection::server(io, config);
    let (mut stdin, mut stdout, mut stderr, mut status, mut resize) = (None, None, None, None, None);
    let wanted = 1 + [options.stdin, options.stdout, options.stderr, options.tty].iter().filter(|w| **w).count();
    let all = async {
        for _ in 0..wanted {
            let stream =
                connection.accept().await.ok_or_else(|| protocol("the client hung up before all streams were open"))?;
            let place = match stream.header("streamtype") {
                Some("error") => &mut status,
                Some("stdin") if options.stdin => &mut stdin,
                Some("stdout") if options.stdout => &mut stdout,
                Some("stderr") if options.stderr => &mut stderr,
                Some("resize") if options.tty => &mut resize,
                other => return Err(protocol(&format!("a stream of unexpected type {other:?}"))),
            };
            if place.replace(stream).is_some() {
                return Err(protocol("two streams of the same type"));
            }
        }
        Ok(())
    };
    let in_time = tokio::time::timeout(STREAMS_WITHIN, all).await;
    in_time.unwrap_or_else(|_| Err(protocol("timed out waiting for client to create streams")))?;
    let status = status.ok_or_else(|| protocol("the client opened no error stream"))?;
    Ok(RemoteCommand {
        stdin: stdin.map(|s: Stream| Box::pin(s) as crate::Reader),
        stdout: stdout.map(Outgoing::boxed),
        stderr: stderr.map(Outgoing::boxed),
        status: StatusWriter(Outgoing::boxed(status)),
        resize: resize.map(resizes),
        closed: connection.over(),
    })
}

fn protocol(what: &str) -> Error {
    Error::Protocol(what.to_owned())
}

fn resizes(mut stream: Stream) -> Resizes {
    let (sender, receiver) = watch::channel(TerminalSize::default());
    tokio::spawn(async move {
        let mut parser = SizeParser::default();
        let mut buffer = [0; 256];
        loop {
            let n = tokio::select! {
                read = stream.read(&mut buffer) => match read { Ok(n @ 1..) => n, _ => return },
                () = sender.closed() => return,
            };
            if let Some(size) = parser.feed(buffer.get(..n).unwrap_or_default()) {
                sender.send_replace(size);
            }
        }
    });
    Resizes(receiver)
}

/// A stream that is only written to. Dropping it ends it; a bare [`Stream`] would be reset.
pub(super) struct Outgoing(Stream);

impl Outgoing {
    pub(super) fn boxed(stream: Stream) -> Writer {
        Box::pin(Outgoing(stream))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
