//! What the API server is told at start. Nothing here is read from argv, the environment or globals; the binary that
//! composes the components fills it in.

mod audit;
mod authentication;
mod authorization;
pub(crate) mod features;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use self::audit::{
    Audit, AuditBatch, AuditFormat, AuditLog, AuditMode, AuditThrottle, AuditTruncate, AuditWebhook,
};
pub use self::authentication::{Authentication, Oidc, RequestHeader, TokenReviewVersion, WebhookAuthentication};
pub use self::authorization::{Authorization, AuthorizationMode, WebhookAuthorization};
pub use self::features::{Switches, switches};
use crate::{EncryptionFile, Error};

/// A PEM document, on disk or in memory.
#[derive(Clone, Debug)]
pub enum Pem {
    File(PathBuf),
    Inline(Vec<u8>),
}

impl Pem {
    /// The document's bytes.
    pub fn load(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Inline(bytes) => Ok(bytes.clone()),
            Self::File(path) => {
                std::fs::read(path).map_err(|source| Error::File { path: path.display().to_string(), source })
            }
        }
    }
}

impl Pem {
    /// Where it is, when it is on disk.
    pub(crate) fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Inline(_) => None,
        }
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<String> for Pem {
    fn from(text: String) -> Self {
        Self::Inline(text.into_bytes())
    }
}

/// A certificate chain and its private key.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: Pem,
    pub key: Pem,
}

/// How service-account tokens are made and checked.
#[derive(Clone, Debug)]
pub struct ServiceAccountKeys {
    /// RSA (RS256), P-256 (ES256) or P-384 (ES384) private key, PKCS#8 or PKCS#1/SEC1.
    pub signing_key: Pem,
    /// Public keys that verify tokens: the signing key's, and those of keys rotated out.
    pub public_keys: Vec<Pem>,
    /// `--service-account-issuer`
    pub issuer: String,
    /// Issuers of tokens that were issued earlier and are still taken (`--service-account-issuer` again).
    pub other_issuers: Vec<String>,
    /// `--api-audiences`; empty means the issuer.
    pub audiences: Vec<String>,
    /// `--service-account-max-token-expiration`: tokens that are asked for a longer life get this one.
    pub max_token_expiration: Option<Duration>,
    /// `--service-account-extend-token-expiration`: tokens of pods that ask for the usual hour live for a year, for clients
    /// that never read them again.
    pub extend_token_expiration: bool,
    /// `--service-account-jwks-uri`: where discovery says that the keys are, in place of this server's own address.
    pub jwks_uri: Option<String>,
}

impl ServiceAccountKeys {
    /// With upstream's defaults.
    pub fn new(signing_key: Pem, public_keys: Vec<Pem>, issuer: impl Into<String>) -> Self {
        Self {
            signing_key,
            public_keys,
            issuer: issuer.into(),
            other_issuers: Vec::new(),
            audiences: Vec::new(),
            max_token_expiration: None,
            extend_token_expiration: true,
            jwks_uri: None,
        }
    }
}

/// How kubelets are reached.
#[derive(Clone, Debug)]
pub struct KubeletClient {
    /// Client certificate of `kube-apiserver-kubelet-client`.
    pub identity: Identity,
    /// Signs the kubelets' serving certificates (which name the node's InternalIP).
    pub ca: Pem,
}

/// The API server's configuration. [`Config::default`] is what kubeadm would set, without any keys.
#[derive(Clone, Debug)]
pub struct Config {
    /// Needed by [`crate::ApiServer::serve`] only.
    pub serving: Option<Identity>,
    /// Signs client certificates; without it nobody can authenticate by certificate.
    pub client_ca: Option<Pem>,
    /// Without it tokens are neither issued nor accepted.
    pub service_account: Option<ServiceAccountKeys>,
    /// Without it `log`, `exec`, `attach`, `portforward` and node proxying answer 503.
    pub kubelet: Option<KubeletClient>,
    /// ClusterIPs come from here; its first address is the `kubernetes` Service's.
    pub service_cidr: IpNet,
    /// NodePorts come from here.
    pub node_ports: RangeInclusive<u16>,
    /// Where the `kubernetes` Service leads.
    pub advertise_address: IpAddr,
    /// Port behind [`Config::advertise_address`].
    pub advertise_port: u16,
    /// How often the server sees to it that the `kubernetes` Service leads to it. On a shared store it stands there for half as
    /// long again after it was last seen.
    pub endpoint_interval: Duration,
    /// By this name of the machine the server is known in a lease, as long as it runs; without it there is none.
    pub hostname: Option<String>,
    /// Ways in besides client certificates and service-account tokens.
    pub authentication: Authentication,
    /// Who decides what users may do.
    pub authorization: Authorization,
    /// What the server shows to aggregated servers, as their front proxy (`--proxy-client-cert-file`,
    /// `--proxy-client-key-file`).
    pub proxy_client: Option<Identity>,
    /// How stored objects are encrypted; without it they are not.
    pub encryption: Option<EncryptionFile>,
    /// How often history is forgotten, which is kept for so long; zero for never (`--etcd-compaction-interval`).
    pub compaction_interval: Duration,
    /// How often the reservations of ClusterIPs and NodePorts are compared with the Services.
    pub repair_services_interval: Duration,
    /// How long Events live after they were last written; zero for ever (`--event-ttl`).
    pub event_ttl: Duration,
    /// Longest duration of a request that is no watch, log, exec, … (`--request-timeout`).
    pub request_timeout: Duration,
    /// Together with the next one: the seats that requests share (`--max-requests-inflight`).
    pub max_requests_inflight: u32,
    /// `--max-mutating-requests-inflight`
    pub max_mutating_requests_inflight: u32,
    /// What is written down of requests; nothing, without.
    pub audit: Option<Audit>,
    /// How long the server still takes requests, and says that it is not ready, before it stops
    /// (`--shutdown-delay-duration`).
    pub shutdown_delay: Duration,
    /// `--enable-admission-plugins`: names of plugins that are to run beside those that do by default.
    pub enable_admission_plugins: Vec<String>,
    /// `--disable-admission-plugins`
    pub disable_admission_plugins: Vec<String>,
    /// `--feature-gates`
    pub feature_gates: Switches,
    /// `--runtime-config`
    pub runtime_config: Switches,
    /// `--admission-control-config-file`: an `AdmissionConfiguration`.
    pub admission_control_config_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            serving: None,
            client_ca: None,
            service_account: None,
            kubelet: None,
            service_cidr: IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), 12),
            node_ports: 30000..=32767,
            advertise_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            advertise_port: 6443,
            endpoint_interval: Duration::from_secs(10),
            hostname: None,
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            proxy_client: None,
            encryption: None,
            compaction_interval: Duration::from_secs(300),
            repair_services_interval: Duration::from_secs(180),
            event_ttl: Duration::from_secs(3600),
            request_timeout: Duration::from_secs(60),
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            audit: None,
            shutdown_delay: Duration::ZERO,
            enable_admission_plugins: Vec::new(),
            disable_admission_plugins: Vec::new(),
            feature_gates: Switches::new(),
            runtime_config: Switches::new(),
            admission_control_config_file: None,
        }
    }
}
