//! A registry that a test serves on loopback, with the faults that it asks for.

#![allow(unreachable_pub, dead_code, reason = "each test binary uses its part")]

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use keelson_testbed::image::Built;
use tokio::net::TcpListener;

pub const USER: &str = "alice:secret";

type Body = BoxBody<Bytes, std::io::Error>;

/// What the registry serves and what it saw.
#[derive(Default)]
pub struct Registry {
    pub blobs: Mutex<HashMap<String, Vec<u8>>>,
    pub tags: Mutex<HashMap<String, String>>,
    /// `Basic` or `Bearer`, or none.
    auth: Option<&'static str>,
    address: Mutex<Option<SocketAddr>>,
    /// Path, `Authorization`, query and `Range` of each request.
    pub requests: Mutex<Vec<String>>,
    /// Bytes of a blob after which its connection breaks, once for each entry.
    pub breaks: Mutex<Vec<usize>>,
    /// Answers to everything.
    pub down: Mutex<Option<StatusCode>>,
}

impl Registry {
    pub async fn start(auth: Option<&'static str>) -> (Arc<Self>, String) {
        let registry = Arc::new(Self { auth, ..Self::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        *registry.address.lock().unwrap() = Some(address);
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = serving.clone();
                let service = service_fn(move |request| {
                    let answer = registry.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        (registry, address.to_string())
    }

    pub fn push(&self, tag: &str, built: &Built) {
        self.blobs.lock().unwrap().extend(built.blobs.clone());
        self.tags.lock().unwrap().insert(tag.into(), built.manifest.clone());
    }

    /// Requests whose path has `part`.
    pub fn seen(&self, part: &str) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.contains(part)).cloned().collect()
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let (authorization, range) = (header("authorization"), header("range"));
        let query = request.uri().query().unwrap_or_default();
        self.requests.lock().unwrap().push(format!("{path} {authorization} {query} {range}"));
        if let Some(status) = *self.down.lock().unwrap() {
            return respond(status, Vec::new());
        }
        let basic = format!("Basic {}", STANDARD.encode(USER));
        if path == "/token" {
            assert!(
                query.contains("service=test") && query.contains("scope=repository%3Ateam%2Fapp%3Apull"),
                "{query}"
            );
            return match authorization == basic {
                true => respond(StatusCode::OK, br#"{"token":"let-me-in"}"#.to_vec()),
                false => refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "who are you"),
            };
        }
        let (wanted, challenge) = match self.auth {
            Some("Basic") => (basic.as_str(), "Basic realm=\"test\"".to_owned()),
            Some(_) => {
                let address = self.address.lock().unwrap().unwrap();
                let realm = format!("Bearer realm=\"http://{address}/token\",service=\"test\"");
                ("Bearer let-me-in", format!("{realm},scope=\"repository:team/app:pull\""))
            }
            None => ("", String::new()),
        };
        // Blobs are elsewhere, as registries like it; that place must not see the token.
        if let Some(digest) = path.strip_prefix("/storage/") {
            let blob = self.blobs.lock().unwrap().get(digest).cloned();
            return blob.map_or_else(|| respond(StatusCode::NOT_FOUND, Vec::new()), |blob| self.blob(blob, range));
        }
        if self.auth.is_some() && authorization != wanted {
            let mut response = refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
            response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
            return response;
        }
        let words: Vec<&str> = path.trim_start_matches("/v2/team/app/").splitn(2, '/').collect();
        match words.as_slice() {
            ["manifests", key] => {
                let digest = self.tags.lock().unwrap().get(*key).cloned().unwrap_or_else(|| (*key).to_owned());
                match self.blobs.lock().unwrap().get(&digest) {
                    Some(bytes) => respond(StatusCode::OK, bytes.clone()),
                    None => refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown to this registry"),
                }
            }
            ["blobs", digest] => {
                let mut response = respond(StatusCode::TEMPORARY_REDIRECT, Vec::new());
                response.headers_mut().insert("location", format!("/storage/{digest}").parse().unwrap());
                response
            }
            _ => refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "no such repository"),
        }
    }

    /// A blob, or the part that `range` asks for; perhaps only the beginning of that, and then nothing.
    fn blob(&self, blob: Vec<u8>, range: &str) -> Response<Body> {
        let offset = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse().ok());
        let rest = blob.get(offset.unwrap_or(0)..).unwrap_or_default().to_vec();
        let total = rest.len();
        let cut = self.breaks.lock().unwrap().pop().filter(|cut| *cut < total);
        let mut response = match cut {
            None => respond(StatusCode::OK, rest),
            Some(cut) => {
                let piece = Ok(Frame::data(Bytes::from(rest[..cut].to_vec())));
                // Late enough for the piece to be on its way.
                let broken = futures::stream::once(async {
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    Err(std::io::Error::other("the connection breaks here"))
                });
                let pieces = futures::StreamExt::chain(futures::stream::iter([piece]), broken);
                Response::new(BodyExt::boxed(StreamBody::new(Box::pin(pieces))))
            }
        };
        if cut.is_some() {
            response.headers_mut().insert("content-length", total.to_string().parse().unwrap());
        }
        if let Some(offset) = offset {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {offset}-{}/{}", blob.len() - 1, blob.len());
            response.headers_mut().insert("content-range", range.parse().unwrap());
        }
        response
    }
}

fn respond(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Full::from(body).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    respond(status, serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string().into_bytes())
}
