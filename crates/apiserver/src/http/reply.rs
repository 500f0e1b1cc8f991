//! Responses.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use keelson_api::status::Status;
use serde_json::Value;

use super::body::Body;

/// What a handler answers.
pub(crate) type Reply = Result<Response<Body>, Status>;

/// A response with a body of some type.
pub(crate) fn typed(code: u16, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// JSON that is serialized already.
pub(crate) fn json(code: u16, body: impl Into<Body>) -> Response<Body> {
    typed(code, "application/json", body)
}

/// A JSON document.
pub(crate) fn value(code: u16, value: &Value) -> Response<Body> {
    json(code, Bytes::from(value.to_string()))
}

/// Plain text.
pub(crate) fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    typed(code, "text/plain; charset=utf-8", Bytes::from(text.into()))
}

/// An error.
pub(crate) fn status(status: &Status) -> Response<Body> {
    let mut response = value(status.code, &status.to_value());
    let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning` headers, as upstream bounds them: 4 KiB in all.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut left_bytes = 4096usize;
    for warning in warnings {
        let quoted: String = warning.chars().filter(|c| !c.is_control()).collect();
        let text = format!("299 - \"{}\"", quoted.replace('\\', "\\\\").replace('"', "\\\""));
        let Some(rest) = left_bytes.checked_sub(text.len()) else { return };
        left_bytes = rest;
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            response.headers_mut().append(HeaderName::from_static("warning"), value);
        }
    }
}
