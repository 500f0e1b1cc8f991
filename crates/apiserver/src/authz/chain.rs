//! Who is asked, in which order: from flags, or from a file that is read again when it changes. What cannot be used then is
//! refused, and the old chain stays.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::webhook::{Settings, WebhookAuthorizer};
use super::{configuration, webhook};
use crate::Error;
use crate::config::{Authorization, AuthorizationMode, WebhookAuthorization};
use crate::files::Changes;
use crate::webhook::Webhook;

/// Of one review, when flags say who is asked.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One who is asked.
pub(super) enum Step {
    Node,
    Rbac,
    Webhook(Box<webhook::WebhookAuthorizer>),
}

/// The chain of the moment.
pub(crate) struct Chain {
    steps: ArcSwap<Vec<Step>>,
    config_file: Option<PathBuf>,
    /// Files that the configuration names.
    named: parking_lot::Mutex<Vec<PathBuf>>,
}

impl Chain {
    pub(crate) fn new(settings: &Authorization) -> Result<Self, Error> {
        let (steps, named) = match &settings.config_file {
            Some(file) => configuration::load(file)?,
            None => (from_flags(settings)?, Vec::new()),
        };
        let config_file = settings.config_file.clone();
        Ok(Self { steps: ArcSwap::from_pointee(steps), config_file, named: named.into() })
    }

    pub(super) fn steps(&self) -> arc_swap::Guard<Arc<Vec<Step>>> {
        self.steps.load()
    }

    /// Follows the file until `shutdown`. Returns at once when there is none.
    pub(crate) async fn keep(&self, shutdown: CancellationToken) {
        let Some(file) = &self.config_file else { return };
        let mut watched = Vec::new();
        let mut changes = None;
        loop {
            let mut files = self.named.lock().clone();
            files.push(file.clone());
            if files != watched || changes.is_none() {
                match Changes::of(files.iter().map(PathBuf::as_path)) {
                    Ok(new) => changes = Some(new),
                    Err(error) => return tracing::warn!(%error, "the authorization configuration cannot be watched"),
                }
                watched = files;
            }
            match configuration::load(file) {
                Ok((steps, named)) => {
                    self.steps.store(Arc::new(steps));
                    *self.named.lock() = named;
                }
                Err(error) => {
                    tracing::error!(%error, "the authorization configuration could not be read again; the old one stays");
                }
            }
            let Some(changes) = &mut changes else { return };
            tokio::select! {
                () = shutdown.cancelled() => return,
                more = changes.next() => if more.is_err() { return },
            }
        }
    }
}

fn from_flags(settings: &Authorization) -> Result<Vec<Step>, Error> {
    let bad = |why: &str| Error::Configuration { path: "--authorization-mode".into(), why: why.to_owned() };
    if settings.modes.is_empty() {
        return Err(bad("at least one authorization-mode must be passed"));
    }
    let mut steps = Vec::new();
    for (index, mode) in settings.modes.iter().enumerate() {
        if settings.modes.iter().take(index).any(|before| before == mode) {
            return Err(bad("a mode is specified more than once"));
        }
        steps.push(match (mode, &settings.webhook) {
            (AuthorizationMode::Node, _) => Step::Node,
            (AuthorizationMode::Rbac, _) => Step::Rbac,
            (AuthorizationMode::Webhook, Some(webhook)) => Step::Webhook(Box::new(from_flag(webhook)?)),
            (AuthorizationMode::Webhook, None) => {
                return Err(bad("authorization-mode Webhook's authorization config file not passed"));
            }
        });
    }
    if settings.webhook.is_some() && !settings.modes.contains(&AuthorizationMode::Webhook) {
        return Err(bad("cannot specify --authorization-webhook-config-file without mode Webhook"));
    }
    Ok(steps)
}

fn from_flag(webhook: &WebhookAuthorization) -> Result<WebhookAuthorizer, Error> {
    let WebhookAuthorization { kubeconfig, version, authorized_ttl, unauthorized_ttl } = webhook;
    if !matches!(version.as_str(), "v1" | "v1beta1") {
        let why =
            format!("unsupported webhook authorizer version {version:?}, supported versions are \"v1\", \"v1beta1\"");
        return Err(Error::Configuration { path: "--authorization-webhook-version".into(), why });
    }
    let settings = Settings {
        version: version.clone(),
        timeout: TIMEOUT,
        authorized_ttl: *authorized_ttl,
        unauthorized_ttl: *unauthorized_ttl,
        deny_on_error: false,
        conditions: Vec::new(),
    };
    Ok(WebhookAuthorizer::new(Webhook::from_kubeconfig(kubeconfig)?, settings))
}
