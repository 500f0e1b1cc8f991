//! The old way through a WebSocket, which the Python and JavaScript clients still go: the ports are in the query, and each has
//! two channels of messages, one for data and one for an error's text. The first message of each channel is the port.

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, Role, frame::coding::CloseCode},
};

use super::{Client, Pending};
use crate::{
    Error,
    spdy::{Config, Stream},
    websocket::{SEND_BYTES, idle, io_error, on},
};

/// Messages that wait to be sent.
const QUEUE: usize = 4;

impl Pending {
    /// Joins the client's channels to connections to `ports` by way of `back`, until either side hangs up or a port's
    /// connection is over: the protocol cannot say which one, so that ends them all, as with upstream's servers.
    pub async fn channels(self, ports: &[u16], mut back: Client, config: Config) -> Result<(), Error> {
        let (mut sink, mut stream) = on(self.upgrade.connection().await?, Role::Server).await.split();
        let (out, mut outgoing) = mpsc::channel::<Bytes>(QUEUE);
        let (activity, mut active) = watch::channel(Instant::now());
        let mut inputs = Vec::new();
        let mut forwards = tokio::task::JoinSet::new();
        for (port, channel) in ports.iter().zip((0..).step_by(2)) {
            let (data, error) = back.open(*port).await?;
            let [low, high] = port.to_le_bytes();
            for channel in [channel, channel + 1] {
                sink.send(Message::Binary(Bytes::copy_from_slice(&[channel, low, high]))).await.map_err(io_error)?;
            }
            let (input, from_client) = mpsc::channel(QUEUE);
            inputs.push(input);
            forwards.spawn(forward(data, error, from_client, channel, out.clone()));
        }
        drop(out);
        let sending = async {
            while let Some(message) = outgoing.recv().await {
                sink.send(Message::Binary(message)).await.map_err(io_error)?;
                activity.send_replace(Instant::now());
            }
            let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            sink.send(Message::Close(Some(normal))).await.map_err(io_error)?;
            Ok::<_, Error>(())
        };
        let receiving = async {
            while let Some(message) = stream.next().await {
                let message = match message.map_err(io_error)? {
                    Message::Binary(bytes) => bytes,
                    Message::Close(_) => break,
                    _ => continue,
                };
                activity.send_replace(Instant::now());
                let Some(channel) = message.first() else { continue };
                // What comes on error channels is nobody's.
                let input = inputs.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0);
                if let Some(input) = input {
                    // One that is over does not listen any more.
                    let _ = input.send(message.slice(1..)).await;
                }
            }
            Ok::<_, Error>(())
        };
        tokio::pin!(sending);
        tokio::select! {
            sent = &mut sending => return sent,
            received = receiving => return received,
            _ = forwards.join_next() => {}
            () = idle(&mut active, config) => {}
        }
        // What was read before the end still goes out, and then the close.
        forwards.abort_all();
        tokio::time::timeout(config.linger, sending).await.unwrap_or(Ok(()))
    }
}

/// One connection to a port. It is over when the port's side has said all: the client has no way to end its own.
async fn forward(
    data: Stream,
    error: Stream,
    mut from_client: mpsc::Receiver<Bytes>,
    channel: u8,
    out: mpsc::Sender<Bytes>,
) {
    let (reader, mut writer) = tokio::io::split(data);
    let writing = async {
        while let Some(bytes) = from_client.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await
    };
    let read = tokio::select! {
        read = copy(reader, channel, out.clone()) => read,
        () = writing => Ok(()),
    };
    // Only then does the other side say whether there was an error.
    let _ = writer.shutdown().await;
    if let Err(error) = copy(error, channel + 1, out).await.and(read) {
        tracing::debug!(%error, "a forwarded connection broke");
    }
}

/// Sends what a stream has, as messages of one channel.
async fn copy(mut from: impl AsyncRead + Unpin, channel: u8, to: mpsc::Sender<Bytes>) -> std::io::Result<()> {
    let mut buffer = BytesMut::with_capacity(SEND_BYTES);
    loop {
        buffer.put_u8(channel);
        if from.read_buf(&mut (&mut buffer).limit(SEND_BYTES - 1)).await? == 0 {
            return Ok(());
        }
        // Nobody to send to is the end.
        if to.send(buffer.split().freeze()).await.is_err() {
            return Ok(());
        }
        buffer.reserve(SEND_BYTES);
    }
}
