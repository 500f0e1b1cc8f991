//! A server behind an APIService: how it is reached, over which TLS, and how much may be asked of it at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use bytes::Bytes;
use http::header::HeaderName;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use keelson_api::status::Status;
use keelson_client::tls::Unverified;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::discovery::Found;
use super::identity::FrontProxy;
use super::openapi::Spec;
use super::proxy::{PATIENCE, identify};
use crate::config::Identity;
use crate::core::Core;
use crate::http::body::RequestBody;
use crate::limits::StreamPermit;
use crate::registry::create::text;
use crate::user::MASTERS;
use crate::webhook::chain;
use crate::webhook::connect::{Connector, roots, trusting};
use crate::{Error, UserInfo, relay};

/// Requests to one server that are under way, watches among them: a server that is slow takes nothing from others.
const REQUESTS: usize = 2048;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(90);

/// With what this server shows aggregated ones that it is their front proxy.
pub(super) struct Clients {
    identity: Option<Arc<FrontProxy>>,
    /// Believes any certificate.
    unverified: Arc<ClientConfig>,
    /// Believes any certificate and shows none.
    pub(super) anonymous: TlsConnector,
}

impl Clients {
    pub(super) fn new(identity: Option<&Identity>) -> Result<Self, Error> {
        let identity = identity.cloned().map(FrontProxy::new).transpose()?.map(Arc::new);
        let bad = |why: String| Error::Credentials { what: "TLS of aggregated servers", why };
        let anonymous = config(None, RootCertStore::empty(), true).map_err(bad)?;
        let unverified = config(identity.as_ref(), RootCertStore::empty(), true).map_err(bad)?;
        Ok(Self { identity, unverified: Arc::new(unverified), anonymous: TlsConnector::from(Arc::new(anonymous)) })
    }

    /// Follows the files of what is shown until `shutdown`.
    pub(super) async fn keep(&self, shutdown: CancellationToken) {
        if let Some(identity) = &self.identity {
            identity.keep(shutdown).await;
        }
    }

    /// For the server of an APIService, as its `caBundle` and `insecureSkipTLSVerify` say.
    fn of(&self, spec: &Value) -> Result<Arc<ClientConfig>, String> {
        if spec["insecureSkipTLSVerify"] == true {
            return Ok(self.unverified.clone());
        }
        let bad = |why: String| format!("unable to load root certificates: {why}");
        let bundle = spec["caBundle"].as_str().filter(|bundle| !bundle.is_empty());
        let pem = bundle.map(|bundle| base64::prelude::BASE64_STANDARD.decode(bundle)).transpose();
        let roots = roots(pem.map_err(|e| bad(e.to_string()))?.as_deref()).map_err(bad)?;
        Ok(Arc::new(config(self.identity.as_ref(), roots, false)?))
    }
}

fn config(shown: Option<&Arc<FrontProxy>>, roots: RootCertStore, unverified: bool) -> Result<ClientConfig, String> {
    let builder = trusting(roots)?;
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(identity.clone()),
    };
    // A session that is resumed is one of the certificate that was shown when it began.
    config.resumption = Resumption::disabled();
    if unverified {
        let provider = config.crypto_provider().clone();
        config.dangerous().set_certificate_verifier(Arc::new(Unverified(provider)));
    }
    Ok(config)
}

/// Connections to a server.
pub(super) struct Transport {
    connector: Connector,
    client: HyperClient<Connector, RequestBody>,
}

/// A server behind an APIService.
pub(crate) struct Remote {
    /// The APIService's.
    pub(super) name: String,
    pub(super) uid: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: u16,
    /// `weather.default.svc:443`
    authority: String,
    transport: Result<Transport, String>,
    /// As [`Remote::transport`], but believes any certificate.
    probe: Connector,
    available: AtomicBool,
    availability_changed: watch::Sender<()>,
    found: ArcSwap<Found>,
    spec: ArcSwap<Spec>,
    requests: Arc<Semaphore>,
}

