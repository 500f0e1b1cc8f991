//! Calls to a running runtime that CRI has no words for: loading images from archives.

use std::{io::Read, path::Path};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::{
    Error,
    service::loading::{Chunk, LOAD_PATH, Loaded},
};

/// Size of the pieces an archive travels in, in bytes, and how many wait for the socket.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS_AHEAD: usize = 4;

/// Loads the images of `source` (an OCI layout directory or tar, or a `docker save` tar, plain, gzip or zstd) into the
/// runtime behind `socket`; returns their names. The bytes travel over the socket, so client and runtime need not share a
/// mount namespace.
pub async fn import_images(socket: &Path, source: &Path) -> Result<Vec<String>, Error> {
    std::fs::metadata(source).map_err(Error::io("open", source))?;
    let stream =
        tokio::net::UnixStream::connect(socket).await.map_err(Error::io("connect to the runtime at", socket))?;
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let path = source.to_owned();
    let reading = tokio::task::spawn_blocking(move || read(&path, &sender));
    let answer = call(stream, ReceiverStream::new(receiver)).await;
    let read = reading.await.map_err(|error| Error::Other(error.to_string()))?;
    // When both fail, reading is the cause.
    read.map_err(Error::io("read", source))?;
    answer.map_err(|status| Error::Other(status.message().to_owned()))
}

async fn call(stream: tokio::net::UnixStream, chunks: ReceiverStream<Chunk>) -> Result<Vec<String>, tonic::Status> {
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let stream = stream.take().ok_or_else(|| std::io::Error::other("the connection was used"));
        async move { stream.map(hyper_util::rt::TokioIo::new) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://runtime.invalid");
    let unavailable = |error: tonic::transport::Error| tonic::Status::unavailable(error.to_string());
    let channel = endpoint.connect_with_connector(connector).await.map_err(unavailable)?;
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(unavailable)?;
    let codec = ProstCodec::<Chunk, Loaded>::default();
    let path = PathAndQuery::from_static(LOAD_PATH);
    Ok(grpc.client_streaming(tonic::Request::new(chunks), path, codec).await?.into_inner().names)
}

fn read(source: &Path, sender: &mpsc::Sender<Chunk>) -> std::io::Result<()> {
    let mut sink = Sink { sender, buffer: Vec::with_capacity(CHUNK_BYTES) };
    if source.is_dir() {
        let mut archive = tar::Builder::new(&mut sink);
        archive.follow_symlinks(false);
        archive.append_dir_all(".", source)?;
        archive.finish()?;
        drop(archive);
    } else {
        let mut file = std::fs::File::open(source)?;
        std::io::copy(&mut Read::by_ref(&mut file), &mut sink)?;
    }
    std::io::Write::flush(&mut sink)
}

/// Collects bytes into chunks; ends early when the call has ended.
struct Sink<'a> {
    sender: &'a mpsc::Sender<Chunk>,
    buffer: Vec<u8>,
}

impl std::io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend(bytes.iter().take(count));
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if !self.buffer.is_empty() {
            let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES)).into();
            // A closed channel means that the runtime has answered already; its answer says why.
            let _ = self.sender.blocking_send(Chunk { data });
        }
        Ok(())
    }
}
