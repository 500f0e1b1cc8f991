//! Who decides what users may do. Names are those of upstream's flags. Nothing here turns authorization off.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Who is asked, besides that `system:masters` may do everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// Kubelets, by what they run.
    Node,
    /// Roles and their bindings.
    Rbac,
    /// A server that is sent SubjectAccessReviews.
    Webhook,
}

impl FromStr for AuthorizationMode {
    type Err = String;

    fn from_str(mode: &str) -> Result<Self, String> {
        match mode {
            "Node" => Ok(Self::Node),
            "RBAC" => Ok(Self::Rbac),
            "Webhook" => Ok(Self::Webhook),
            "AlwaysAllow" => Err("AlwaysAllow is not supported: authorization cannot be turned off".into()),
            other => Err(format!("{other:?} is not a supported mode: use Node, RBAC or Webhook")),
        }
    }
}

/// The settings.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// `--authorization-mode`: the order in which they are asked, each once.
    pub modes: Vec<AuthorizationMode>,
    /// `--authorization-webhook-config-file` and its kin; with [`AuthorizationMode::Webhook`] only.
    pub webhook: Option<WebhookAuthorization>,
    /// `--authorization-config`: an `AuthorizationConfiguration` in place of modes and webhook. Read again when it changes.
    pub config_file: Option<PathBuf>,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { modes: vec![AuthorizationMode::Node, AuthorizationMode::Rbac], webhook: None, config_file: None }
    }
}

/// A server that is sent SubjectAccessReviews.
#[derive(Clone, Debug)]
pub struct WebhookAuthorization {
    /// A kubeconfig whose current context's cluster is the server.
    pub kubeconfig: PathBuf,
    /// `--authorization-webhook-version`: `v1` or `v1beta1` of the reviews.
    pub version: String,
    /// `--authorization-webhook-cache-authorized-ttl`: how long leave is remembered; zero not at all.
    pub authorized_ttl: Duration,
    /// `--authorization-webhook-cache-unauthorized-ttl`: how long a refusal is.
    pub unauthorized_ttl: Duration,
}

impl WebhookAuthorization {
    /// With upstream's defaults.
    pub fn usual(kubeconfig: PathBuf) -> Self {
        Self {
            kubeconfig,
            version: "v1beta1".into(),
            authorized_ttl: Duration::from_secs(300),
            unauthorized_ttl: Duration::from_secs(30),
        }
    }
}
