//! The client's streams over a WebSocket: each binary message starts with its channel's number.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, Role, frame::coding::CloseCode},
};
use tokio_util::{
    io::StreamReader,
    sync::{CancellationToken, PollSender},
};

use super::{Options, RemoteCommand, Resizes, SizeParser, StatusWriter, TerminalSize};
use crate::{
    Reader, Writer,
    spdy::Config,
    websocket::{SEND_BYTES, idle, on},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the next byte is the channel that ends.
const CLOSE: u8 = 255;

/// Messages that wait in each direction.
const QUEUE: usize = 4;

/// The streams of a client on a connection that has been switched to WebSocket.
pub(super) async fn streams<T>(io: T, options: Options, config: Config, v5: bool) -> RemoteCommand
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sink, mut stream) = on(io, Role::Server).await.split();
    let (out, mut outgoing) = mpsc::channel::<Bytes>(QUEUE);
    let closed = CancellationToken::new();
    let (activity, mut active) = watch::channel(Instant::now());
    let active_too = activity.clone();

    // As upstream: an empty message on the lowest channel that the server writes tells that the streams are there.
    let first = [(options.stdout, STDOUT), (options.stderr, STDERR), (true, ERROR)];
    let first = first.iter().find(|(wanted, _)| *wanted).map_or(ERROR, |(_, channel)| *channel);

    let (done, over) = (closed.clone(), closed.clone());
    tokio::spawn(async move {
        let sending = async {
            sink.send(Message::Binary(Bytes::copy_from_slice(&[first]))).await?;
            while let Some(message) = outgoing.recv().await {
                sink.send(Message::Binary(message)).await?;
                activity.send_replace(Instant::now());
            }
            Ok(())
        };
        let sent = tokio::select! {
            sent = sending => sent,
            () = done.cancelled() => Ok(()),
        };
        // All writers are gone: everything is said. Or it was still for too long: clients take no end for one but this.
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let close = async { sink.send(Message::Close(Some(normal))).await };
        match sent.and(tokio::time::timeout(config.linger, close).await.unwrap_or(Ok(()))) {
            Ok(()) => {
                // The client answers and hangs up; if not, it is cut off.
                let _ = tokio::time::timeout(config.linger, done.cancelled()).await;
            }
            Err(error) => tracing::debug!(%error, "the WebSocket broke"),
        }
        done.cancel();
    });

    let (stdin, stdin_reader) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
    let (sizes, resizes) = watch::channel(TerminalSize::default());
    tokio::spawn(async move {
        let mut stdin = options.stdin.then_some(stdin);
        let mut parser = SizeParser::default();
        let receive = async {
            while let Some(message) = stream.next().await {
                let message = match message {
                    Ok(Message::Binary(bytes)) => bytes,
                    Ok(Message::Text(text)) => text.into(),
                    Ok(Message::Close(_)) => break,
                    // As upstream, a client that only says that it is there is idle all the same.
                    Ok(_) => continue,
                    Err(error) => {
                        tracing::debug!(%error, "the WebSocket broke");
                        break;
                    }
                };
                active_too.send_replace(Instant::now());
                let (Some(channel), data) = (message.first(), message.get(1..).unwrap_or_default()) else { continue };
                match *channel {
                    STDIN if !data.is_empty() => {
                        // Waiting here is the back-pressure. Input that nobody reads any more is dropped.
                        if let Some(sender) = &stdin
                            && sender.send(Ok(message.slice(1..))).await.is_err()
                        {
                            stdin = None;
                        }
                    }
                    RESIZE => {
                        if let Some(size) = parser.feed(data) {
                            sizes.send_replace(size);
                        }
                    }
                    CLOSE if v5 && data.first() == Some(&STDIN) => stdin = None,
                    _ => {}
                }
            }
        };
        tokio::select! {
            () = receive => {}
            () = idle(&mut active, config) => tracing::debug!("the WebSocket was idle for too long"),
            () = over.cancelled() => {}
        }
        if let Some(sender) = stdin {
            // A full queue has enough to read before the end.
            let _ = sender.try_send(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the client hung up")));
        }
        over.cancel();
    });

    let writer = |channel| Box::pin(ChannelWriter { channel, out: PollSender::new(out.clone()) }) as Writer;
    RemoteCommand {
        stdin: options.stdin.then(|| Box::pin(StreamReader::new(ReceiverStream::new(stdin_reader))) as Reader),
        stdout: options.stdout.then(|| writer(STDOUT)),
        stderr: options.stderr.then(|| writer(STDERR)),
        status: StatusWriter(writer(ERROR)),
        resize: options.tty.then_some(Resizes(resizes)),
        closed,
    }
}

/// Writes messages of one channel. When all channels' writers are gone, the WebSocket is closed.
struct ChannelWriter {
    channel: u8,
    out: PollSender<Bytes>,
}

impl AsyncWrite for ChannelWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client hung up");
        ready!(self.out.poll_reserve(cx)).map_err(gone)?;
        let n = bytes.len().min(SEND_BYTES - 1);
        let mut message = Vec::with_capacity(n + 1);
        message.push(self.channel);
        message.extend_from_slice(bytes.get(..n).unwrap_or_default());
        self.out.send_item(message.into()).map_err(gone)?;
        Poll::Ready(Ok(n))
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.close();
        Poll::Ready(Ok(()))
    }
}
