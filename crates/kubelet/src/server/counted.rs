//! A connection that counts, for as long as it is open: also after it was upgraded to streams, when the server's own code has
//! let go of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A stream with its place among the connections; it breaks when the server closes.
pub(super) struct Counted<T> {
    io: T,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

impl<T> Counted<T> {
    pub(super) fn new(io: T, permit: OwnedSemaphorePermit, closing: CancellationToken) -> Counted<T> {
        Counted { io, closing: Box::pin(closing.cancelled_owned()), _permit: permit }
    }

    fn is_open(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.closing.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_open(context)?;
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_open(context)?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_open(context)?;
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
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
    use std::sync::Arc;

    use bytes::Bytes;
    use http_body_util::Empty;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Semaphore;

    use super::*;

    /// A connection that was handed over to streams has its place until it ends, and ends when the server does.
    #[tokio::test]
    async fn upgraded_connections_count_and_close() {
        let places = Arc::new(Semaphore::new(1));
        let closing = CancellationToken::new();
        let open = async |closing: &CancellationToken| {
            let (mut client, server) = tokio::io::duplex(1024);
            let permit = places.clone().try_acquire_owned().expect("there is a place");
            let server = Counted::new(server, permit, closing.clone());
            let service = service_fn(|mut request: http::Request<hyper::body::Incoming>| async move {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut io = TokioIo::new(upgrade.await.expect("it is upgraded"));
                    let mut byte = [0u8];
                    while io.read_exact(&mut byte).await.is_ok() && io.write_all(&byte).await.is_ok() {}
                });
                let response =
                    http::Response::builder().status(101).header("connection", "upgrade").header("upgrade", "x");
                response.body(Empty::<Bytes>::new())
            });
            client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n").await.unwrap();
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(server), service)
                .with_upgrades()
                .await
                .unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            client
        };
        let mut client = open(&closing).await;
        client.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
        assert_eq!(places.available_permits(), 0, "the server's own code is done with it");
        drop(client);
        drop(places.acquire().await.unwrap());
        let mut client = open(&closing).await;
        assert_eq!(places.available_permits(), 0);
        closing.cancel();
        assert!(client.read_u8().await.is_err(), "closed");
        drop(places.acquire().await.unwrap());
    }
}
