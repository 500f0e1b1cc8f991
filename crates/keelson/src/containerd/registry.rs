//! A registry of two repositories, `hello` and `pause`, which are our own binary: what containerd pulls `keelson.local`
//! from. Read-only, plain HTTP, on loopback; the subset of the OCI distribution specification that a pull uses.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use keelson_runtime::{LocalImages, MANIFEST_TYPE};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::io::{ReaderStream, SyncIoBridge};

/// Connections served at once; more wait.
const MAX_CONNECTIONS: usize = 32;
/// Documents remembered by digest, oldest forgotten first: a pull asks for them right after it has resolved a tag.
const MAX_DOCUMENTS: usize = 128;
/// How much of a layer is made ahead of its sending, in bytes.
const AHEAD_BYTES: usize = 256 << 10;
/// Between tries to accept when descriptors run out.
const RETRY: Duration = Duration::from_millis(100);

type Body = BoxBody<Bytes, std::io::Error>;

/// Serves until the listener fails. The images are those of the binary `exe`.
pub(super) async fn serve(listener: TcpListener, exe: PathBuf) -> Result<Infallible, std::io::Error> {
    let registry = Arc::new(Registry { exe, images: OnceCell::new(), documents: Mutex::default() });
    // While containerd starts, so that the first pod need not wait for it.
    registry.images().await?;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await.map_err(std::io::Error::other)?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let registry = registry.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| {
                let registry = registry.clone();
                async move { Ok::<_, Infallible>(registry.answer(request).await) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            if let Err(error) = http.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a client of the registry");
            }
            drop(slot);
        });
    }
}

struct Registry {
    exe: PathBuf,
    images: OnceCell<Arc<LocalImages>>,
    /// Digest, media type, document.
    documents: Mutex<VecDeque<(String, &'static str, Bytes)>>,
}

impl Registry {
    async fn images(&self) -> std::io::Result<&Arc<LocalImages>> {
        let exe = self.exe.clone();
        let read = || async {
            let read = tokio::task::spawn_blocking(move || LocalImages::new(&exe));
            read.await.map_err(std::io::Error::other)?.map(Arc::new)
        };
        self.images.get_or_try_init(read).await
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let with_body = match *request.method() {
            Method::GET => true,
            Method::HEAD => false,
            _ => return failure(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this registry is read-only"),
        };
        let path = request.uri().path();
        let Some(path) = path.strip_prefix("/v2/") else {
            return failure(StatusCode::NOT_FOUND, "UNSUPPORTED", "not a path of this API");
        };
        let images = match self.images().await {
            Ok(images) => images,
            Err(error) => return failure(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", &error.to_string()),
        };
        match path.split('/').collect::<Vec<_>>().as_slice() {
            [""] => respond("application/json", None, 2, full("{}")),
            [_, "manifests" | "blobs", digest] if digest.contains(':') => self.by_digest(images, digest, with_body),
            [name, "manifests", tag] => self.by_tag(images, name, tag, with_body),
            _ => failure(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "this registry has hello and pause"),
        }
    }

    fn by_tag(&self, images: &Arc<LocalImages>, name: &str, tag: &str, with_body: bool) -> Response<Body> {
        let documents = match images.documents(name, tag) {
            Ok(Some(documents)) => documents,
            Ok(None) => {
                return failure(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "this registry has hello and pause");
            }
            Err(error) => return failure(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", &error.to_string()),
        };
        let digest = documents.manifest_digest.clone();
        {
            let mut known = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
            if !known.iter().any(|(known, ..)| *known == digest) {
                known.push_back((documents.config_digest, "application/octet-stream", documents.config.into()));
                known.push_back((documents.manifest_digest, MANIFEST_TYPE, documents.manifest.into()));
            }
            while known.len() > MAX_DOCUMENTS {
                known.pop_front();
            }
        }
        self.by_digest(images, &digest, with_body)
    }

    fn by_digest(&self, images: &Arc<LocalImages>, digest: &str, with_body: bool) -> Response<Body> {
        if digest == images.layer_digest() {
            let body = if with_body { layer(images.clone()) } else { full("") };
            return respond("application/octet-stream", Some(digest), images.layer_bytes(), body);
        }
        let known = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, media_type, document)) = known.iter().find(|(known, ..)| known == digest) else {
            return failure(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "no such digest; ask for a tag");
        };
        let body = if with_body { document.clone() } else { Bytes::new() };
        respond(media_type, Some(digest), document.len() as u64, full(body))
    }
}

/// The layer, made as it is read.
fn layer(images: Arc<LocalImages>) -> Body {
    let (reader, writer) = tokio::io::duplex(AHEAD_BYTES);
    let writer = SyncIoBridge::new(writer);
    // Ends early with a client that does.
    tokio::task::spawn_blocking(move || images.write_layer(std::io::BufWriter::with_capacity(AHEAD_BYTES / 4, writer)));
    StreamBody::new(ReaderStream::with_capacity(reader, AHEAD_BYTES / 4).map_ok(Frame::data)).boxed()
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed()
}

fn respond(media_type: &str, digest: Option<&str>, bytes: u64, body: Body) -> Response<Body> {
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, bytes)
        .header("Docker-Distribution-API-Version", "registry/2.0");
    if let Some(digest) = digest {
        response = response.header("Docker-Content-Digest", digest);
    }
    response.body(body).unwrap_or_default()
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let text = serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string();
    let mut response = respond("application/json", None, text.len() as u64, full(text));
    *response.status_mut() = status;
    response
}
