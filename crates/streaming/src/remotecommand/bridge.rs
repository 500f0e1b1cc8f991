//! Joins a client's streams to a backend's, whatever carries either.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Client, Outcome, RemoteCommand};
use crate::{Reader, Writer};

const BUFFER: usize = 16 << 10;

/// Copies until the backend has said how the command ended, then passes that on. A client that hangs up ends the backend's
/// connection too.
pub async fn bridge(front: RemoteCommand, back: Client) -> io::Result<()> {
    let RemoteCommand { stdin, stdout, stderr, status, resize, closed } = front;
    let input = async move {
        if let (Some(from), Some(to)) = (stdin, back.stdin) {
            // The backend may be done with its input before the client is.
            let _ = pump(from, to).await;
        }
    };
    let sizes = async move {
        if let (Some(mut from), Some(mut to)) = (resize, back.resize) {
            while let Some(size) = from.next().await {
                if to.send(size).await.is_err() {
                    return;
                }
            }
        }
    };
    let outputs = async {
        let output = async |from: Option<Reader>, to: Option<Writer>| match (from, to) {
            (Some(from), Some(to)) => pump(from, to).await,
            _ => Ok(()),
        };
        tokio::try_join!(output(back.stdout, stdout), output(back.stderr, stderr), back.status.raw())
    };
    let aside = async {
        tokio::join!(input, sizes);
        // These alone never end it.
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = outputs => result,
        () = aside => return Ok(()),
        () = closed.cancelled() => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client hung up")),
    };
    match result {
        Ok(((), (), said)) => status.send_raw(&said).await,
        Err(error) => {
            let failure = Outcome::Failure(format!("error streaming from the container runtime: {error}"));
            status.send(&failure).await?;
            Err(error)
        }
    }
}

/// Copies to the end and passes the end on. Only as much is read as the other side takes.
async fn pump(mut from: Reader, mut to: Writer) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(n) => n,
            // Upstream's servers reset all streams when they are done.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(e) => return Err(e),
        };
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..n).unwrap_or_default()).await?;
    }
}
