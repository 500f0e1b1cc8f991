//! Paths that are about the server itself: discovery, OpenAPI, version, health.

pub(crate) mod documents;
mod flow_control;
pub(crate) mod health;
pub(crate) mod openapi;

use http::header::{ACCEPT, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Method};
use keelson_api::status::Status;
use serde_json::Value;

use crate::core::Core;
use crate::http::negotiate::{Offers, Shape, accept};
use crate::http::query::Query;
use crate::http::reply::{self, Reply};
use crate::metrics;
use crate::registry::render;

pub(crate) use documents::Documents;

/// Answers a path outside the resources.
pub(crate) async fn serve(core: &Core, method: &Method, path: &str, query: &Query, headers: &HeaderMap) -> Reply {
    let accepts = headers.get(ACCEPT).and_then(|v| v.to_str().ok());
    if let Some(reply) = health::serve(core, path, query).await {
        return Ok(reply);
    }
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Status::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    if let Some(reply) = metrics::serve(core, path).or_else(|| flow_control::serve(core, path)) {
        return Ok(reply);
    }
    if path.starts_with("/openapi/") {
        return openapi::serve(core, path, query, accepts, headers).await;
    }
    if let Some(tokens) = &core.authenticator.tokens {
        match path {
            "/openid/v1/jwks" => {
                return Ok(reply::typed(
                    200,
                    "application/jwk-set+json",
                    bytes::Bytes::from(tokens.jwks().to_string()),
                ));
            }
            "/.well-known/openid-configuration" => {
                let (address, port) = (core.config.advertise_address, core.config.advertise_port);
                let address = std::net::SocketAddr::new(address, port);
                let own = format!("https://{address}/openid/v1/jwks");
                let configured = core.config.service_account.as_ref().and_then(|keys| keys.jwks_uri.as_deref());
                return Ok(reply::value(200, &tokens.openid(configured.unwrap_or(&own))));
            }
            _ => {}
        }
    }
    let discovery = core.discovery.current(core);
    let offers = if matches!(path, "/api" | "/apis") { Offers::Discovery } else { Offers::Plain };
    let accepted = accept(accepts, offers)?;
    if let Shape::Discovery { beta } = accepted.shape {
        let (document, etag) = discovery.aggregated(path == "/api", beta);
        let content_type = if beta {
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
        } else {
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        };
        return Ok(with_etag(document, etag, content_type, headers));
    }
    let document = discovery.document(path, core).ok_or_else(Status::unknown_path)?;
    let mut response = render::document(200, &document, accepted.encoding)?;
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// A document that clients keep by its ETag.
fn with_etag(
    document: bytes::Bytes,
    etag: &str,
    content_type: &'static str,
    headers: &HeaderMap,
) -> http::Response<crate::Body> {
    let quoted = format!("\"{etag}\"");
    let same =
        headers.get_all(IF_NONE_MATCH).iter().any(|v| v.to_str().is_ok_and(|v| v.contains(&quoted) || v == etag));
    let mut response =
        if same { reply::typed(304, content_type, "") } else { reply::typed(200, content_type, document) };
    if let Ok(value) = HeaderValue::from_str(&quoted) {
        response.headers_mut().insert(ETAG, value);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// The `Value` of a list of strings.
fn strings<'a>(items: impl IntoIterator<Item = &'a str>) -> Value {
    items.into_iter().map(Value::from).collect()
}
