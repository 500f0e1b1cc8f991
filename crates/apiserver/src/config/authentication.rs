//! Who is let in, besides holders of client certificates and service-account tokens. Names are those of upstream's flags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Pem;

/// The settings. The default lets in anonymous requests (which may see health and version only) and nobody else.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// `--anonymous-auth`; `None` is on, unless [`Authentication::config_file`] says otherwise.
    pub anonymous: Option<bool>,
    /// `--token-auth-file`: CSV of token, user, uid and groups. Read once.
    pub token_file: Option<PathBuf>,
    /// `--enable-bootstrap-token-auth`
    pub bootstrap_tokens: bool,
    /// `--authentication-config`: an `AuthenticationConfiguration`. Read again when it changes.
    pub config_file: Option<PathBuf>,
    /// `--oidc-issuer-url` and its kin; not beside [`Authentication::config_file`].
    pub oidc: Option<Oidc>,
    /// `--authentication-token-webhook-config-file` and its kin.
    pub webhook: Option<WebhookAuthentication>,
    /// `--requestheader-client-ca-file` and its kin: who may say for whom it sends requests.
    pub request_header: Option<RequestHeader>,
}

/// One issuer of tokens, as upstream's flags describe it. [`Oidc::new`] has their defaults.
#[derive(Clone, Debug)]
pub struct Oidc {
    /// `--oidc-issuer-url`
    pub issuer_url: String,
    /// `--oidc-client-id`: the audience that tokens must be for.
    pub client_id: String,
    /// `--oidc-ca-file`: signs the issuer's certificate, in PEM; without it the machine's authorities do.
    pub ca: Option<Pem>,
    /// `--oidc-username-claim`
    pub username_claim: String,
    /// `--oidc-username-prefix`; empty means the issuer's URL and `#`, but for the claim `email`; `-` means none.
    pub username_prefix: String,
    /// `--oidc-groups-claim`; empty for none.
    pub groups_claim: String,
    /// `--oidc-groups-prefix`
    pub groups_prefix: String,
    /// `--oidc-required-claim`: claims and the values that they must have.
    pub required_claims: BTreeMap<String, String>,
    /// `--oidc-signing-algs`: names of JOSE.
    pub signing_algorithms: Vec<String>,
}

impl Oidc {
    /// With upstream's defaults.
    pub fn new(issuer_url: String, client_id: String) -> Self {
        Self {
            issuer_url,
            client_id,
            ca: None,
            username_claim: "sub".into(),
            username_prefix: String::new(),
            groups_claim: String::new(),
            groups_prefix: String::new(),
            required_claims: BTreeMap::new(),
            signing_algorithms: vec!["RS256".into()],
        }
    }
}

/// A server that is sent TokenReviews.
#[derive(Clone, Debug)]
pub struct WebhookAuthentication {
    /// A kubeconfig whose current context's cluster is the server.
    pub kubeconfig: PathBuf,
    /// `--authentication-token-webhook-cache-ttl`: how long answers are kept; zero keeps none.
    pub cache_ttl: Duration,
    /// For one token, with all attempts; upstream's is half a minute.
    pub timeout: Duration,
    /// `--authentication-token-webhook-version`
    pub version: TokenReviewVersion,
}

impl WebhookAuthentication {
    /// With upstream's defaults.
    pub fn new(kubeconfig: PathBuf) -> Self {
        let seconds = Duration::from_secs;
        Self { kubeconfig, cache_ttl: seconds(120), timeout: seconds(30), version: TokenReviewVersion::default() }
    }
}

/// Of `authentication.k8s.io`: in what form a webhook is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenReviewVersion {
    V1,
    /// Upstream's default.
    #[default]
    V1Beta1,
}

/// A front proxy: it has authenticated its clients and says in headers who they are.
#[derive(Clone, Debug)]
pub struct RequestHeader {
    /// Signs the proxies' client certificates.
    pub client_ca: Pem,
    /// Common names that the proxies may have; empty means any.
    pub allowed_names: Vec<String>,
    /// The first header with a value is the user's name.
    pub username_headers: Vec<String>,
    /// The first header with a value is the user's UID.
    pub uid_headers: Vec<String>,
    /// All values of all headers are groups.
    pub group_headers: Vec<String>,
    /// Headers that begin so hold more about the user; the rest of their names are the keys.
    pub extra_header_prefixes: Vec<String>,
}

impl RequestHeader {
    /// With the headers that upstream suggests.
    pub fn usual(client_ca: Pem, allowed_names: Vec<String>) -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            client_ca,
            allowed_names,
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_header_prefixes: one("X-Remote-Extra-"),
        }
    }
}
