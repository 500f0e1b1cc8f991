//! A small HTTP client for one pull: sockets in the network namespace that the configuration names, TLS with the machine's
//! certificates, redirects, and the registry's authentication.

use std::{
    io,
    net::{TcpStream as StdStream, ToSocketAddrs},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use keelson_cri::v1::AuthConfig;
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{net::TcpStream, time::timeout};

use super::{
    auth::{Challenge, Credentials, encode, parse_challenge},
    hosts::Host,
};
use crate::{Config, Error, image::Reference, namespaces};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A registry that says nothing for so long has gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;
/// Largest error document or token answer that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Where systems keep their certificate authorities.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*";

/// One pull's conversation with one repository.
pub(super) struct Session {
    pub(super) host: Host,
    client: Result<Client<HttpsConnector<Connector>, Full<Bytes>>, String>,
    base: String,
    /// Tells a mirror which registry it stands in for; empty for the registry itself.
    query: String,
    credentials: Credentials,
    scope: String,
    /// The `Authorization` that the registry last took.
    authorization: Mutex<Option<String>>,
}

impl Session {
    pub(super) fn new(config: &Config, host: Host, reference: &Reference, auth: &AuthConfig) -> Self {
        let credentials = Credentials::new(auth, &host.authority);
        let authorization = credentials.registry_token.as_ref().map(|token| format!("Bearer {token}"));
        let query = if host.mirror { format!("?ns={}", encode(&reference.registry)) } else { String::new() };
        Self {
            client: client(config.pull_netns.clone(), &host),
            base: format!("{}/{}/", host.base, reference.repository),
            query,
            scope: format!("repository:{}:pull", reference.repository),
            credentials,
            authorization: Mutex::new(authorization),
            host,
        }
    }

    /// Gets a manifest or index by tag or digest. A 404's error holds only the registry's words, with a separator before
    /// them.
    pub(super) async fn manifest(&self, key: &str) -> Result<Response<Incoming>, Error> {
        let response = self.get(&format!("manifests/{key}"), MANIFEST_TYPES, 0).await?;
        if response.status() == StatusCode::OK { Ok(response) } else { Err(refusal(&self.base, response).await) }
    }

    /// Gets a blob from byte `offset` on; whether it really begins there, or at 0. Errors are as [`Self::manifest`]'s.
    pub(super) async fn blob(&self, digest: &str, offset: u64) -> Result<(Response<Incoming>, bool), Error> {
        let path = format!("blobs/{digest}");
        let mut response = self.get(&path, "*/*", offset).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            response = self.get(&path, "*/*", 0).await?;
        }
        let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
        match response.status() {
            StatusCode::OK => Ok((response, false)),
            StatusCode::PARTIAL_CONTENT
                if range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-"))) =>
            {
                Ok((response, true))
            }
            StatusCode::PARTIAL_CONTENT => Err(Error::Other(format!("{path}: the registry sent another range"))),
            _ => Err(refusal(&self.base, response).await),
        }
    }

    async fn get(&self, path: &str, accept: &str, offset: u64) -> Result<Response<Incoming>, Error> {
        let url = format!("{}{path}{}", self.base, self.query);
        let response = self.follow(&url, accept, offset).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenge = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let challenge = challenge.filter_map(|value| value.to_str().ok()).find_map(parse_challenge);
        match challenge {
            Some(challenge) => self.authorize(challenge).await?,
            None => return Err(refusal(&url, response).await),
        }
        self.follow(&url, accept, offset).await
    }

    /// Sends a GET and follows redirects; the registry's authorization stays with the registry.
    async fn follow(&self, url: &str, accept: &str, offset: u64) -> Result<Response<Incoming>, Error> {
        let mut target: Uri = url.parse().map_err(|_| Error::Invalid(format!("{url} is not a URL")))?;
        let home = target.authority().cloned();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::get(target.clone()).header(header::ACCEPT, accept);
            if offset > 0 {
                request = request.header(header::RANGE, format!("bytes={offset}-"));
            }
            if let Some(headers) = request.headers_mut().filter(|_| target.authority() == home.as_ref()) {
                headers.extend(self.host.headers.clone());
            }
            if let Some(authorization) =
                self.authorization.lock().as_ref().filter(|_| target.authority() == home.as_ref())
            {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let response = self.send(request.body(Full::default())).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            target = redirect(&target, response.headers())
                .ok_or_else(|| Error::Other(format!("{url}: a redirect leads nowhere")))?;
        }
        Err(Error::Other(format!("{url}: too many redirects")))
    }

    async fn send(&self, request: http::Result<Request<Full<Bytes>>>) -> Result<Response<Incoming>, Error> {
        let mut request = request.map_err(|error| Error::Invalid(error.to_string()))?;
        let agent = header::HeaderValue::from_static(concat!("keelson/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let failed = |why: String| Error::Other(format!("failed to do request: {method} \"{uri}\": {why}"));
        let client = self.client.as_ref().map_err(|why| failed(why.clone()))?;
        match timeout(SILENCE_TIMEOUT, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failed(root_cause(&error))),
            Err(_) => Err(failed(format!("no answer within {} s", SILENCE_TIMEOUT.as_secs()))),
        }
    }

    async fn authorize(&self, challenge: Challenge) -> Result<(), Error> {
        let authorization = match challenge {
            Challenge::Basic => self.credentials.basic_header().ok_or_else(|| {
                Error::Unauthorized(
                    "failed to authorize: the registry wants a user name and password: 401 Unauthorized".into(),
                )
            })?,
            Challenge::Bearer { realm, service, scope } => self.token(&realm, &service, &scope).await?,
        };
        *self.authorization.lock() = Some(authorization);
        Ok(())
    }

    /// Gets a token, with credentials if there are any.
    async fn token(&self, realm: &str, service: &str, scope: &str) -> Result<String, Error> {
        if self.base.starts_with("https:") && !realm.starts_with("https:") {
            return Err(Error::Unauthorized(format!("failed to authorize: the token server {realm} is not secure")));
        }
        let scope = if scope.is_empty() { &self.scope } else { scope };
        let (service, scope) = (encode(service), encode(scope));
        let request = if let Some(token) = &self.credentials.identity_token {
            let token = encode(token);
            let form = format!(
                "grant_type=refresh_token&service={service}&scope={scope}&client_id=keelson&refresh_token={token}"
            );
            let kind = "application/x-www-form-urlencoded";
            Request::builder().method(Method::POST).uri(realm).header(header::CONTENT_TYPE, kind).body(Full::from(form))
        } else {
            let separator = if realm.contains('?') { '&' } else { '?' };
            let mut request = Request::get(format!("{realm}{separator}service={service}&scope={scope}"));
            if let Some(basic) = self.credentials.basic_header() {
                request = request.header(header::AUTHORIZATION, basic);
            }
            request.body(Full::default())
        };
        let response = self.send(request).await?;
        if response.status() != StatusCode::OK {
            let kind = if self.credentials.basic.is_some() { "oauth" } else { "anonymous" };
            let why = refusal(realm, response).await;
            return Err(Error::Unauthorized(format!("failed to authorize: failed to fetch {kind} token: {why}")));
        }
        let bytes = body(response, MAX_ANSWER_BYTES).await?;
        let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let token = ["token", "access_token"].iter().find_map(|key| answer.get(*key)?.as_str());
        let token =
            token.ok_or_else(|| Error::Unauthorized("failed to authorize: the token server gave no token".into()))?;
        Ok(format!("Bearer {token}"))
    }
}

