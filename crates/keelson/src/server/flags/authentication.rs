//! Flags about who is let in.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keelson_apiserver::{
    Config, Identity, Pem, RequestHeader, ServiceAccountKeys, TokenReviewVersion, WebhookAuthentication,
};

/// See [`keelson_apiserver::Authentication`].
#[derive(Args)]
pub(super) struct AuthenticationFlags {
    /// Whether requests that say nothing about their sender are let in, as `system:anonymous` [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    anonymous_auth: Option<bool>,
    /// Signs client certificates [default: `pki/ca.crt` in the data directory]
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// Tokens of users: lines of token, user, UID and, in quotes, groups
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    /// Let in holders of bootstrap tokens: Secrets `bootstrap-token-<id>` in kube-system
    #[arg(long)]
    enable_bootstrap_token_auth: bool,
    /// An `AuthenticationConfiguration`: token issuers (OIDC), and where anonymous requests may go
    #[arg(long)]
    authentication_config: Option<PathBuf>,
    /// A kubeconfig that says where a server is that knows tokens
    #[arg(long)]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long its answers are kept
    #[arg(long, default_value = "2m", value_parser = super::duration)]
    authentication_token_webhook_cache_ttl: Duration,
    /// Version of the TokenReviews it is sent
    #[arg(long, default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    authentication_token_webhook_version: String,
    /// Signs service-account tokens [default: `pki/sa.key` in the data directory]
    #[arg(long)]
    service_account_signing_key_file: Option<PathBuf>,
    /// Public keys of tokens that are taken; may be given again [default: `pki/sa.pub`]
    #[arg(long)]
    service_account_key_file: Vec<PathBuf>,
    /// Longest life of service-account tokens
    #[arg(long, value_parser = super::duration)]
    service_account_max_token_expiration: Option<Duration>,
    /// Give tokens of pods that ask for the usual hour a year, for clients that never read them again [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    service_account_extend_token_expiration: Option<bool>,
    /// Where discovery says that the keys of service-account tokens are
    #[arg(long)]
    service_account_jwks_uri: Option<String>,
    /// Signs the client certificates of front proxies [default: `pki/front-proxy-ca.crt` in the data directory]
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that front proxies may have; empty means any [default: front-proxy-client]
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Option<Vec<String>>,
    /// Headers that name the user [default: X-Remote-User]
    #[arg(long, value_delimiter = ',')]
    requestheader_username_headers: Option<Vec<String>>,
    /// Headers that hold the user's UID [default: X-Remote-Uid]
    #[arg(long, value_delimiter = ',')]
    requestheader_uid_headers: Option<Vec<String>>,
    /// Headers that name groups [default: X-Remote-Group]
    #[arg(long, value_delimiter = ',')]
    requestheader_group_headers: Option<Vec<String>>,
    /// What headers about the user begin with [default: X-Remote-Extra-]
    #[arg(long, value_delimiter = ',')]
    requestheader_extra_headers_prefix: Option<Vec<String>>,
    /// The client certificate that is shown to aggregated servers [default: `pki/front-proxy-client.crt`]
    #[arg(long, requires = "proxy_client_key_file")]
    proxy_client_cert_file: Option<PathBuf>,
    /// Its key [default: `pki/front-proxy-client.key`]
    #[arg(long, requires = "proxy_client_cert_file")]
    proxy_client_key_file: Option<PathBuf>,
}

impl AuthenticationFlags {
    /// Writes what was given into the configuration.
    pub(super) fn apply(&self, config: &mut Config) {
        let settings = &mut config.authentication;
        settings.anonymous = self.anonymous_auth.or(settings.anonymous);
        settings.token_file.clone_from(&self.token_auth_file);
        settings.bootstrap_tokens = self.enable_bootstrap_token_auth;
        settings.config_file.clone_from(&self.authentication_config);
        settings.webhook = self.authentication_token_webhook_config_file.as_ref().map(|file| WebhookAuthentication {
            cache_ttl: self.authentication_token_webhook_cache_ttl,
            version: match self.authentication_token_webhook_version.as_str() {
                "v1" => TokenReviewVersion::V1,
                _ => TokenReviewVersion::V1Beta1,
            },
            ..WebhookAuthentication::new(file.clone())
        });
        if let Some(file) = &self.requestheader_client_ca_file {
            let names = settings.request_header.take().map_or_else(Vec::new, |known| known.allowed_names);
            settings.request_header = Some(RequestHeader::usual(file.clone().into(), names));
        }
        if let Some(headers) = &mut settings.request_header {
            for (given, known) in [
                (&self.requestheader_allowed_names, &mut headers.allowed_names),
                (&self.requestheader_username_headers, &mut headers.username_headers),
                (&self.requestheader_uid_headers, &mut headers.uid_headers),
                (&self.requestheader_group_headers, &mut headers.group_headers),
                (&self.requestheader_extra_headers_prefix, &mut headers.extra_header_prefixes),
            ] {
                if let Some(given) = given {
                    *known = given.iter().filter(|name| !name.is_empty()).cloned().collect();
                }
            }
        }
        if let (Some(certificate), Some(key)) = (&self.proxy_client_cert_file, &self.proxy_client_key_file) {
            config.proxy_client = Some(Identity { certificate: certificate.clone().into(), key: key.clone().into() });
        }
        if let Some(file) = &self.client_ca_file {
            config.client_ca = Some(file.clone().into());
        }
        if let Some(accounts) = &mut config.service_account {
            self.apply_to_accounts(accounts);
        }
    }

    fn apply_to_accounts(&self, accounts: &mut ServiceAccountKeys) {
        if let Some(file) = &self.service_account_signing_key_file {
            accounts.signing_key = file.clone().into();
        }
        if !self.service_account_key_file.is_empty() {
            accounts.public_keys = self.service_account_key_file.iter().cloned().map(Pem::from).collect();
        }
        accounts.max_token_expiration = self.service_account_max_token_expiration;
        if let Some(extend) = self.service_account_extend_token_expiration {
            accounts.extend_token_expiration = extend;
        }
        accounts.jwks_uri.clone_from(&self.service_account_jwks_uri);
    }
}
