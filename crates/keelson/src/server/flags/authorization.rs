//! Flags about who decides what users may do.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keelson_apiserver::{AuthorizationMode, Config, WebhookAuthorization};

use super::duration;

/// See [`keelson_apiserver::Authorization`].
#[derive(Args)]
pub(super) struct AuthorizationFlags {
    /// Who is asked, in this order: Node, RBAC, Webhook [default: Node,RBAC]
    #[arg(long, value_delimiter = ',', value_name = "MODES")]
    authorization_mode: Option<Vec<AuthorizationMode>>,
    /// An AuthorizationConfiguration in place of the other authorization flags; read again when it changes
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["authorization_mode", "authorization_webhook_config_file"]
    )]
    authorization_config: Option<PathBuf>,
    /// A kubeconfig whose cluster is the server that SubjectAccessReviews are sent to
    #[arg(long, value_name = "FILE")]
    authorization_webhook_config_file: Option<PathBuf>,
    /// The reviews' version: v1 or v1beta1 [default: v1beta1]
    #[arg(long, requires = "authorization_webhook_config_file")]
    authorization_webhook_version: Option<String>,
    /// How long leave by the webhook is remembered [default: 5m]
    #[arg(long, value_parser = duration, requires = "authorization_webhook_config_file")]
    authorization_webhook_cache_authorized_ttl: Option<Duration>,
    /// How long refusals by the webhook are remembered [default: 30s]
    #[arg(long, value_parser = duration, requires = "authorization_webhook_config_file")]
    authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
}

impl AuthorizationFlags {
    /// Writes what was given into the configuration.
    pub(super) fn apply(&self, config: &mut Config) {
        let settings = &mut config.authorization;
        if let Some(modes) = &self.authorization_mode {
            settings.modes.clone_from(modes);
        }
        settings.config_file.clone_from(&self.authorization_config);
        settings.webhook = self.authorization_webhook_config_file.clone().map(|file| {
            let mut webhook = WebhookAuthorization::usual(file);
            if let Some(version) = &self.authorization_webhook_version {
                webhook.version.clone_from(version);
            }
            webhook.authorized_ttl = self.authorization_webhook_cache_authorized_ttl.unwrap_or(webhook.authorized_ttl);
            webhook.unauthorized_ttl =
                self.authorization_webhook_cache_unauthorized_ttl.unwrap_or(webhook.unauthorized_ttl);
            webhook
        });
    }
}
