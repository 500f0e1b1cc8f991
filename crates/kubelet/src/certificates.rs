//! The kubelet's certificates by CertificateSigningRequest: the serving one (`serverTLSBootstrap`) and the one by which it
//! is a client of the API server (TLS bootstrap, `rotateCertificates`). Each lies in the certificates' directory as
//! `<name>-current.pem`, a link to the newest; a new one is asked for when most of the old one's life is over.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_client::connect::{self, Replaceable};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use parking_lot::RwLock;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Error;

/// An unanswered request is given up after this, and made anew.
const ANSWER_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Waits after a refused or unanswered request grow between these.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(128));
const CLIENT: &str = "kubelet-client";
const SERVING: &str = "kubelet-server";

/// What to ask for.
struct Wanted<'a> {
    signer: &'static str,
    usage: &'static str,
    node_name: &'a str,
    names: Vec<String>,
}

impl Wanted<'_> {
    /// Asks, waits for the answer, and gives certificate and key in PEM.
    async fn request(&self, client: &kube::Client) -> Result<String, Error> {
        let failed = |error: rcgen::Error| Error::Tls(error.to_string());
        let mut params = CertificateParams::new(self.names.clone()).map_err(failed)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{}", self.node_name));
        let key = KeyPair::generate().map_err(failed)?;
        let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
        let api = Api::<CertificateSigningRequest>::all(client.clone());
        let object = CertificateSigningRequest {
            metadata: ObjectMeta { generate_name: Some("csr-".into()), ..Default::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(request.into_bytes()),
                signer_name: self.signer.into(),
                usages: Some(vec!["digital signature".into(), self.usage.into()]),
                ..Default::default()
            },
            status: None,
        };
        let made = api.create(&PostParams::default(), &object).await?;
        let name = made.metadata.name.unwrap_or_default();
        tracing::info!(name, signer = self.signer, "a certificate is asked for");
        let answered =
            |object: Option<&CertificateSigningRequest>| object.is_none_or(|object| answer(object).is_some());
        let answered = await_condition(api, &name, answered);
        let object = tokio::time::timeout(ANSWER_LIMIT, answered)
            .await
            .map_err(|_| Error::message(format!("certificate signing request {name:?} is not answered")))?
            .map_err(|error| Error::message(error.to_string()))?;
        match object.as_ref().and_then(answer) {
            Some(Ok(certificate)) => Ok(format!("{certificate}{}", key.serialize_pem())),
            Some(Err(why)) => Err(Error::message(format!("certificate signing request {name:?} is {why}"))),
            None => Err(Error::message(format!("certificate signing request {name:?} is gone"))),
        }
    }
}

/// The certificate, or why there will be none; nothing while nobody has answered.
fn answer(object: &CertificateSigningRequest) -> Option<Result<String, String>> {
    let status = object.status.as_ref()?;
    let refused =
        status.conditions.iter().flatten().find(|condition| matches!(condition.type_.as_str(), "Denied" | "Failed"));
    if let Some(condition) = refused {
        let message = condition.message.clone().unwrap_or_default();
        return Some(Err(format!("{}: {message}", condition.type_.to_lowercase())));
    }
    let certificate = status.certificate.as_ref().filter(|certificate| !certificate.0.is_empty())?;
    let mut text = String::from_utf8_lossy(&certificate.0).into_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Some(Ok(text))
}

fn current(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}-current.pem"))
}

