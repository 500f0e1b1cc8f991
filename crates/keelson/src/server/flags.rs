//! The API server's flags of `keelson server`, under upstream's names.

mod authentication;

use std::ops::RangeInclusive;

use clap::Args;
use keelson_apiserver::Config;

/// What an administrator may set; anything that is not given keeps [`Config`]'s default.
#[derive(Args)]
#[command(next_help_heading = "API server")]
pub(super) struct ApiServerFlags {
    /// The issuer of service-account tokens
    #[arg(long)]
    service_account_issuer: Option<String>,
    /// Audiences of tokens that are accepted [default: the issuer]
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// NodePorts come from here, as `30000-32767`
    #[arg(long, value_parser = port_range)]
    service_node_port_range: Option<RangeInclusive<u16>>,
    #[command(flatten)]
    authentication: authentication::AuthenticationFlags,
}

impl ApiServerFlags {
    /// Writes what was given into the configuration.
    pub(super) fn apply(&self, config: &mut Config) {
        if let Some(accounts) = &mut config.service_account {
            if let Some(issuer) = &self.service_account_issuer {
                accounts.issuer.clone_from(issuer);
            }
            accounts.audiences.clone_from(&self.api_audiences);
        }
        if let Some(range) = &self.service_node_port_range {
            config.node_ports = range.clone();
        }
        self.authentication.apply(config);
    }
}

/// `FIRST-LAST`, `FIRST+COUNT` or one port, as upstream reads it.
fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |part: &str| part.trim().parse::<u16>().map_err(|e| format!("{part:?}: {e}"));
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        (port(first)?, port(last)?)
    } else if let Some((first, count)) = text.split_once('+') {
        (port(first)?, port(first)?.checked_add(port(count)?).ok_or("the range ends beyond 65535")?)
    } else {
        (port(text)?, port(text)?)
    };
    if first == 0 || first > last {
        return Err(format!("{text:?} is no range of ports"));
    }
    Ok(first..=last)
}