/// A whole body of at most `limit` bytes.
pub(super) async fn body(response: Response<Incoming>, limit: u64) -> Result<Bytes, Error> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let collected = timeout(SILENCE_TIMEOUT, Limited::new(response.into_body(), limit).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => Err(Error::Other(format!("read the registry's answer: {error}"))),
        Err(_) => Err(Error::Other("the registry's answer did not come to its end".into())),
    }
}

/// A body piece by piece.
pub(super) struct Chunks(Incoming);

impl Chunks {
    pub(super) fn new(response: Response<Incoming>) -> Self {
        Self(response.into_body())
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(SILENCE_TIMEOUT, self.0.frame());
            let frame = frame.await.map_err(|_| Error::Other("the registry stopped sending".into()))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Error::Other(format!("read the registry's answer: {error}"))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// The error for an answer that is not what was asked for, with the registry's own words.
async fn refusal(url: &str, response: Response<Incoming>) -> Error {
    let status = response.status();
    let words = body(response, MAX_ANSWER_BYTES).await.map(|bytes| server_words(&bytes)).unwrap_or_default();
    let after = if words.is_empty() { String::new() } else { format!(": {words}") };
    match status {
        StatusCode::NOT_FOUND => Error::ImageNotFound(after),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Unauthorized(format!(
            "pull access denied, repository does not exist or may require authorization: server message{}",
            if words.is_empty() { format!(": {status}") } else { after }
        )),
        _ => Error::Other(format!("unexpected status from GET request to {url}: {status}{after}")),
    }
}

/// The messages of a registry's error document, or the start of whatever text it is.
fn server_words(bytes: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let errors = document.get("errors").and_then(serde_json::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let word = |error: &serde_json::Value| {
        let field = |key: &str| error.get(key).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
        field("message").or_else(|| field("code")).map(String::from)
    };
    let words: Vec<String> = errors.iter().filter_map(word).collect();
    if !words.is_empty() {
        return words.join("; ");
    }
    let text = String::from_utf8_lossy(bytes);
    if text.contains('<') { String::new() } else { text.trim().chars().take(256).collect() }
}

/// Where a redirect leads; not from TLS to plain.
fn redirect(from: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let target: Uri = if location.starts_with('/') {
        format!("{}://{}{location}", from.scheme_str()?, from.authority()?).parse().ok()?
    } else {
        location.parse().ok()?
    };
    let downgrade = from.scheme_str() == Some("https") && target.scheme_str() != Some("https");
    (target.authority().is_some() && !downgrade).then_some(target)
}

pub(super) fn is_loopback(host: &str) -> bool {
    let name = host.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let name = name.unwrap_or_else(|| host.rsplit_once(':').map_or(host, |(name, _)| name));
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn client(netns: Option<PathBuf>, host: &Host) -> Result<Client<HttpsConnector<Connector>, Full<Bytes>>, String> {
    let mut roots = rustls::RootCertStore::empty();
    // Plain HTTP needs no authorities, and reading them takes a while.
    let tls = host.base.starts_with("https:");
    for path in AUTHORITIES.iter().filter(|_| tls && !host.skip_verify) {
        let Ok(certificates) = CertificateDer::pem_file_iter(path) else { continue };
        roots.add_parsable_certificates(certificates.flatten());
        break;
    }
    for path in &host.authorities {
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| format!("ca {}: {error}", path.display()))?;
        roots.add_parsable_certificates(certificates.flatten());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = if host.skip_verify {
        config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        config.with_root_certificates(roots)
    };
    let config = match &host.client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let say = |error: rustls::pki_types::pem::Error| format!("client {}: {error}", certificate.display());
            let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(say)?;
            let key = rustls::pki_types::PrivateKeyDer::from_pem_file(key).map_err(say)?;
            config.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
    };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(Connector(netns));
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// Takes any server for the right one: what `skip_verify` asks for.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Opens sockets, in a network namespace if one is given; names are looked up there too.
#[derive(Clone)]
struct Connector(Option<PathBuf>);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let netns = self.0.clone();
        Box::pin(async move {
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let dial = move || dial(&host, port);
            let connected = tokio::task::spawn_blocking(move || match netns {
                Some(netns) => namespaces::in_network(&netns, dial).map_err(io::Error::other)?,
                None => dial(),
            });
            let stream = connected.await.map_err(io::Error::other)??;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(TcpStream::from_std(stream)?))
        })
    }
}

fn dial(host: &str, port: u16) -> io::Result<StdStream> {
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| io::Error::new(error.kind(), format!("lookup {host}: {error}")))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("lookup {host}: no such host"));
    for address in addresses {
        match StdStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = io::Error::new(error.kind(), format!("dial tcp {address}: {error}")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names() {
        for (host, loopback) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("registry.test", false),
            ("127.0.0.1.evil.test", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(host), loopback, "{host}");
        }
    }

    #[test]
    fn redirects() {
        let from: Uri = "https://a.test/v2/x".parse().unwrap();
        let to = |location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, location.parse().unwrap());
            redirect(&from, &headers).map(|uri| uri.to_string())
        };
        assert_eq!(to("/blob").as_deref(), Some("https://a.test/blob"));
        assert_eq!(to("https://b.test/blob").as_deref(), Some("https://b.test/blob"));
        assert_eq!(to("http://b.test/blob"), None);
        assert_eq!(to("blob"), None);
    }

    #[test]
    fn words_of_registries() {
        assert_eq!(
            server_words(br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
            "manifest unknown"
        );
        assert_eq!(server_words(br#"{"errors":[{"code":"DENIED"}]}"#), "DENIED");
        assert_eq!(server_words(b"404 page not found\n"), "404 page not found");
        assert_eq!(server_words(b"<html>no</html>"), "");
    }
}
