//! The client's side over SPDY: what the kubelet uses towards a runtime's streaming URL.

use http::{HeaderMap, HeaderValue, Uri};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Options, Outcome, TerminalSize, V4, server::Outgoing};
use crate::{
    Error, Reader, Writer,
    spdy::{Config, Connection, Stream},
    upgrade::request_spdy,
};

/// A status is never longer; what is beyond is cut off.
const MAX_STATUS: u64 = 64 << 10;

/// A command's streams on the client.
pub struct Client {
    /// Dropping it ends the command's input.
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
    pub status: StatusReader,
    /// With a terminal only.
    pub resize: Option<ResizeWriter>,
}

/// Where the command's end is told.
pub struct StatusReader(Reader);

/// Tells the command how big the terminal is.
pub struct ResizeWriter(Writer);

impl Client {
    /// Asks the server at the other end of `io` for the streams at `uri`.
    pub async fn connect<T>(io: T, uri: &Uri, options: Options, config: Config) -> Result<Client, Error>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (io, protocol) = request_spdy(io, uri, &[V4]).await?;
        if protocol != V4 {
            return Err(Error::Protocol(format!("the server chose the protocol {protocol:?}")));
        }
        Client::on(io, options, config).await
    }

    /// Opens the streams on a connection that has been switched to SPDY.
    pub(super) async fn on<T>(io: T, options: Options, config: Config) -> Result<Client, Error>
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let connection = Connection::client(io, config);
        let open = async |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("streamtype", HeaderValue::from_static(kind));
            connection.open(&headers).await
        };
        let open_if = async |wanted: bool, kind| if wanted { open(kind).await.map(Some) } else { Ok(None) };
        // At once: this is one round trip. The order is the one in which upstream's clients open them.
        let (status, stdin, stdout, stderr, resize) = tokio::try_join!(
            open("error"),
            open_if(options.stdin, "stdin"),
            open_if(options.stdout, "stdout"),
            open_if(options.stderr, "stderr"),
            open_if(options.tty, "resize"),
        )?;
        let reader = |stream: Stream| {
            stream.end();
            Box::pin(stream) as Reader
        };
        Ok(Client {
            stdin: stdin.map(Outgoing::boxed),
            stdout: stdout.map(reader),
            stderr: stderr.map(reader),
            status: StatusReader(reader(status)),
            resize: resize.map(|stream| ResizeWriter(Outgoing::boxed(stream))),
        })
    }
}

impl StatusReader {
    /// Waits for the end; what the server sent.
    pub async fn raw(self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match self.0.take(MAX_STATUS).read_to_end(&mut out).await {
            Ok(_) => Ok(out),
            // Upstream's servers reset all streams when they are done.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset && !out.is_empty() => Ok(out),
            Err(e) => Err(e),
        }
    }

    /// Waits for the end.
    pub async fn outcome(self) -> std::io::Result<Outcome> {
        Ok(Outcome::from_bytes(&self.raw().await?))
    }
}

impl ResizeWriter {
    /// Sends a size.
    pub async fn send(&mut self, size: TerminalSize) -> std::io::Result<()> {
        let mut json = serde_json::to_vec(&size)?;
        json.push(b'\n');
        self.0.write_all(&json).await
    }
}
