//! `/openapi/v2`, `/openapi/v3`, `/openapi/v3/apis/…`. The documents are large and seldom asked for, so they are made for
//! each request and not kept; clients keep them by hash.

use http::header::{CACHE_CONTROL, EXPIRES, LOCATION};
use http::{HeaderMap, HeaderValue};
use keelson_api::kind::Kind;
use keelson_api::openapi;
use keelson_api::status::Status;

use super::with_etag;
use crate::core::Core;
use crate::http::negotiate::{Offers, accept};
use crate::http::query::Query;
use crate::http::reply::{self, Reply};

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers a path under `/openapi/`.
pub(super) fn serve(core: &Core, path: &str, query: &Query, accepts: Option<&str>, headers: &HeaderMap) -> Reply {
    // client-go asks for v2 in protobuf and nothing else (and writes an @ for a dot).
    let clauses =
        accepts.unwrap_or_default().split(',').map(|clause| clause.split(';').next().unwrap_or_default().trim());
    let protobuf = clauses.clone().any(|media| V2_PROTOBUF == media.replace('@', "."));
    if !protobuf {
        accept(accepts, Offers::Plain)?;
    }
    let served = core.registry.served();
    let kinds: Vec<&Kind> = served.all().iter().map(|r| &*r.kind).collect();
    match path.trim_start_matches("/openapi/").trim_end_matches('/') {
        "v2" => {
            let hash = format!("{}{}", openapi::v2_hash(&kinds), if protobuf { "P" } else { "" });
            if let Some(kept) = kept(headers, &hash) {
                return Ok(kept);
            }
            let (document, media) = match protobuf {
                true => (openapi::v2_protobuf(&kinds), V2_PROTOBUF),
                false => (openapi::v2_document(&kinds), "application/json"),
            };
            Ok(with_etag(document.into(), &hash, media, headers))
        }
        "v3" => {
            let index = openapi::v3_index(&kinds);
            Ok(with_etag(index.into(), &openapi::v2_hash(&kinds), "application/json", headers))
        }
        path => match path.strip_prefix("v3/") {
            Some(path) => v3(&kinds, path, query, headers),
            None => Err(Status::unknown_path()),
        },
    }
}

fn kept(headers: &HeaderMap, hash: &str) -> Option<http::Response<crate::Body>> {
    let response = with_etag(bytes::Bytes::new(), hash, "application/json", headers);
    (response.status() == 304).then_some(response)
}

/// A document of v3. The index gives its URL with its hash: what is there never changes, and who asks with an old hash is sent
/// to the new one.
fn v3(kinds: &[&Kind], path: &str, query: &Query, headers: &HeaderMap) -> Reply {
    let hash = openapi::v3_hash(kinds, path);
    let asked = query.get("hash").unwrap_or_default();
    let document = || openapi::v3_document(kinds, path).ok_or_else(Status::unknown_path);
    if !asked.is_empty() && asked != hash {
        document()?;
        let mut response = reply::typed(301, "text/html; charset=utf-8", "");
        if let Ok(url) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")) {
            response.headers_mut().insert(LOCATION, url);
        }
        return Ok(response);
    }
    let mut response = match kept(headers, &hash) {
        Some(kept) => kept,
        None => with_etag(document()?.into(), &hash, "application/json", headers),
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
