//! A WebSocket as a plain byte stream: kubectl's port-forward tunnel carries raw SPDY in binary messages.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{Role, WebSocketConfig},
    },
};

/// No message is longer, in either direction of the ones read; what is written is cut into smaller ones.
const MAX_MESSAGE: usize = 1 << 20;
/// The longest message sent.
pub(crate) const SEND_BYTES: usize = 32 << 10;

/// Speaks WebSocket on a connection whose handshake is done.
pub(crate) async fn on<T>(io: T, role: Role) -> WebSocketStream<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

pub(crate) fn io_error(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

/// The tunnel's end on this side. Shutting it down closes the WebSocket.
pub struct Tunnel<T> {
    socket: WebSocketStream<T>,
    /// The rest of the message being read.
    rest: Bytes,
    /// A message was handed to the socket and may not be on its way yet.
    unflushed: bool,
    closing: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Tunnel<T> {
    /// The server's end, on an upgraded connection.
    pub async fn server(io: T) -> Tunnel<T> {
        Tunnel::new(on(io, Role::Server).await)
    }

    /// The client's end, on an upgraded connection.
    pub async fn client(io: T) -> Tunnel<T> {
        Tunnel::new(on(io, Role::Client).await)
    }

    fn new(socket: WebSocketStream<T>) -> Self {
        Tunnel { socket, rest: Bytes::new(), unflushed: false, closing: false }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(text))) => self.rest = text.into(),
                // Pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed)) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let n = self.rest.len().min(out.remaining());
        out.put_slice(self.rest.get(..n).unwrap_or_default());
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // One message at a time in the socket's buffer: that is the back-pressure.
        ready!(self.as_mut().poll_flush(cx))?;
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io_error)?;
        let n = bytes.len().min(SEND_BYTES);
        let message = Message::Binary(Bytes::copy_from_slice(bytes.get(..n).unwrap_or_default()));
        Pin::new(&mut self.socket).start_send(message).map_err(io_error)?;
        self.unflushed = true;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx)).map_err(io_error)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        if !self.closing {
            ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io_error)?;
            // The peer may have closed it already.
            let _ = Pin::new(&mut self.socket).start_send(Message::Close(None));
            self.closing = true;
        }
        // Not `poll_close`, which also waits for the peer's answer.
        match ready!(Pin::new(&mut self.socket).poll_flush(cx)) {
            Ok(()) | Err(tungstenite::Error::ConnectionClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }
}
