//! SPDY/3.1 as Kubernetes' clients and runtimes speak it (moby/spdystream on the other side), over any byte stream.
//!
//! Written for this project: the only crate for it is under the GPL. What differs from the specification is what the peers
//! do:
//! - moby/spdystream neither keeps to flow-control windows nor sends WINDOW_UPDATE. So a stream's window is kept only
//!   towards peers that announced one with SETTINGS, as this implementation does first thing. From the others the
//!   connection is simply not read while a stream's buffer is full.
//! - The session's window (stream 0) is not used by anybody; WINDOW_UPDATE for it is ignored.
//! - spdystream drops frames that it has not handled yet when the connection ends. So the side that is done says GOAWAY
//!   and waits a little for the other to hang up.
//!
//! Nothing grows without limit: inbound and outbound bytes, streams, header blocks and control frames are bounded.

mod connection;
mod frame;
mod headers;
mod stream;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc, time::Duration};

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub use stream::Stream;

use connection::{Handle, Shared};

/// Limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// A connection on which nothing moves for so long is closed.
    pub idle_timeout: Duration,
    /// Streams open at once; further ones are refused.
    pub max_streams: usize,
    /// Received bytes of a stream that wait to be read, towards a peer that keeps to windows; twice that towards others.
    pub window_bytes: u32,
    /// How long the side that is done waits for the other one to hang up.
    pub linger: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            // Upstream's streamingConnectionIdleTimeout.
            idle_timeout: Duration::from_secs(4 * 60 * 60),
            max_streams: 1024,
            window_bytes: 128 << 10,
            linger: Duration::from_secs(5),
        }
    }
}

/// A connection, driven by tasks of its own. Clones are the same connection. It ends (after sending what is queued) when
/// all clones and all streams are dropped, or when the peer hangs up.
#[derive(Clone)]
pub struct Connection {
    handle: Arc<Handle>,
}

impl Connection {
    /// The side that accepted the underlying connection.
    pub fn server<T>(io: T, config: Config) -> Connection
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        Connection { handle: connection::start(io, config, true) }
    }

    /// The side that opened the underlying connection.
    pub fn client<T>(io: T, config: Config) -> Connection
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        Connection { handle: connection::start(io, config, false) }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// The next stream that the peer has opened. It is replied to before that, so that the peer can go on at once; to refuse
    /// it, drop it. `None` when the connection is over.
    pub async fn accept(&self) -> Option<Stream> {
        let accepted = self.shared().accept().await?;
        Some(Stream::new(self.handle.clone(), accepted.0, accepted.1))
    }

    /// Opens a stream and waits for the peer's reply. Fails with `ConnectionRefused` if the peer refuses it.
    pub async fn open(&self, headers: &HeaderMap) -> io::Result<Stream> {
        let id = self.shared().open(headers)?;
        // From here on dropping it resets it.
        let stream = Stream::new(self.handle.clone(), id, headers.clone());
        self.shared().replied(id).await?;
        Ok(stream)
    }

    /// Tells the peer that no further streams are wanted. Open streams go on.
    pub fn go_away(&self) {
        self.shared().go_away();
    }

    /// Waits until the connection is over.
    pub async fn closed(&self) {
        self.shared().dead.cancelled().await;
    }

    /// Cancelled when the connection is over.
    pub(crate) fn over(&self) -> CancellationToken {
        self.shared().dead.clone()
    }
}
