//! HTTP and HTTPS probes and lifecycle hooks. Certificates are not verified (upstream's documented behaviour); redirects
//! are followed on the same host only.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use tokio::net::TcpStream;

use super::{Outcome, port_number, tcp};

/// Bytes of a response body that are looked at.
const MAX_BODY: usize = 10 << 10;
/// Redirects followed.
const MAX_REDIRECTS: usize = 10;

/// A request to be made.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    https: bool,
    host: String,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The request an action describes.
    pub(crate) fn of(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: &str,
        agent: &str,
    ) -> Result<Request, String> {
        let Some(port) = port_number(&action.port, container) else {
            return Err(format!("couldn't find port: {:?}", action.port));
        };
        let path = action.path.clone().unwrap_or_default();
        let path = escape(if path.starts_with('/') { path } else { format!("/{path}") });
        let mut headers: Vec<(String, String)> =
            action.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone())).collect();
        let has = |headers: &[(String, String)], name: &str| {
            headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        if !has(&headers, "user-agent") {
            headers.push(("User-Agent".into(), agent.into()));
        }
        if !has(&headers, "accept") {
            headers.push(("Accept".into(), "*/*".into()));
        }
        Ok(Request {
            https: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            host: action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod_ip.to_string()),
            port,
            path,
            headers,
        })
    }

    fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", tcp::join(&self.host, self.port), self.path)
    }
}

/// The path and query with what must not be in a request's first line written in percent signs; those that are there stay.
fn escape(path: String) -> String {
    let bad = |byte: u8| !byte.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&byte);
    // What comes after the first `#` is never sent.
    let sent = path.split('#').next().unwrap_or_default();
    let mut escaped = String::with_capacity(sent.len());
    for byte in sent.bytes() {
        match bad(byte) {
            true => escaped.push_str(&format!("%{byte:02X}")),
            false => escaped.push(char::from(byte)),
        }
    }
    escaped
}

/// An answer, or as much of it as counts.
struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

/// Makes the request; 200 to 299 is success, and to be sent elsewhere is one with a warning.
pub(crate) async fn probe(request: &Request, timeout: Duration) -> Outcome {
    match get(request, timeout).await {
        Err(error) => Outcome::Failure(error),
        Ok(answer) => match answer.status {
            200..300 => Outcome::Success,
            300..400 => Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
            status => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        },
    }
}

/// Makes the request for a hook: whatever the answer, it was heard.
pub(crate) async fn call(request: &Request, timeout: Duration) -> Result<(), String> {
    get(request, timeout).await.map(drop)
}

async fn get(request: &Request, timeout: Duration) -> Result<Answer, String> {
    let why = match tokio::time::timeout(timeout, follow(request.clone())).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error,
        Err(_) => "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into(),
    };
    Err(format!("Get {:?}: {why}", request.url()))
}

