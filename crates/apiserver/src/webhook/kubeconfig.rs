//! Kubeconfig files that say where a webhook of authentication, authorization or audit is, and who calls it. They are read
//! when the webhook is configured; a token file again when a minute has passed. What such a file may say elsewhere but has no
//! place here (plain HTTP, an unverified server, programs and proxies) is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Uri};
use parking_lot::Mutex;
use rand::Rng as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::connect::{Connector, roots, trusting};
use super::{Error, Webhook, refusal};

#[cfg(test)]
mod tests;

/// Largest file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// How long a token that was read from a file is used.
const TOKEN_FRESH: Duration = Duration::from_secs(60);
/// Calls of [`Webhook::call_again`] at most, the pause after the first, how it grows, and what chance adds.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
const GROWTH: f64 = 1.5;
const JITTER: f64 = 0.2;

/// What is presented in the `Authorization` header.
pub(super) enum Credentials {
    None,
    Fixed(HeaderValue),
    TokenFile { path: PathBuf, read: Mutex<Option<(Instant, HeaderValue)>> },
}

impl Credentials {
    pub(super) fn header(&self) -> std::io::Result<Option<HeaderValue>> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(value) => Ok(Some(value.clone())),
            Self::TokenFile { path, read } => {
                let mut read = read.lock();
                match &*read {
                    Some((when, value)) if when.elapsed() < TOKEN_FRESH => Ok(Some(value.clone())),
                    _ => {
                        let token = std::fs::read_to_string(path)?;
                        let value = secret(&format!("Bearer {}", token.trim())).map_err(std::io::Error::other)?;
                        *read = Some((Instant::now(), value.clone()));
                        Ok(Some(value))
                    }
                }
            }
        }
    }
}

