//! One stream of a connection, as bytes that are read and written. Each direction ends by itself.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Buf;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    connection::{Handle, OUTBOUND_BYTES, closed},
    frame,
};

/// The longest data frame sent, so that streams take turns.
const FRAME_BYTES: usize = 32 << 10;

/// A stream. `shutdown` ends the sending direction; dropping it before both directions have ended
/// resets the stream.
pub struct Stream {
    handle: Arc<Handle>,
    id: u32,
    headers: HeaderMap,
}

impl Stream {
    pub(super) fn new(handle: Arc<Handle>, id: u32, headers: HeaderMap) -> Stream {
        Stream { handle, id, headers }
    }

    /// The stream's number in its connection.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The headers with which it was opened. Names are lower case.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Ends the sending direction, as `shutdown` does.
    pub fn end(&self) {
        let shared = &self.handle.shared;
        let mut guard = shared.state();
        let state = &mut *guard;
        if let Some(stream) = state.streams.get_mut(&self.id)
            && !stream.local_closed
            && !stream.reset
            && !state.dead
        {
            stream.local_closed = true;
            frame::data(&mut state.outbound, self.id, true, &[]);
            shared.writer.notify_one();
        }
    }

    /// A header as text; `None` if absent or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.handle.shared.forget(self.id);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &self.handle.shared;
        let mut guard = shared.state();
        let state = &mut *guard;
        let Some(stream) = state.streams.get_mut(&self.id) else { return Poll::Ready(Err(closed())) };
        if stream.inbound.is_empty() {
            if stream.remote_closed {
                return Poll::Ready(Ok(()));
            }
            if stream.reset || state.dead {
                let what =
                    if stream.reset { "the peer reset the stream" } else { "the connection ended within the stream" };
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, what)));
            }
            stream.read_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let was_too_full = stream.inbound_bytes > shared.inbound_limit();
        let before = out.remaining();
        while let Some(first) = stream.inbound.front_mut().filter(|_| out.remaining() > 0) {
            let n = first.len().min(out.remaining());
            out.put_slice(first.get(..n).unwrap_or_default());
            first.advance(n);
            if first.is_empty() {
                stream.inbound.pop_front();
            }
        }
        let read = before - out.remaining();
        stream.inbound_bytes -= read;
        if state.peer_window.is_some() && !stream.remote_closed && !state.dead {
            stream.unacknowledged += read as u32;
            if stream.unacknowledged >= shared.window_bytes() / 2 {
                let delta = std::mem::take(&mut stream.unacknowledged);
                frame::window_update(&mut state.outbound, self.id, delta);
                shared.writer.notify_one();
            }
        }
        if was_too_full {
            shared.wake_reader();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let shared = &self.handle.shared;
        let mut guard = shared.state();
        let state = &mut *guard;
        let Some(stream) = state.streams.get_mut(&self.id) else { return Poll::Ready(Err(closed())) };
        if state.dead || stream.reset || stream.local_closed {
            return Poll::Ready(Err(closed()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let window = state.peer_window.map_or(i64::MAX, |w| w.saturating_add(stream.balance));
        let room = OUTBOUND_BYTES.saturating_sub(state.outbound.len());
        if window <= 0 {
            stream.write_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if room == 0 {
            // A stream may wait here and be woken for a reset as well.
            stream.write_waker = Some(cx.waker().clone());
            state.blocked.push(cx.waker().clone());
            return Poll::Pending;
        }
        let n = bytes.len().min(FRAME_BYTES).min(room).min(usize::try_from(window).unwrap_or(usize::MAX));
        frame::data(&mut state.outbound, self.id, false, bytes.get(..n).unwrap_or_default());
        stream.balance -= n as i64;
        shared.writer.notify_one();
        Poll::Ready(Ok(n))
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}
