//! Passing an upgrade through: the client's request goes to a backend as it is, and once the backend switches protocols,
//! bytes flow both ways and nobody looks inside.

use std::io;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::Error;
use crate::upgrade::is_websocket;
use crate::websocket::copy_frames;

/// A response's body, whosever it is.
pub type ProxyBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// How much is read at a time, in each direction.
const BUFFER: usize = 32 << 10;

/// Sends `request` (its URI in origin form, its headers as the backend should see them) over `backend`. If the backend
/// switches protocols, so does the returned response, and the bytes of both connections are copied from then on, with
/// back-pressure, until both have ended. Any other response is returned as it comes.
pub async fn proxy_upgrade<B, T>(mut request: Request<B>, backend: T) -> Result<Response<ProxyBody>, Error>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let client = hyper::upgrade::on(&mut request);
    let is_websocket = is_websocket(request.headers());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(backend)).await?;
    tokio::spawn(connection.with_upgrades());
    // The request's body cannot be read: after a switch its bytes belong to the new protocol.
    let mut response = sender.send_request(request.map(|_| Empty::<Bytes>::new())).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()));
    }
    let backend = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let copied = async {
            let (client, backend) = tokio::try_join!(client, backend).map_err(io::Error::other)?;
            splice(client, backend, is_websocket).await
        };
        if let Err(error) = copied.await {
            tracing::debug!(%error, "an upgraded connection ended early");
        }
    });
    Ok(response.map(|_| Empty::new().map_err(|never| match never {}).boxed_unsync()))
}

/// Copies the bytes of two upgraded connections in both directions, with back-pressure, until both have ended. What a
/// WebSocket server sends keeps its frames apart: no write holds bytes of two. Behind TLS, a client that polls its socket
/// between messages (Python's does) would not see the one that came in another's record.
pub async fn splice(client: Upgraded, backend: Upgraded, is_websocket: bool) -> io::Result<()> {
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    if !is_websocket {
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER).await?;
        return Ok(());
    }
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_backend, mut to_backend) = tokio::io::split(backend);
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_backend).await?;
        to_backend.shutdown().await
    };
    let down = async {
        copy_frames(&mut from_backend, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(up, down)?;
    Ok(())
}
