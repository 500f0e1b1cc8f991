//! A request for an aggregated server, passed on. Who makes it is said in headers, which the server believes because of the
//! certificate that comes with them; what the client sent under their names is dropped. Answers go back as they come, but for
//! redirects: a client that followed one would take its credentials there (CVE-2022-3172).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::header::{HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Request, Response};
use keelson_api::status::Status;
use tokio::time::Instant;

use super::remote::Remote;
use crate::core::Core;
use crate::http::body::{Body, BoxError, RequestBody};
use crate::http::path::RequestInfo;
use crate::http::query::percent_decode;
use crate::http::reply::{self, Reply};
use crate::{UserInfo, relay};

/// Subresources whose requests take as long as they like.
const STREAMS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// Passes a request of `user` on to the server that its path is of. It has been authorized.
pub(crate) async fn serve(
    core: &Arc<Core>,
    remote: Arc<Remote>,
    user: &UserInfo,
    info: &RequestInfo,
    request: Request<RequestBody>,
) -> Reply {
    // What another server makes of such a path may not be what was authorized.
    if !is_plain(request.uri().path()) {
        return Err(Status::unknown_path());
    }
    if !remote.is_available() {
        return Ok(plain(503, "service unavailable"));
    }
    let transport = match remote.transport() {
        Ok(transport) => transport,
        Err(why) => return Ok(plain(500, why)),
    };
    let permit = remote.permit()?;
    let mut request = request;
    request.extensions_mut().insert(permit.clone());
    let upgrades = keelson_streaming::upgrade::is_upgrade(request.headers());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let url = remote.url(path);
    let prepare = |request| {
        let mut request = relay::onward(request, &url, remote.authority())?;
        identify(request.headers_mut(), user)?;
        Ok(request)
    };
    let send = |request| async move {
        let answer = transport.send(request, upgrades).await;
        answer.map_err(|why| Status::unavailable(format!("error trying to reach service: {why}")))
    };
    let work = relay::relay(request, prepare, send, &core.draining);
    let answered = if upgrades || is_long(info) {
        work.await
    } else {
        let deadline = Instant::now() + core.config.request_timeout;
        let late = || Status::timeout("request did not complete within the allotted timeout");
        let answered = tokio::time::timeout_at(deadline, work).await.map_err(|_| late())?;
        answered.map(|response| response.map(|body| until(body, deadline)))
    };
    let response = match answered {
        Ok(response) => response,
        Err(status) => return Ok(plain(503, &status.message)),
    };
    if response.status().is_redirection() && response.headers().contains_key(LOCATION) {
        return Ok(plain(502, "the backend attempted to redirect this request, which is not permitted"));
    }
    Ok(response.map(|body| body.holding(permit)))
}

/// An error as upstream's proxy gives it.
fn plain(code: u16, text: &str) -> Response<Body> {
    let mut response = reply::text(code, format!("{text}\n"));
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(HeaderName::from_static("x-content-type-options"), nosniff);
    response
}

/// Whether every reader of a path finds the same parts in it.
fn is_plain(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    path.strip_suffix('/').unwrap_or(path).split('/').all(|part| {
        let decoded = percent_decode(part);
        !matches!(decoded.as_str(), "" | "." | "..") && !decoded.contains(['/', '\\', '\0'])
    })
}

fn is_long(info: &RequestInfo) -> bool {
    info.verb == "watch" || info.target.as_ref().is_some_and(|t| STREAMS.contains(&t.subresource.as_str()))
}

/// A body that breaks off at the deadline.
fn until(body: Body, deadline: Instant) -> Body {
    let Body::Stream(frames) = body else { return body };
    let state = (frames, Box::pin(tokio::time::sleep_until(deadline)));
    let bounded = futures::stream::unfold(Some(state), |state| async {
        let (mut frames, mut timer) = state?;
        tokio::select! {
            biased;
            frame = frames.next() => frame.map(|frame| (frame, Some((frames, timer)))),
            () = &mut timer => Some((Err(BoxError::from("the request took too long")), None)),
        }
    });
    Body::Stream(bounded.boxed())
}

/// Says who makes a request.
pub(super) fn identify(headers: &mut HeaderMap, user: &UserInfo) -> Result<(), Status> {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(Status::internal);
    headers.insert("x-remote-user", value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert("x-remote-uid", value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append("x-remote-group", value(group)?);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escape(key));
        let name: HeaderName = name.parse().map_err(Status::internal)?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

/// A key as a part of a header's name.
fn escape(key: &str) -> String {
    let mut escaped = String::new();
    for byte in key.bytes() {
        match char::from(byte) {
            c if byte.is_ascii_alphanumeric() || "!#$&'*+-.^_`|~".contains(c) => escaped.push(c),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// How long a request that this server itself makes may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_two_servers_may_read_differently() {
        for path in ["/apis/g/v1", "/apis/g/v1/", "/apis/g/v1/namespaces/a/things/x%3Ay", "/api/v1/pods"] {
            assert!(is_plain(path), "{path}");
        }
        for path in [
            "/apis/g/v1//namespaces/a/secrets",
            "/apis/g/v1/namespaces/a/things/x%2Fexec",
            "/apis/g/v1/%2e%2e/v2",
            "/apis/g/v1/../v2",
            "/apis/g/v1/a%5Cb",
            "//apis/g/v1",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn users_are_said_in_headers() {
        let mut user = UserInfo::new("jane", ["a", "b"]);
        user.uid = "7".into();
        user.extra.insert("example.com/Key%".into(), vec!["x".into(), "y".into()]);
        let mut headers = HeaderMap::new();
        identify(&mut headers, &user).unwrap();
        let of = |name: &str| -> Vec<_> { headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect() };
        assert_eq!(of("x-remote-user"), ["jane"]);
        assert_eq!(of("x-remote-uid"), ["7"]);
        assert_eq!(of("x-remote-group"), ["a", "b", "system:authenticated"]);
        assert_eq!(of("X-Remote-Extra-Example.com%2FKey%25"), ["x", "y"]);
        user.name = "a\nb".into();
        assert!(identify(&mut headers, &user).is_err());
    }
}
