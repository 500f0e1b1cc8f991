//! A WebSocket as a plain byte stream: kubectl's port-forward tunnel carries raw SPDY in binary messages.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::{sync::watch, time::Instant};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::spdy::Config;

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

/// Copies what a WebSocket server sends, frame by frame: a frame may take several writes, but no write has bytes of two.
pub(crate) async fn copy_frames<R, W>(from: &mut R, to: &mut W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::with_capacity(SEND_BYTES);
    // Of the frame that is being copied.
    let mut left: u64 = 0;
    loop {
        while !buffer.is_empty() {
            if left == 0 {
                match frame_length(&buffer) {
                    Some(length) => left = length,
                    None => break,
                }
            }
            let now = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            to.write_all(&buffer.split_to(now)).await?;
            left -= now as u64;
        }
        to.flush().await?;
        buffer.reserve(SEND_BYTES);
        if from.read_buf(&mut buffer).await? == 0 {
            // A broken header, which the client may judge.
            return to.write_all(&buffer).await;
        }
    }
}

/// The bytes of the frame that starts here, header included; `None` when its header is not whole.
fn frame_length(bytes: &[u8]) -> Option<u64> {
    let second = *bytes.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (header, payload) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    Some(payload.saturating_add(header + mask))
}

/// Ends when nothing has moved for too long.
pub(crate) async fn idle(active: &mut watch::Receiver<Instant>, config: Config) {
    loop {
        let last = *active.borrow_and_update();
        tokio::time::sleep_until(last + config.idle_timeout).await;
        if *active.borrow() == last {
            return;
        }
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    /// Remembers each write.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl super::AsyncWrite for Writes {
        fn poll_write(
            mut self: super::Pin<&mut Self>,
            _: &mut super::Context<'_>,
            bytes: &[u8],
        ) -> super::Poll<std::io::Result<usize>> {
            self.0.push(bytes.to_vec());
            super::Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: super::Pin<&mut Self>, _: &mut super::Context<'_>) -> super::Poll<std::io::Result<()>> {
            super::Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: super::Pin<&mut Self>, _: &mut super::Context<'_>) -> super::Poll<std::io::Result<()>> {
            super::Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn frames_are_kept_apart_however_they_come() {
        let frames: Vec<Vec<u8>> = [0usize, 5, 125, 126, 65_535, 65_536]
            .iter()
            .map(|length| {
                let mut frame = vec![0x82];
                match *length {
                    short @ 0..126 => frame.push(short as u8),
                    middle @ 126..65_536 => {
                        frame.push(126);
                        frame.extend((middle as u16).to_be_bytes());
                    }
                    long => {
                        frame.push(127);
                        frame.extend((long as u64).to_be_bytes());
                    }
                }
                frame.resize(frame.len() + length, 7);
                frame
            })
            .collect();
        for chunk in [1, 3, 1 << 20] {
            let (mut near, mut far) = tokio::io::duplex(1 << 20);
            for part in frames.concat().chunks(chunk) {
                near.write_all(part).await.unwrap();
            }
            drop(near);
            let mut writes = Writes::default();
            super::copy_frames(&mut far, &mut writes).await.unwrap();
            assert_eq!(writes.0.concat(), frames.concat());
            // Every frame starts a write of its own.
            let mut starts = std::collections::BTreeSet::from([0]);
            for write in &writes.0 {
                starts.insert(starts.last().unwrap() + write.len());
            }
            let mut at = 0;
            for frame in &frames {
                assert!(starts.contains(&at), "{at} in chunks of {chunk}");
                at += frame.len();
            }
        }
    }
}
