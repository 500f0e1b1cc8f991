//! Our own gRPC service for loading image archives, written by hand: one client-streaming method does not justify a code
//! generator. `/keelson.runtime.v1.Loading/Load` takes pieces of an archive and answers with the images' names.

use std::{
    convert::Infallible,
    io::Write,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::{
    Status, Streaming,
    body::Body,
    server::{ClientStreamingService, Grpc, NamedService},
};
use tonic_prost::ProstCodec;

use crate::{Error, core::Core, image::archive};

/// The method's path.
pub(crate) const LOAD_PATH: &str = "/keelson.runtime.v1.Loading/Load";
/// Largest archive, in bytes.
const MAX_ARCHIVE_BYTES: u64 = 32 << 30;

/// A piece of an archive.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Chunk {
    #[prost(bytes = "bytes", tag = "1")]
    pub data: bytes::Bytes,
}

/// What an archive held.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Loaded {
    #[prost(string, repeated, tag = "1")]
    pub names: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Core>);

impl NamedService for Service {
    const NAME: &'static str = "keelson.runtime.v1.Loading";
}

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = Load(self.0.clone());
        Box::pin(async move {
            if request.uri().path() != LOAD_PATH {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let mut grpc = Grpc::new(ProstCodec::<Loaded, Chunk>::default());
            Ok(grpc.client_streaming(method, request).await)
        })
    }
}

struct Load(Arc<Core>);

impl ClientStreamingService<Chunk> for Load {
    type Response = Loaded;
    type Future = BoxFuture<'static, Result<tonic::Response<Loaded>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Chunk>>) -> Self::Future {
        let core = self.0.clone();
        Box::pin(async move { Ok(tonic::Response::new(Loaded { names: load(&core, request.into_inner()).await? })) })
    }
}

/// Spools the archive into the store's own file system, then imports it.
async fn load(core: &Arc<Core>, mut chunks: Streaming<Chunk>) -> Result<Vec<String>, Status> {
    let path = core.images.temporary();
    let spool = Spool(path.clone());
    let mut file = std::fs::File::create(&path).map_err(Error::io("create", &path))?;
    let mut size = 0;
    while let Some(chunk) = chunks.message().await? {
        size += chunk.data.len() as u64;
        if size > MAX_ARCHIVE_BYTES {
            return Err(Status::resource_exhausted("the archive is too large"));
        }
        file = tokio::task::spawn_blocking(move || file.write_all(&chunk.data).map(|()| file))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(Error::io("write", &path))?;
    }
    drop(file);
    let core = core.clone();
    let import = tokio::task::spawn_blocking(move || archive::import(&core.images, &path, None));
    let names = import.await.map_err(|error| Status::internal(error.to_string()))?;
    drop(spool);
    Ok(names?)
}

/// Deletes the spooled archive, however the load ends.
struct Spool(std::path::PathBuf);

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
