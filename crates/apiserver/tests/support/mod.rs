//! A server over a real store in a temporary directory, a small PKI, and clients.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod events;
pub mod https;
pub mod store;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

pub use keelson_apiserver::UserInfo;
use keelson_apiserver::{ApiServer, Body, Config, Identity, KubeletClient, Pem, ServiceAccountKeys};
use keelson_store::etcd::{self, process::Etcd};
use keelson_store::{EtcdStore, LocalStore, Store};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A certificate authority and what it signed.
pub struct Pki {
    ca: Issuer<'static, KeyPair>,
    pub ca_pem: String,
}

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { ca_pem: certificate.pem(), ca: Issuer::new(params, key) }
    }

    /// Certificate and key, in PEM.
    pub fn issue(&self, name: &str, groups: &[&str]) -> (String, String) {
        self.issue_for("localhost", name, groups)
    }

    /// As [`Pki::issue`], for a server of this host name.
    pub fn issue_for(&self, host: &str, name: &str, groups: &[&str]) -> (String, String) {
        let mut params = CertificateParams::new(vec![host.into()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        self.sign(params)
    }

    /// Signs whatever is asked.
    pub fn sign(&self, params: CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Lets a server of `localhost` take TLS connections, whoever connects.
    pub fn acceptor(&self) -> TlsAcceptor {
        let (certificate, key) = self.issue("server", &[]);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        TlsAcceptor::from(Arc::new(builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap()))
    }

    pub fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.issue(name, &[]);
        Identity { certificate: certificate.into(), key: key.into() }
    }
}

/// A server with its store; dropped, everything is gone.
pub struct TestServer {
    pub server: ApiServer,
    pub pki: Pki,
    pub store: Arc<dyn Store>,
    shutdown: CancellationToken,
    _engine: Engine,
}

/// Where a server's store is; dropped, it is gone.
struct Engine {
    _etcd: Option<Etcd>,
    _dir: tempfile::TempDir,
}

/// A fresh store: the local engine's, or with `KEELSON_TEST_STORE=etcd` one in a real etcd of its own.
async fn fresh_store() -> (Arc<dyn Store>, Engine) {
    if std::env::var_os("KEELSON_TEST_STORE").is_some_and(|engine| engine == "etcd") {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let etcd = Etcd::start(dir.path(), &[]).unwrap();
        let store = EtcdStore::connect(etcd::Options::new(vec![etcd.endpoint()])).await.unwrap();
        return (Arc::new(store), Engine { _etcd: Some(etcd), _dir: dir });
    }
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path(), Default::default()).unwrap();
    (Arc::new(store), Engine { _etcd: None, _dir: dir })
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let pki = Pki::new();
        let (store, engine) = fresh_store().await;
        let signing = KeyPair::generate().unwrap();
        let mut config = Config {
            serving: Some(pki.identity("kube-apiserver")),
            client_ca: Some(Pem::Inline(pki.ca_pem.clone().into_bytes())),
            service_account: Some(ServiceAccountKeys::new(
                signing.serialize_pem().into(),
                vec![signing.public_key_pem().into()],
                "https://kubernetes.default.svc.cluster.local",
            )),
            kubelet: Some(KubeletClient {
                identity: pki.identity("kube-apiserver-kubelet-client"),
                ca: Pem::Inline(pki.ca_pem.clone().into_bytes()),
            }),
            ..Config::default()
        };
        change(&mut config);
        let server = ApiServer::new(config, store.clone()).await.unwrap();
        Self { server, pki, store, shutdown: CancellationToken::new(), _engine: engine }
    }

    /// Serves HTTPS on a free port of 127.0.0.1.
    pub fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (server, shutdown) = (self.server.clone(), self.shutdown.clone());
        tokio::spawn(async move { server.serve(listener, shutdown).await.unwrap() });
        address
    }

    /// Waits until the server has written what it puts into the cluster once it is ready.
    pub async fn settled(&self) {
        let ready = |_: u16, cidr: &Value| cidr["status"]["conditions"][0]["status"] == "True";
        self.admin().eventually("GET /apis/networking.k8s.io/v1/servicecidrs/kubernetes", ready).await;
    }

    pub fn admin(&self) -> Api {
        self.api(UserInfo::new("admin", ["system:masters"]))
    }

    pub fn api(&self, user: UserInfo) -> Api {
        Api { server: self.server.clone(), user, accept: None }
    }

    pub fn client(&self) -> kube::Client {
        self.server.kube_client(UserInfo::new("admin", ["system:masters"]))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Raw requests as one user.
#[derive(Clone)]
pub struct Api {
    server: ApiServer,
    user: UserInfo,
    pub accept: Option<&'static str>,
}

impl Api {
    pub fn new(server: ApiServer, user: UserInfo) -> Self {
        Self { server, user, accept: None }
    }

    /// `POST /api/v1/namespaces`; the body's content type defaults to JSON, patches name theirs after the method:
    /// `PATCH+merge`. Returns code, body and warnings.
    pub async fn call(&self, request: &str, body: Value) -> (u16, Value) {
        let (code, text, _) = self.raw(request, body.to_string()).await;
        (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Asks until `done` is content with the answer.
    pub async fn eventually(&self, request: &str, done: impl Fn(u16, &Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..500 {
            let (code, value) = self.call(request, Value::Null).await;
            if done(code, &value) {
                return value;
            }
            last = value;
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{request}: {last}");
    }

    pub async fn raw(&self, request: &str, body: String) -> (u16, String, Vec<String>) {
        let response = self.send(request, body).await;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (code, String::from_utf8(bytes.to_vec()).unwrap(), warnings)
    }

    pub async fn send(&self, request: &str, body: impl Into<bytes::Bytes>) -> http::Response<Body> {
        self.send_with(request, body, &[]).await
    }

    /// As [`Api::send`], with more headers.
    pub async fn send_with(
        &self,
        request: &str,
        body: impl Into<bytes::Bytes>,
        headers: &[(&str, &str)],
    ) -> http::Response<Body> {
        let (method, path) = request.split_once(' ').unwrap();
        let (method, content_type) = match method.split_once('+') {
            None => (method, "application/json".to_owned()),
            Some((method, "json")) => (method, "application/json-patch+json".into()),
            Some((method, "merge")) => (method, "application/merge-patch+json".into()),
            Some((method, "strategic")) => (method, "application/strategic-merge-patch+json".into()),
            Some((method, other)) => (method, other.to_owned()),
        };
        let body: bytes::Bytes = body.into();
        let body = if &*body == b"null" { bytes::Bytes::new() } else { body };
        let mut request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
        if let Some(accept) = self.accept {
            request = request.header("accept", accept);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(http_body_util::Full::new(body)).unwrap();
        self.server.service_for(self.user.clone()).oneshot(request).await.unwrap()
    }

    /// A call that must succeed.
    pub async fn ok(&self, request: &str, body: Value) -> Value {
        let (code, value) = self.call(request, body).await;
        assert!(code < 300, "{request}: {code} {value}");
        value
    }
}

/// A TLS connection to the server, as the owner of a certificate and key, or anonymous.
pub async fn tls_connect(
    pki: &Pki,
    address: SocketAddr,
    identity: Option<(String, String)>,
    alpn: &[u8],
) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}
