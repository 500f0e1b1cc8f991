//! Making a `kube::Client`: from a kubeconfig file, or from a service in this process.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use parking_lot::RwLock;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing, unreadable, not YAML, or lacks the context, cluster or user asked for.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig { path: String, source: Box<kube::config::KubeconfigError> },
    /// The certificates or the server's address cannot be used.
    #[error("kubeconfig {path}: {source}")]
    Client { path: String, source: Box<kube::Error> },
}

/// Makes `ring` this process's TLS provider, unless there is one already.
pub fn install_crypto() {
    // Fails only when another provider came first, which is then the one to use.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The connection settings of a kubeconfig file; `context` overrides its `current-context`.
pub async fn kubeconfig(path: &Path, context: Option<&str>) -> Result<kube::Config, Error> {
    let wrap = |source| Error::Kubeconfig { path: path.display().to_string(), source: Box::new(source) };
    let file = Kubeconfig::read_from(path).map_err(wrap)?;
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    kube::Config::from_custom_kubeconfig(file, &options).await.map_err(wrap)
}

/// A client over TLS, as a kubeconfig file says.
pub async fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<kube::Client, Error> {
    install_crypto();
    let config = kubeconfig(path, context).await?;
    kube::Client::try_from(config)
        .map_err(|source| Error::Client { path: path.display().to_string(), source: Box::new(source) })
}

/// The same for a component that is known by the name of its program, which managed fields give as the manager of what it
/// writes: `kubelet`.
pub async fn from_kubeconfig_of(path: &Path, program: &'static str) -> Result<kube::Client, Error> {
    install_crypto();
    let mut config = kubeconfig(path, None).await?;
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(program)));
    kube::Client::try_from(config)
        .map_err(|source| Error::Client { path: path.display().to_string(), source: Box::new(source) })
}

/// The same, with certificate and key from the PEM file `pem` instead of what the kubeconfig says of the user.
pub async fn from_kubeconfig_with_certificate(
    path: &Path,
    program: &'static str,
    pem: &Path,
) -> Result<kube::Client, Error> {
    install_crypto();
    let wrap = |source| Error::Kubeconfig { path: path.display().to_string(), source: Box::new(source) };
    let file = with_certificate(Kubeconfig::read_from(path).map_err(wrap)?, pem);
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(wrap)?;
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(program)));
    kube::Client::try_from(config)
        .map_err(|source| Error::Client { path: path.display().to_string(), source: Box::new(source) })
}

/// The text of a kubeconfig for the same server as that of `path`, whose users have certificate and key in the file `pem`.
pub fn kubeconfig_with_certificate(path: &Path, pem: &Path) -> Result<String, Error> {
    let wrap = |source| Error::Kubeconfig { path: path.display().to_string(), source: Box::new(source) };
    let file = with_certificate(Kubeconfig::read_from(path).map_err(wrap)?, pem);
    // JSON is YAML.
    Ok(serde_json::to_string(&file).unwrap_or_default())
}

fn with_certificate(mut file: Kubeconfig, pem: &Path) -> Kubeconfig {
    let pem = Some(pem.to_string_lossy().into_owned());
    for user in &mut file.auth_infos {
        let user = user.auth_info.get_or_insert_default();
        *user =
            kube::config::AuthInfo { client_certificate: pem.clone(), client_key: pem.clone(), ..Default::default() };
    }
    file
}

/// A client that can be replaced by another while it is in use: requests from then on go through the new one.
#[derive(Clone)]
pub struct Replaceable(Arc<RwLock<kube::Client>>);

impl Replaceable {
    /// Begins with `client`.
    pub fn new(client: kube::Client) -> Self {
        Replaceable(Arc::new(RwLock::new(client)))
    }

    /// A client that always uses the newest.
    pub fn client(&self) -> kube::Client {
        in_process(self.clone())
    }

    /// Makes `client` the newest.
    pub fn replace(&self, client: kube::Client) {
        *self.0.write() = client;
    }
}

impl tower::Service<http::Request<Body>> for Replaceable {
    type Response = http::Response<Body>;
    type Error = tower::BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let client = self.0.read().clone();
        Box::pin(async move { Ok(client.send(request).await?) })
    }
}

/// A client over TLS, as the text of a kubeconfig says.
pub async fn from_kubeconfig_text(text: &str) -> Result<kube::Client, Error> {
    install_crypto();
    let path = || "(inline)".to_owned();
    let wrap = |source| Error::Kubeconfig { path: path(), source: Box::new(source) };
    let file = Kubeconfig::from_yaml(text).map_err(wrap)?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(wrap)?;
    kube::Client::try_from(config).map_err(|source| Error::Client { path: path(), source: Box::new(source) })
}

/// A client of a service in this process: no socket, no TLS. Requests carry paths only (`/api/v1/pods`).
pub fn in_process<S, B>(service: S) -> kube::Client
where
    S: tower::Service<http::Request<Body>, Response = http::Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<tower::BoxError>,
    B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    kube::Client::new(service, "default")
}
