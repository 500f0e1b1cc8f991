//! Responses.

use std::collections::HashSet;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use keelson_api::codec::{Encoding, json};
use keelson_api::status::Status;
use serde_json::Value;

use super::body::Body;
use super::negotiate::error_encoding;
use crate::registry::render;

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

/// A document in some encoding.
pub(crate) fn encoded(code: u16, encoding: Encoding, body: impl Into<Body>) -> Response<Body> {
    typed(code, encoding.media_type(), body)
}

/// A JSON document, and the line feed that ends it.
pub(crate) fn value(code: u16, value: &Value) -> Response<Body> {
    let mut text = Vec::with_capacity(1024);
    json::write(value, &mut text);
    text.push(b'\n');
    encoded(code, Encoding::Json, Bytes::from(text))
}

/// Plain text.
pub(crate) fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    typed(code, "text/plain; charset=utf-8", Bytes::from(text.into()))
}

/// An error, as the client's `Accept` header has it.
pub(crate) fn error(status: &Status, accept: Option<&HeaderValue>) -> Response<Body> {
    let accepts = accept.and_then(|accept| accept.to_str().ok());
    let document = status.to_value();
    let mut response = render::document(status.code, &document, error_encoding(accepts))
        .unwrap_or_else(|_| value(status.code, &document));
    let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Characters of all warnings of an answer.
const WARNING_CHARS: usize = 4096;
/// Characters of one warning, once all of them would be too many.
const SHORT_WARNING_CHARS: usize = 256;

/// What an answer warns of so far.
#[derive(Clone, Default)]
struct Warnings(Vec<String>);

/// Adds `Warning` headers, each text once. As upstream bounds them: all are cut short when they are too long together, and
/// what is still too much is left out.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    if warnings.is_empty() {
        return;
    }
    let Warnings(mut all) = response.extensions_mut().remove().unwrap_or_default();
    all.extend_from_slice(warnings);
    set_warnings(response, all);
}

/// As [`warn`], before all others.
pub(crate) fn warn_first(response: &mut Response<Body>, warning: String) {
    let Warnings(mut all) = response.extensions_mut().remove().unwrap_or_default();
    all.insert(0, warning);
    set_warnings(response, all);
}

fn set_warnings(response: &mut Response<Body>, all: Vec<String>) {
    let name = HeaderName::from_static("warning");
    response.headers_mut().remove(&name);
    for text in bounded(&all) {
        // A header cannot carry control characters.
        let quoted = format!("299 - \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = HeaderValue::from_bytes(quoted.as_bytes()) {
            response.headers_mut().append(&name, value);
        }
    }
    response.extensions_mut().insert(Warnings(all));
}

fn bounded(all: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let sendable = all.iter().filter(|text| !text.is_empty() && !text.contains(char::is_control));
    let unique: Vec<&str> = sendable.map(String::as_str).filter(|text| seen.insert(*text)).collect();
    let total: usize = unique.iter().map(|text| text.chars().count()).sum();
    let longest = if total > WARNING_CHARS { SHORT_WARNING_CHARS } else { WARNING_CHARS };
    let short = unique.into_iter().map(|text| text.chars().take(longest).collect::<String>());
    short
        .scan(WARNING_CHARS, |left, text| {
            *left = left.checked_sub(text.chars().count())?;
            Some(text)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(response: &Response<Body>) -> Vec<&str> {
        response.headers().get_all("warning").iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn warnings_are_bounded() {
        let mut response = text(200, "");
        warn(&mut response, &["a".into(), "b \"c\"".into(), "a".into(), "line\nfeed".into()]);
        warn_first(&mut response, "old".into());
        assert_eq!(headers(&response), ["299 - \"old\"", "299 - \"a\"", r#"299 - "b \"c\"""#]);
        let long: Vec<String> = (0..40).map(|i| format!("{i:02}{}", "x".repeat(998))).collect();
        warn(&mut response, &long[..4]);
        assert_eq!(headers(&response)[3].len(), 1000 + 8, "not too much yet");
        warn(&mut response, &long);
        let headers = headers(&response);
        assert_eq!(headers[1], "299 - \"a\"");
        assert_eq!(headers[3].len(), 256 + 8);
        assert_eq!(headers.len(), 3 + 15, "4,096 characters in all");
    }
}