/// Keeps `pem` in a file of its own and makes it the current one.
fn store(dir: &Path, name: &str, pem: &str, now: Timestamp) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::file("create", dir))?;
    let file = format!("{name}-{}-{:09}.pem", now.strftime("%Y-%m-%d-%H-%M-%S"), now.subsec_nanosecond());
    let path = dir.join(&file);
    let mut options = fs::OpenOptions::new();
    let mut opened =
        options.write(true).create_new(true).mode(0o600).open(&path).map_err(Error::file("create", &path))?;
    opened.write_all(pem.as_bytes()).and_then(|()| opened.sync_all()).map_err(Error::file("write", &path))?;
    let (link, new) = (current(dir, name), dir.join(format!(".{name}-new.pem")));
    let _ = fs::remove_file(&new);
    symlink(&file, &new).map_err(Error::file("link", &new))?;
    let old = fs::read_link(&link).ok();
    fs::rename(&new, &link).map_err(Error::file("rename", &link))?;
    // The one before the last is nobody's any more.
    if let Some(old) = old.filter(|old| old.components().count() == 1) {
        let _ = fs::remove_file(dir.join(old));
    }
    Ok(())
}

/// When the certificate in `pem` is to be replaced: between 70 and 90 % of its life, `share` (0 to 1) of the way between.
fn due(pem: &[u8], share: f64) -> Option<Timestamp> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate.as_ref()).ok()?;
    let (from, until) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let life = until.checked_sub(from).filter(|life| *life > 0)?;
    let used = (life as f64 * (0.7 + 0.2 * share)) as i64;
    Timestamp::from_second(from).ok()?.checked_add(SignedDuration::from_secs(used)).ok()
}

/// Sleeps until the current certificate is due; at once when there is none.
async fn until_due(dir: &Path, name: &str) {
    let pem = fs::read(current(dir, name)).unwrap_or_default();
    if let Some(at) = due(&pem, rand::random::<f64>()) {
        let left = at.duration_since(keelson_client::clock::now());
        tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
    }
}

