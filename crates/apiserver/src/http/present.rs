//! What is done to a finished response for the client's sake: JSON indented for people, large bodies compressed.

mod gzip;
mod indent;

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use keelson_api::status::Status;

use super::body::Body;
use super::query::Query;
use super::reply;

/// What a request says of how its response is to look.
pub(crate) struct Presentation {
    accept: Option<HeaderValue>,
    indent: bool,
    gzip: bool,
}

impl Presentation {
    /// From a request's headers and query.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        // The documents there are made for programs.
        let plain = request.uri().path().starts_with("/openapi/");
        let indent = !plain && indents(request.uri().query().unwrap_or_default(), headers);
        Self { accept: headers.get(ACCEPT).cloned(), indent, gzip: accepts_gzip(headers) }
    }

    /// An error's response.
    pub(crate) fn error(&self, status: &Status) -> Response<Body> {
        reply::error(status, self.accept.as_ref())
    }

    /// The response as the client wants it. Streams (watches, logs) stay as they are.
    pub(crate) fn apply(&self, response: Response<Body>) -> Response<Body> {
        let (mut head, mut body) = response.into_parts();
        if self.indent && head.headers.get(CONTENT_TYPE).is_some_and(|t| t == "application/json") {
            body = indent::indented(body);
        }
        if self.gzip && !head.headers.contains_key(CONTENT_ENCODING) {
            let (compressed, done) = gzip::compressed(body);
            body = compressed;
            if done {
                head.headers.remove(CONTENT_LENGTH);
                head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                head.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
            }
        }
        Response::from_parts(head, body)
    }
}

/// The query's `pretty`, the media type's, or a client that people use.
fn indents(query: &str, headers: &HeaderMap) -> bool {
    if query.contains("pretty")
        && let Some(value) = Query::parse(query).text("pretty")
    {
        return matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    text(headers, &ACCEPT).split([',', ';']).any(|param| param.trim() == "pretty=1")
        || ["curl", "Wget", "Mozilla/5.0"].iter().any(|client| text(headers, &USER_AGENT).starts_with(client))
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    text(headers, &ACCEPT_ENCODING).split(',').any(|token| {
        let mut parts = token.split(';').map(str::trim);
        let refused = |param: &str| param.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
        parts.next() == Some("gzip") && !parts.any(refused)
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str, headers: &[(&str, &str)]) -> Presentation {
        let request = headers.iter().fold(Request::builder().uri(uri), |r, (k, v)| r.header(*k, *v));
        Presentation::of(&request.body(()).unwrap())
    }

    #[test]
    fn who_gets_indentation() {
        assert!(!of("/api", &[]).indent);
        assert!(of("/api?pretty=true", &[]).indent);
        assert!(of("/api", &[("user-agent", "curl/8.1")]).indent);
        assert!(!of("/api?pretty=0", &[("user-agent", "curl/8.1")]).indent);
        assert!(!of("/openapi/v2", &[("user-agent", "curl/8.1")]).indent);
        assert!(of("/api", &[("accept", "application/json;pretty=1")]).indent);
    }

    #[test]
    fn who_gets_gzip() {
        for (header, wanted) in
            [("gzip", true), ("br, gzip;q=0.5", true), ("gzip;q=0", false), ("deflate", false), ("", false)]
        {
            assert_eq!(of("/api", &[("accept-encoding", header)]).gzip, wanted, "{header}");
        }
    }

    #[test]
    fn only_large_bodies_are_compressed() {
        let gzip = of("/api", &[("accept-encoding", "gzip")]);
        let small = gzip.apply(reply::text(200, "x".repeat(100)));
        assert!(!small.headers().contains_key(CONTENT_ENCODING));
        let large = gzip.apply(reply::text(200, "x".repeat(200_000)));
        assert_eq!(large.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(large.headers()[VARY], "Accept-Encoding");
    }
}
