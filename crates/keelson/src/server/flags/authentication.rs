//! Flags about who is let in.

use std::path::PathBuf;

use clap::Args;
use keelson_apiserver::{Config, Identity, RequestHeader};

/// See [`keelson_apiserver::Authentication`].
#[derive(Args)]
pub(super) struct AuthenticationFlags {
    /// Whether requests that say nothing about their sender are let in, as `system:anonymous` [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    anonymous_auth: Option<bool>,
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
    }
}