/// A header that is kept out of logs.
fn secret(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text).map_err(|_| "the token is no text of a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    tls_server_name: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    proxy_url: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    exec: Option<Value>,
    auth_provider: Option<Value>,
    #[serde(rename = "as")]
    impersonate: String,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

impl Webhook {
    /// The webhook of a kubeconfig file's current context. Files that it names are found from its own directory.
    pub(crate) fn from_kubeconfig(path: &Path) -> Result<Self, crate::Error> {
        let bad = |why: String| crate::Error::Configuration { path: path.display().to_string(), why };
        let bytes = read(path, MAX_FILE_BYTES)?;
        let decoded = keelson_api::codec::yaml::decode(&bytes).map_err(|e| bad(e.to_string()))?;
        let file: File = serde_json::from_value(decoded.value).map_err(|e| bad(e.to_string()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        file.webhook(base).map_err(bad)
    }

    /// Posts a review, again and with growing pauses while the server says that it cannot answer now. Each call may take
    /// `timeout`.
    pub(crate) async fn call_again(&self, review: &Value, timeout: Duration) -> Result<Value, Error> {
        let body = Bytes::from(review.to_string());
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let again = match self.post(body.clone(), timeout).await {
                Ok((status, body)) if (200..=206).contains(&status.as_u16()) => {
                    let decoded = keelson_api::codec::json::decode(&body);
                    return Ok(decoded.map_err(|e| Error(format!("decoding the webhook's answer: {e}")))?.value);
                }
                // What upstream's client thinks worth another try.
                Ok((status, body)) if !matches!(status.as_u16(), 429 | 500 | 504) => {
                    return Err(Error(refusal(status, &body)));
                }
                Ok((status, body)) => Error(refusal(status, &body)),
                Err(error) if error.0.contains("onnection reset") => error,
                Err(error) => return Err(error),
            };
            if attempt == ATTEMPTS {
                return Err(again);
            }
            attempt += 1;
            let jitter = rand::rng().random_range(0.0..=JITTER);
            tokio::time::sleep(pause.mul_f64(1.0 + jitter)).await;
            pause = pause.mul_f64(GROWTH);
        }
    }
}

/// The certificates and keys that a kubeconfig file names.
pub(crate) fn named(path: &Path, text: &[u8]) -> Vec<PathBuf> {
    let decoded = keelson_api::codec::yaml::decode(text).map(|decoded| decoded.value).unwrap_or_default();
    let Ok(File { clusters, users, .. }) = serde_json::from_value(decoded) else { return Vec::new() };
    let authorities = clusters.into_iter().map(|named| named.cluster.certificate_authority);
    let users = users.into_iter().filter_map(|named| named.user);
    let all = authorities.chain(users.flat_map(|user| [user.client_certificate, user.client_key]));
    let base = path.parent().unwrap_or(Path::new("."));
    all.filter(|name| !name.is_empty()).map(|name| base.join(name)).collect()
}

/// A file's bytes, if it is not larger than it may be.
pub(crate) fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, crate::Error> {
    let fail = |source| crate::Error::File { path: path.display().to_string(), source };
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > max_bytes {
        let why = format!("it has {size} bytes, more than {max_bytes}");
        return Err(crate::Error::Configuration { path: path.display().to_string(), why });
    }
    std::fs::read(path).map_err(fail)
}

impl File {
    fn webhook(self, base: &Path) -> Result<Webhook, String> {
        let Self { clusters, users, contexts, current_context } = self;
        let context = if current_context.is_empty() {
            return Err("current-context is not set".into());
        } else {
            contexts.into_iter().find(|c| c.name == current_context).map(|c| c.context)
        };
        let context = context.ok_or_else(|| format!("context {current_context:?} does not exist"))?;
        let cluster = clusters.into_iter().find(|c| c.name == context.cluster).map(|c| c.cluster);
        let cluster = cluster.ok_or_else(|| format!("cluster {:?} does not exist", context.cluster))?;
        let user = match context.user.as_str() {
            "" => User::default(),
            name => {
                let user = users.into_iter().find(|u| u.name == name);
                user.ok_or_else(|| format!("user {name:?} does not exist"))?.user.unwrap_or_default()
            }
        };
        let uri: Uri = cluster.server.parse().map_err(|e| format!("server {:?}: {e}", cluster.server))?;
        if uri.scheme_str() != Some("https") {
            return Err(format!("server {:?} must be an https:// URL", cluster.server));
        }
        if cluster.insecure_skip_tls_verify {
            return Err("insecure-skip-tls-verify is not supported: name the server's certificate-authority".into());
        }
        if !cluster.proxy_url.is_empty() {
            return Err("proxy-url is not supported".into());
        }
        if user.exec.is_some() || user.auth_provider.is_some() {
            return Err("exec and auth-provider are not supported: use a token, tokenFile or client certificate".into());
        }
        if !user.impersonate.is_empty() {
            return Err("impersonation is not supported".into());
        }
        let pem = |data: &str, file: &str, what: &str| -> Result<Option<Vec<u8>>, String> {
            match (data, file) {
                ("", "") => Ok(None),
                ("", file) => read(&base.join(file), MAX_FILE_BYTES).map(Some).map_err(|e| format!("{what}: {e}")),
                (data, _) => BASE64_STANDARD.decode(data).map(Some).map_err(|e| format!("{what}-data: {e}")),
            }
        };
        let authority =
            pem(&cluster.certificate_authority_data, &cluster.certificate_authority, "certificate-authority")?;
        let certificate = pem(&user.client_certificate_data, &user.client_certificate, "client-certificate")?;
        let key = pem(&user.client_key_data, &user.client_key, "client-key")?;
        let builder = trusting(roots(authority.as_deref()).map_err(|e| format!("certificate-authority: {e}"))?)?;
        let config = match (certificate, key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
                let chain = chain.map_err(|e| format!("client-certificate: {e}"))?;
                let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("client-key: {e}"))?;
                builder.with_client_auth_cert(chain, key).map_err(|e| format!("client-certificate: {e}"))?
            }
            _ => return Err("client-certificate and client-key must be given together".into()),
        };
        let credentials = user.credentials(base)?;
        let name = Some(cluster.tls_server_name).filter(|name| !name.is_empty());
        let name = name.map(ServerName::try_from).transpose().map_err(|e| format!("tls-server-name: {e}"))?;
        Ok(Webhook::over(Connector::with(Arc::new(config), name), cluster.server, credentials))
    }
}

impl User {
    fn credentials(&self, base: &Path) -> Result<Credentials, String> {
        if !self.token_file.is_empty() {
            return Ok(Credentials::TokenFile { path: base.join(&self.token_file), read: Mutex::default() });
        }
        if !self.token.is_empty() {
            return Ok(Credentials::Fixed(secret(&format!("Bearer {}", self.token))?));
        }
        if !self.username.is_empty() {
            let pair = BASE64_STANDARD.encode(format!("{}:{}", self.username, self.password));
            return Ok(Credentials::Fixed(secret(&format!("Basic {pair}"))?));
        }
        Ok(Credentials::None)
    }
}
