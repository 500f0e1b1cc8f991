//! Flags about who is let in.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keelson_apiserver::{
    Config, Identity, Oidc, Pem, RequestHeader, ServiceAccountKeys, TokenReviewVersion, WebhookAuthentication,
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
    /// The issuer of OpenID Connect tokens (https); beside --authentication-config there are none of these flags
    #[arg(long, value_name = "URL", requires = "oidc_client_id", conflicts_with = "authentication_config")]
    oidc_issuer_url: Option<String>,
    /// The audience that its tokens must be for
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// Signs the issuer's certificate [default: the machine's authorities]
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    oidc_ca_file: Option<PathBuf>,
    /// The claim that names the user
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url", default_value = "sub")]
    oidc_username_claim: String,
    /// Put before users' names; `-` for nothing [default: the issuer's URL and `#`, but nothing for the claim email]
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url", allow_hyphen_values = true)]
    oidc_username_prefix: Option<String>,
    /// The claim that names the user's groups
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url")]
    oidc_groups_claim: Option<String>,
    /// Put before groups' names
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url")]
    oidc_groups_prefix: Option<String>,
    /// A claim that tokens must have with this value; may be given again
    #[arg(long, value_name = "CLAIM=VALUE", requires = "oidc_issuer_url", value_delimiter = ',', value_parser = pair)]
    oidc_required_claim: Vec<(String, String)>,
    /// How tokens may be signed
    #[arg(long, value_name = "NAMES", requires = "oidc_issuer_url", value_delimiter = ',', default_value = "RS256")]
    oidc_signing_algs: Vec<String>,
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
        settings.oidc = self.oidc();
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

    fn oidc(&self) -> Option<Oidc> {
        let (url, id) = (self.oidc_issuer_url.clone()?, self.oidc_client_id.clone()?);
        Some(Oidc {
            ca: self.oidc_ca_file.clone().map(Pem::from),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone().unwrap_or_default(),
            groups_claim: self.oidc_groups_claim.clone().unwrap_or_default(),
            groups_prefix: self.oidc_groups_prefix.clone().unwrap_or_default(),
            required_claims: self.oidc_required_claim.iter().cloned().collect(),
            signing_algorithms: self.oidc_signing_algs.clone(),
            ..Oidc::new(url, id)
        })
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

/// `KEY=VALUE`
fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not CLAIM=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}
