//! Port-forwarding: each forwarded connection is a pair of SPDY streams, one for data and one for an error's text, that
//! belong together by `requestID`.

mod channels;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::Empty;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use crate::{
    Error,
    spdy::{Config, Connection, Stream},
    upgrade::{Rejected, Transport, Upgrade, negotiate, request_spdy},
    websocket::Tunnel,
};

/// The protocol inside SPDY.
pub const PROTOCOL: &str = "portforward.k8s.io";
/// The WebSocket protocol that carries SPDY's bytes.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// The WebSocket protocol with two channels per port (see [`Pending::channels`]).
pub const CHANNEL_PROTOCOL: &str = "v4.channel.k8s.io";
/// Ports that a client of [`CHANNEL_PROTOCOL`] may name: channels are numbered by one byte.
pub const MAX_CHANNEL_PORTS: usize = 127;

/// A stream whose other half has not come by then is refused; upstream's default.
const PAIR_WITHIN: Duration = Duration::from_secs(30);
/// Halves that wait.
const MAX_UNPAIRED: usize = 128;

/// An accepted request whose connection is still to come.
pub struct Pending {
    upgrade: Upgrade,
}

/// Answers a request for port-forwarding, by SPDY, by kubectl's tunnel through WebSocket, or by channels. The response is to be returned
/// at once, and the connection awaited in another task.
pub fn serve<B>(request: &mut Request<B>) -> Result<(Response<Empty<Bytes>>, Pending), Rejected> {
    let (response, upgrade) = negotiate(request, &[PROTOCOL], &[TUNNEL_PROTOCOL, CHANNEL_PROTOCOL])?;
    Ok((response, Pending { upgrade }))
}

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Pending {
    /// What the client speaks.
    pub fn transport(&self) -> Transport {
        self.upgrade.transport
    }

    /// Whether the client speaks [`CHANNEL_PROTOCOL`]; all others speak SPDY in the end.
    pub fn is_channels(&self) -> bool {
        self.upgrade.protocol == CHANNEL_PROTOCOL
    }

    /// The connection as raw SPDY bytes, out of the tunnel if there is one: to be copied to a backend that speaks SPDY
    /// itself (see [`request`]).
    pub async fn bytes(self) -> Result<Box<dyn Duplex>, Error> {
        let transport = self.upgrade.transport;
        let io = self.upgrade.connection().await?;
        Ok(match transport {
            Transport::Spdy => Box::new(io),
            Transport::WebSocket => Box::new(Tunnel::server(io).await),
        })
    }

    /// The connection as forwarded connections.
    pub async fn forwards(self, config: Config) -> Result<Server, Error> {
        Ok(Server::new(Connection::server(self.bytes().await?, config)))
    }
}

/// Asks the server at the other end of `io` to forward ports, and returns the connection as raw SPDY bytes.
pub async fn request<T>(io: T, uri: &Uri) -> Result<impl Duplex + use<T>, Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Ok(request_spdy(io, uri, &[PROTOCOL]).await?.0)
}

/// One connection to a port.
pub struct Forward {
    pub port: u16,
    /// To be copied to and from the port. `shutdown` ends one direction.
    pub data: Stream,
    pub error: ErrorStream,
}

/// Tells the client why a connection failed. Dropping it tells that all is well.
pub struct ErrorStream(Stream);

impl ErrorStream {
    /// Sends the reason.
    pub async fn send(mut self, message: &str) -> std::io::Result<()> {
        self.0.write_all(message.as_bytes()).await
    }
}

impl Drop for ErrorStream {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The server's side of a port-forward connection.
pub struct Server {
    connection: Connection,
    /// By request: the half that is there, and until when it waits.
    unpaired: HashMap<String, (Option<Stream>, Option<Stream>, Instant)>,
}

impl Server {
    pub fn new(connection: Connection) -> Server {
        Server { connection, unpaired: HashMap::new() }
    }

    /// The next forwarded connection; `None` when the client is gone. Streams that make no sense are reset. May be dropped
    /// and called again.
    pub async fn accept(&mut self) -> Option<Forward> {
        loop {
            let expiry = self.unpaired.values().map(|(.., until)| *until).min();
            let stream = tokio::select! {
                stream = self.connection.accept() => stream?,
                () = async { tokio::time::sleep_until(expiry.unwrap_or_else(Instant::now)).await }, if expiry.is_some() => {
                    let now = Instant::now();
                    self.unpaired.retain(|_, (.., until)| *until > now);
                    continue;
                }
            };
            if let Some(forward) = self.pair(stream) {
                return Some(forward);
            }
        }
    }

    /// Puts the stream to its other half. A stream that is not kept is dropped, and so reset.
    fn pair(&mut self, stream: Stream) -> Option<Forward> {
        let is_data = match stream.header("streamtype")? {
            "data" => true,
            "error" => false,
            _ => return None,
        };
        port(&stream)?;
        let request = match stream.header("requestid") {
            Some(id) => id.to_owned(),
            // Before requestID existed, the error stream came first and its data stream right after it.
            None => (if is_data { stream.id().checked_sub(2)? } else { stream.id() }).to_string(),
        };
        if !self.unpaired.contains_key(&request) && self.unpaired.len() >= MAX_UNPAIRED {
            return None;
        }
        let until = Instant::now() + PAIR_WITHIN;
        let (data, error, _) = self.unpaired.entry(request.clone()).or_insert((None, None, until));
        let place = if is_data { data } else { error };
        if place.is_some() {
            return None;
        }
        *place = Some(stream);
        let (Some(_), Some(_), _) = self.unpaired.get(&request)? else { return None };
        let (data, error, _) = self.unpaired.remove(&request)?;
        let (data, error) = (data?, ErrorStream(error?));
        Some(Forward { port: port(&data)?, data, error })
    }
}

fn port(stream: &Stream) -> Option<u16> {
    stream.header("port")?.parse().ok().filter(|p| *p > 0)
}

/// The client's side of a port-forward connection.
pub struct Client {
    connection: Connection,
    next_request: u64,
}

impl Client {
    /// On a connection that has been switched to SPDY (see [`request`]).
    pub fn new(connection: Connection) -> Client {
        Client { connection, next_request: 0 }
    }

    /// Opens a connection to a port. The error stream, read to its end, says what went wrong; empty if nothing.
    pub async fn open(&mut self, port: u16) -> std::io::Result<(Stream, Stream)> {
        let mut headers = HeaderMap::new();
        headers.insert("port", HeaderValue::from(port));
        headers.insert("requestid", HeaderValue::from(self.next_request));
        headers.insert("streamtype", HeaderValue::from_static("error"));
        self.next_request += 1;
        let error = self.connection.open(&headers).await?;
        error.end();
        headers.insert("streamtype", HeaderValue::from_static("data"));
        Ok((self.connection.open(&headers).await?, error))
    }
}