async fn follow(mut request: Request) -> Result<Answer, String> {
    for _ in 0..=MAX_REDIRECTS {
        let answer = send(&request).await?;
        let Some(location) = answer.location.as_ref().filter(|_| (300..400).contains(&answer.status)) else {
            return Ok(answer);
        };
        let wrong = |why: url::ParseError| format!("failed to parse Location header {location:?}: {why}");
        let here = url::Url::parse(&request.url()).map_err(wrong)?;
        let next = here.join(location).map_err(wrong)?;
        // Elsewhere: the probe has done its part.
        let host = next.host_str().unwrap_or_default().trim_matches(['[', ']']);
        if !host.eq_ignore_ascii_case(&request.host) {
            return Ok(answer);
        }
        request.https = match next.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(format!("unsupported protocol scheme {other:?}")),
        };
        request.port = next.port_or_known_default().unwrap_or(request.port);
        request.path = match next.query() {
            Some(query) => format!("{}?{query}", next.path()),
            None => next.path().to_string(),
        };
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

async fn send(request: &Request) -> Result<Answer, String> {
    let stream = TcpStream::connect((request.host.as_str(), request.port))
        .await
        .map_err(|error| tcp::dial_error(&request.host, request.port, &error))?;
    if request.https {
        let name = rustls_pki_types::ServerName::try_from(request.host.clone()).map_err(|error| error.to_string())?;
        let stream = tls().connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
        exchange(request, stream).await
    } else {
        exchange(request, stream).await
    }
}

async fn exchange(
    request: &Request,
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> Result<Answer, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut builder = http::Request::get(&request.path).header(http::header::CONNECTION, "close");
    let has_host = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    if !has_host {
        builder = builder.header(http::header::HOST, tcp::join(&request.host, request.port));
    }
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let message = builder.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender
            .send_request(message)
            .await
            .map_err(|error| if error.is_incomplete_message() { "EOF".to_string() } else { error.to_string() })?;
        let status = response.status().as_u16();
        let location =
            response.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_string);
        // What comes after the limit does not matter, nor do errors in it.
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        Ok(Answer { status, location, body })
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match answer.await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(ended.err().map_or(error, |ended| ended.to_string())),
        },
    }
}

/// Takes any certificate, as upstream's probes do.
fn tls() -> tokio_rustls::TlsConnector {
    static CONFIG: std::sync::OnceLock<Arc<rustls::ClientConfig>> = std::sync::OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(keelson_client::tls::Unverified(provider.clone()));
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the default protocol versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Arc::new(config)
    });
    tokio_rustls::TlsConnector::from(config.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers each connection with the next of `answers`.
    async fn server(answers: Vec<String>) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0u8; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    async fn outcome(answers: &[&str]) -> Outcome {
        let port = server(answers.iter().map(|answer| format!("HTTP/1.1 {answer}\r\n\r\n")).collect()).await;
        let request =
            Request { https: false, host: "127.0.0.1".into(), port, path: "/healthz".into(), headers: Vec::new() };
        probe(&request, Duration::from_secs(5)).await
    }

    #[test]
    fn paths_are_written_so_that_they_can_be_sent() {
        for (path, sent) in [
            ("", "/"),
            ("healthz", "/healthz"),
            ("/a b/\u{e9}?q=x y", "/a%20b/%C3%A9?q=x%20y"),
            ("/a%20b", "/a%20b"),
            ("/a#b", "/a"),
            ("/a;b=c,d/(e)", "/a;b=c,d/(e)"),
        ] {
            let action: HTTPGetAction = serde_json::from_value(serde_json::json!({"path": path, "port": 80})).unwrap();
            let request = Request::of(&action, &Container::default(), "127.0.0.1", "agent").unwrap();
            assert_eq!(request.path, sent, "{path}");
            assert!(sent.parse::<http::Uri>().is_ok());
        }
    }

    #[tokio::test]
    async fn status_codes_and_redirects() {
        let ok = "200 OK\r\nContent-Length: 0";
        assert_eq!(outcome(&[ok]).await, Outcome::Success);
        let failed = Outcome::Failure("HTTP probe failed with statuscode: 500".into());
        assert_eq!(outcome(&["500 Oops\r\nContent-Length: 0"]).await, failed);
        assert_eq!(outcome(&["302 Found\r\nLocation: /other\r\nContent-Length: 0", ok]).await, Outcome::Success);
        let beside = "302 Found\r\nLocation: login?next=%2F\r\nContent-Length: 0";
        assert_eq!(outcome(&[beside, ok]).await, Outcome::Success);
        let failed = Outcome::Failure("HTTP probe failed with statuscode: 503".into());
        assert_eq!(outcome(&[beside, "503 Busy\r\nContent-Length: 0"]).await, failed, "it was followed");
        let elsewhere = "302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0";
        let warning = Outcome::Warning("Probe terminated redirects, Response body: ".into());
        assert_eq!(outcome(&[elsewhere]).await, warning);
    }
}