/// The serving certificate of the moment. Without one, handshakes fail.
#[derive(Debug, Default)]
pub(crate) struct Serving(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

impl Serving {
    /// Takes the current certificate of `config`'s directory, if there is one.
    pub(crate) fn load(&self, config: &Config) -> Result<(), Error> {
        let path = current(&config.cert_dir(), SERVING);
        if !path.exists() {
            return Ok(());
        }
        let bad = |error: String| Error::Tls(format!("{}: {error}", path.display()));
        let chain: Vec<_> = CertificateDer::pem_file_iter(&path)
            .and_then(Iterator::collect::<Result<_, _>>)
            .map_err(|error| bad(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_file(&path).map_err(|error| bad(error.to_string()))?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|error| bad(error.to_string()))?;
        *self.0.write() = Some(Arc::new(CertifiedKey::new(chain, key)));
        Ok(())
    }
}

/// Keeps the serving certificate good until `shutdown`.
pub(crate) async fn keep_serving(
    client: &kube::Client,
    config: &Config,
    serving: &Serving,
    shutdown: CancellationToken,
) {
    let wanted = Wanted {
        signer: "kubernetes.io/kubelet-serving",
        usage: "server auth",
        node_name: &config.node_name,
        names: vec![config.hostname().to_string(), config.node_ip.to_string()],
    };
    let dir = config.cert_dir();
    let work = async {
        let mut backoff = keelson_client::Backoff::new(RETRY.0, RETRY.1);
        loop {
            until_due(&dir, SERVING).await;
            let renewed = match wanted.request(client).await {
                Ok(pem) => store(&dir, SERVING, &pem, keelson_client::clock::now()).and_then(|()| serving.load(config)),
                Err(error) => Err(error),
            };
            match renewed {
                Ok(()) => backoff.reset(),
                Err(error) => tracing::warn!(%error, "no new serving certificate"),
            }
            backoff.wait().await;
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

/// A node's client certificate and the kubeconfig that uses it.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The kubelet's kubeconfig; TLS bootstrap writes it.
    pub kubeconfig: PathBuf,
    /// Where certificates are kept.
    pub cert_dir: PathBuf,
    /// The node's name, which the certificate is for.
    pub node_name: String,
}

impl ClientCertificate {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            usage: "client auth",
            node_name: &self.node_name,
            names: Vec::new(),
        }
    }

    /// TLS bootstrap: asks for a certificate as whom the kubeconfig `bootstrap` says, and writes the kubelet's own
    /// kubeconfig for the same server. Tries until it is signed.
    pub async fn bootstrap(&self, bootstrap: &Path) -> Result<(), Error> {
        let connection = |error: connect::Error| Error::message(error.to_string());
        let client = connect::from_kubeconfig_of(bootstrap, "kubelet").await.map_err(connection)?;
        let mut backoff = keelson_client::Backoff::new(RETRY.0, RETRY.1);
        let pem = loop {
            match self.wanted().request(&client).await {
                Ok(pem) => break pem,
                Err(error) => tracing::warn!(%error, "no client certificate yet"),
            }
            backoff.wait().await;
        };
        store(&self.cert_dir, CLIENT, &pem, keelson_client::clock::now())?;
        let text =
            connect::kubeconfig_with_certificate(bootstrap, &current(&self.cert_dir, CLIENT)).map_err(connection)?;
        let new = self.kubeconfig.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
        opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(Error::file("write", &new))?;
        fs::rename(&new, &self.kubeconfig).map_err(Error::file("rename", &self.kubeconfig))
    }

    /// A client by the current certificate, or by what the kubeconfig says as long as there is none.
    async fn client(&self) -> Result<kube::Client, Error> {
        let pem = current(&self.cert_dir, CLIENT);
        let made = match pem.exists() {
            true => connect::from_kubeconfig_with_certificate(&self.kubeconfig, "kubelet", &pem).await,
            false => connect::from_kubeconfig_of(&self.kubeconfig, "kubelet").await,
        };
        made.map_err(|error| Error::message(error.to_string()))
    }

    /// A client whose certificate is replaced before it runs out, until `shutdown`.
    pub async fn rotating(self, shutdown: CancellationToken) -> Result<kube::Client, Error> {
        let replaceable = Replaceable::new(self.client().await?);
        let client = replaceable.client();
        let used = client.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = self.rotate(&used, &replaceable) => {}
                () = shutdown.cancelled() => {}
            }
        });
        Ok(client)
    }

    async fn rotate(&self, client: &kube::Client, replaceable: &Replaceable) {
        let mut backoff = keelson_client::Backoff::new(RETRY.0, RETRY.1);
        loop {
            until_due(&self.cert_dir, CLIENT).await;
            let renewed = async {
                let pem = self.wanted().request(client).await?;
                store(&self.cert_dir, CLIENT, &pem, keelson_client::clock::now())?;
                replaceable.replace(self.client().await?);
                Ok::<_, Error>(())
            };
            match renewed.await {
                Ok(()) => backoff.reset(),
                Err(error) => tracing::warn!(%error, "no new client certificate"),
            }
            backoff.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_and_due() {
        let dir = tempfile::tempdir().unwrap();
        let pem = |days: i64| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["n".to_string()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2024, 1, 1);
            params.not_after = rcgen::date_time_ymd(2024, 1, 1 + u8::try_from(days).unwrap());
            format!("{}{}", params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let start: Timestamp = "2024-01-01T00:00:00Z".parse().unwrap();
        let hours = |share| due(pem(10).as_bytes(), share).unwrap().duration_since(start).as_hours();
        // The last second belongs to a certificate's life, or not, as its maker sees it.
        assert_eq!((hours(0.0), hours(0.99)), (168, 215));
        assert_eq!(due(b"nothing", 0.5), None);
        for at in [start, start.checked_add(SignedDuration::from_secs(1)).unwrap()] {
            store(dir.path(), SERVING, &pem(1), at).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the current one and the link");
        let mut config = Config::new("n", "127.0.0.1".parse().unwrap());
        config.cert_dir = Some(dir.path().into());
        let serving = Serving::default();
        serving.load(&config).unwrap();
        assert!(serving.0.read().is_some());
    }
}