/// What a server answered to this server's own question.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Remote {
    /// From an APIService that names a Service.
    pub(super) fn new(core: &Arc<Core>, object: &Value) -> Self {
        let spec = &object["spec"];
        let text_in = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let (namespace, service) = (text_in(&spec["service"], "namespace"), text_in(&spec["service"], "name"));
        let port = spec["service"]["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let core_ref: Weak<Core> = Arc::downgrade(core);
        let connector = |tls| Connector::to_service_over(core_ref.clone(), &namespace, &service, port, tls);
        let clients = &core.aggregator.clients;
        let transport = clients.of(spec).map(|tls| {
            let connector = connector(tls);
            let client = HyperClient::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_timer(TokioTimer::new())
                .build(connector.clone());
            Transport { connector, client }
        });
        Self {
            name: text(object, "name").to_owned(),
            uid: text(object, "uid").to_owned(),
            group: text_in(spec, "group"),
            version: text_in(spec, "version"),
            authority: format!("{service}.{namespace}.svc:{port}"),
            probe: connector(clients.unverified.clone()),
            transport,
            namespace,
            service,
            port,
            available: AtomicBool::new(false),
            availability_changed: watch::Sender::default(),
            found: ArcSwap::default(),
            spec: ArcSwap::default(),
            requests: Arc::new(Semaphore::new(REQUESTS)),
        }
    }

    /// `/apis/GROUP/VERSION`
    pub(crate) fn path(&self) -> String {
        match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        }
    }

    pub(super) fn is_available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }

    pub(super) fn set_available(&self, available: bool) {
        if self.available.swap(available, Ordering::Relaxed) != available {
            self.availability_changed.send_replace(());
        }
    }

    /// Wakes when the server becomes available or is no more.
    pub(super) fn follow(&self) -> watch::Receiver<()> {
        self.availability_changed.subscribe()
    }

    /// What it serves.
    pub(crate) fn found(&self) -> Arc<Found> {
        self.found.load_full()
    }

    pub(super) fn find(&self, found: Found) {
        self.found.store(Arc::new(found));
    }

    /// Where its OpenAPI documents are.
    pub(crate) fn spec(&self) -> Arc<Spec> {
        self.spec.load_full()
    }

    pub(super) fn describe(&self, spec: Spec) {
        self.spec.store(Arc::new(spec));
    }

    /// What is known of the server stays so under an APIService that changed.
    pub(super) fn succeed(&self, before: &Self) {
        if (&self.namespace, &self.service, &self.group, &self.version)
            == (&before.namespace, &before.service, &before.group, &before.version)
        {
            self.found.store(before.found());
            self.spec.store(before.spec());
        }
    }

    /// Asks for a document in this server's own name. An answer of more than `max_bytes` is an error.
    pub(super) async fn ask(
        &self,
        path: &str,
        headers: &[(HeaderName, &str)],
        max_bytes: usize,
    ) -> Result<Answer, String> {
        let transport = self.transport()?;
        let mut request = Request::get(self.url(path));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let mut request = request.body(relay::empty_body()).map_err(|e| e.to_string())?;
        identify(request.headers_mut(), &own_user()).map_err(|status| status.message)?;
        let exchange = async {
            let (head, body) = transport.send(request, false).await?.into_parts();
            let body = Limited::new(body, max_bytes).collect().await.map_err(|e| e.to_string())?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| "context deadline exceeded".to_owned())?
    }

    pub(super) fn transport(&self) -> Result<&Transport, &str> {
        self.transport.as_ref().map_err(String::as_str)
    }

    /// The host that requests name.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// The whole URL of a path with its query.
    pub(super) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority)
    }

    /// A place among the requests to this server.
    pub(super) fn permit(&self) -> Result<StreamPermit, Status> {
        StreamPermit::of(&self.requests)
    }

    /// Sends a request over a connection of its own, whatever the server's certificate is.
    pub(super) async fn probe(&self, request: Request<RequestBody>) -> Result<Response<Incoming>, String> {
        alone(&self.probe, request).await
    }
}

/// As whom this server asks: a user that may do everything, so that no policy is in the way.
pub(super) fn own_user() -> UserInfo {
    UserInfo { name: "system:kube-aggregator".into(), groups: vec![MASTERS.into()], ..UserInfo::default() }
}

impl Transport {
    /// Sends a request to a whole URL. One that asks for an upgrade has a connection of its own, which is then used for
    /// nothing else.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
        upgrades: bool,
    ) -> Result<Response<Incoming>, String> {
        if upgrades {
            return alone(&self.connector, request).await;
        }
        self.client.request(request).await.map_err(|e| chain(&e))
    }
}

async fn alone(connector: &Connector, mut request: Request<RequestBody>) -> Result<Response<Incoming>, String> {
    let stream = connector.clone().connect(request.uri().clone()).await.map_err(|e| e.to_string())?;
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    relay::exchange(stream, request).await.map_err(|e| chain(&e))
}
