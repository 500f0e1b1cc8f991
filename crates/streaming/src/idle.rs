//! A connection on which nothing may be still for too long, whatever it carries.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Reads fail with [`io::ErrorKind::TimedOut`] once neither a byte was read nor one written for as long as the limit.
/// Somebody must be reading, as whoever passes bytes on is.
pub struct Idle<T> {
    io: T,
    limit: Duration,
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<T> Idle<T> {
    /// `io`, which may be still for `limit`.
    pub fn new(io: T, limit: Duration) -> Idle<T> {
        Idle { io, limit, last: Instant::now(), timer: Box::pin(tokio::time::sleep(limit)) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Idle<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let own = &mut *self;
        if let Poll::Ready(read) = Pin::new(&mut own.io).poll_read(context, buffer) {
            if buffer.filled().len() > before {
                own.last = Instant::now();
            }
            return Poll::Ready(read);
        }
        while own.timer.as_mut().poll(context).is_ready() {
            let until = own.last + own.limit;
            if until <= Instant::now() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing moved for too long")));
            }
            own.timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Idle<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.last = Instant::now();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn still_for_too_long() {
        let (mut far, near) = duplex(64);
        let (start, limit) = (Instant::now(), Duration::from_secs(10));
        let (mut reader, mut writer) = tokio::io::split(Idle::new(near, limit));
        let talk = async {
            // Either direction counts.
            for n in 0..6 {
                tokio::time::sleep(Duration::from_secs(7)).await;
                if n % 2 == 0 { far.write_all(b"x").await } else { writer.write_all(b"y").await }.expect("open");
            }
        };
        let mut all = Vec::new();
        let (read, ()) = tokio::join!(reader.read_to_end(&mut all), talk);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!((all.as_slice(), start.elapsed().as_secs()), (&b"xxx"[..], 6 * 7 + 10));
    }
}
