//! `/openapi/v2`, `/openapi/v3`, `/openapi/v3/apis/…`. The documents are large and seldom asked for: each is made when it is
//! asked for, kept for a while and shared. Clients keep them by hash.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, EXPIRES, LOCATION};
use http::{HeaderMap, HeaderValue};
use keelson_api::kind::Kind;
use keelson_api::openapi::{self, Part};
use keelson_api::status::Status;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::with_etag;
use crate::aggregator::{Place, Spec};
use crate::core::Core;
use crate::http::negotiate::{Offers, accept};
use crate::http::query::Query;
use crate::http::reply::{self, Reply};
use crate::registry::Served;

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// How long a document is kept.
const KEEP: Duration = Duration::from_secs(300);

/// Documents that were asked for lately, by name, with their hashes.
#[derive(Default)]
pub(crate) struct Kept {
    documents: Arc<Mutex<HashMap<String, (String, Document)>>>,
}

/// Made once, however many ask for it at the same time.
type Document = Arc<OnceCell<Bytes>>;

impl Kept {
    /// The document of a name that has this hash.
    async fn get(
        &self,
        name: String,
        hash: &str,
        make: impl FnOnce() -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Bytes, Status> {
        let document = {
            let mut documents = self.documents.lock();
            match documents.get(&name) {
                Some((of, document)) if of == hash => document.clone(),
                _ => {
                    let document = Document::default();
                    documents.insert(name.clone(), (hash.to_owned(), document.clone()));
                    document
                }
            }
        };
        let made = document.get_or_try_init(|| async {
            let made = tokio::task::spawn_blocking(make).await.map_err(Status::internal)?;
            self.forget_later(name, Arc::downgrade(&document));
            made.map(Bytes::from).ok_or_else(Status::unknown_path)
        });
        made.await.cloned()
    }

    fn forget_later(&self, name: String, document: std::sync::Weak<OnceCell<Bytes>>) {
        let documents = Arc::downgrade(&self.documents);
        tokio::spawn(async move {
            tokio::time::sleep(KEEP).await;
            let (Some(documents), Some(document)) = (documents.upgrade(), document.upgrade()) else { return };
            let mut documents = documents.lock();
            if documents.get(&name).is_some_and(|(_, kept)| Arc::ptr_eq(kept, &document)) {
                documents.remove(&name);
            }
        });
    }
}

/// Answers a path under `/openapi/`.
pub(super) async fn serve(core: &Core, path: &str, query: &Query, accepts: Option<&str>, headers: &HeaderMap) -> Reply {
    // client-go asks for v2 in protobuf and nothing else (and writes an @ for a dot).
    let clauses =
        accepts.unwrap_or_default().split(',').map(|clause| clause.split(';').next().unwrap_or_default().trim());
    let protobuf = clauses.clone().any(|media| V2_PROTOBUF == media.replace('@', "."));
    if !protobuf {
        accept(accepts, Offers::Plain)?;
    }
    let served = core.registry.served();
    let hashes = served.openapi();
    let others = Others::of(core);
    match path.trim_start_matches("/openapi/").trim_end_matches('/') {
        "v2" => {
            let hash = format!("{}{}{}", hashes.v2(), others.suffix, if protobuf { "P" } else { "" });
            if let Some(kept) = kept(headers, &hash) {
                return Ok(kept);
            }
            let (name, media) = if protobuf { ("v2 protobuf", V2_PROTOBUF) } else { ("v2", "application/json") };
            let make = {
                let served = served.clone();
                move || {
                    let kinds = kinds(&served);
                    let parts = &others.parts;
                    Some(if protobuf {
                        openapi::v2_protobuf(&kinds, parts)
                    } else {
                        openapi::v2_document(&kinds, parts)
                    })
                }
            };
            let document = core.openapi.get(name.into(), &hash, make).await?;
            Ok(with_etag(document, &hash, media, headers))
        }
        "v3" => {
            let hash = format!("{}{}", hashes.v2(), others.suffix);
            Ok(with_etag(hashes.v3_index(others.places).into(), &hash, "application/json", headers))
        }
        path => match path.strip_prefix("v3/") {
            Some(path) => v3(core, &served, path, query, headers).await,
            None => Err(Status::unknown_path()),
        },
    }
}

/// What aggregated servers add to the documents.
#[derive(Default)]
struct Others {
    /// Of the hash; empty when there is nothing.
    suffix: String,
    parts: Vec<Arc<Part>>,
    /// Paths of the v3 index, and where their documents are.
    places: Vec<(String, String)>,
}

impl Others {
    fn of(core: &Core) -> Self {
        let routes = core.aggregator.routes();
        let specs: Vec<_> = routes.remotes().iter().map(|remote| (remote.path(), remote.spec())).collect();
        if specs.is_empty() {
            return Self::default();
        }
        let place = |(path, spec): &(String, Arc<Spec>)| {
            let url = match spec.v3.as_ref()? {
                Place::There(url) => url.clone(),
                Place::Here => format!("/openapi/v3{path}?hash={}", hash_of(spec)),
            };
            Some((path.trim_start_matches('/').to_owned(), url))
        };
        Self {
            suffix: specs.iter().map(|(_, spec)| format!("-{:016X}", spec.digest)).collect(),
            parts: specs.iter().filter_map(|(_, spec)| spec.v2.clone()).collect(),
            places: specs.iter().filter_map(place).collect(),
        }
    }
}

/// Of the document that is made from an aggregated server's.
fn hash_of(spec: &Spec) -> String {
    format!("{:016X}", spec.digest)
}

fn kinds(served: &Served) -> Vec<&Kind> {
    served.all().iter().map(|r| &*r.kind).collect()
}

fn kept(headers: &HeaderMap, hash: &str) -> Option<http::Response<crate::Body>> {
    let response = with_etag(Bytes::new(), hash, "application/json", headers);
    (response.status() == 304).then_some(response)
}

/// A document of v3. The index gives its URL with its hash: what is there never changes, and who asks with an old hash is sent
/// to the new one.
async fn v3(core: &Core, served: &Arc<Served>, path: &str, query: &Query, headers: &HeaderMap) -> Reply {
    let routes = core.aggregator.routes();
    let made_here = routes.remotes().iter().find(|remote| remote.path().trim_start_matches('/') == path);
    let part = made_here.map(|remote| remote.spec()).filter(|spec| spec.v3 == Some(Place::Here));
    let part = part.and_then(|spec| Some((hash_of(&spec), spec.v2.clone()?)));
    let hash = match &part {
        Some((hash, _)) => hash,
        None => served.openapi().v3(path).ok_or_else(Status::unknown_path)?,
    };
    let asked = query.get("hash").unwrap_or_default();
    if !asked.is_empty() && asked != hash {
        let mut response = reply::typed(301, "text/html; charset=utf-8", "");
        if let Ok(url) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")) {
            response.headers_mut().insert(LOCATION, url);
        }
        return Ok(response);
    }
    let mut response = match kept(headers, hash) {
        Some(kept) => kept,
        None => {
            let make = {
                let (served, path, part) =
                    (served.clone(), path.to_owned(), part.as_ref().map(|(_, part)| part.clone()));
                move || match part {
                    Some(part) => Some(part.to_v3()),
                    None => openapi::v3_document(&kinds(&served), &path),
                }
            };
            let document = core.openapi.get(path.to_owned(), hash, make).await?;
            with_etag(document, hash, "application/json", headers)
        }
    };
    if !asked.is_empty() {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let year = keelson_client::clock::now() + jiff::SignedDuration::from_hours(365 * 24);
        let expires = year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(expires) = HeaderValue::from_str(&expires) {
            response.headers_mut().insert(EXPIRES, expires);
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests;
