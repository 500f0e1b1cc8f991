//! The API server's flags of `keelson server`, under upstream's names.

mod audit;
mod authentication;
mod authorization;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keelson_apiserver::{Config, Switches, switches};

use crate::cli::Failure;

/// What an administrator may set; anything that is not given keeps [`Config`]'s default.
#[derive(Args)]
#[command(next_help_heading = "API server")]
pub(super) struct ApiServerFlags {
    /// The issuer of service-account tokens; given again, issuers whose tokens are taken as well
    #[arg(long)]
    service_account_issuer: Vec<String>,
    /// Audiences of tokens that are accepted [default: the issuer]
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// NodePorts come from here, as `30000-32767`
    #[arg(long, value_parser = port_range)]
    service_node_port_range: Option<RangeInclusive<u16>>,
    /// Requests served at once, together with those of --max-mutating-requests-inflight
    #[arg(long, default_value_t = 400)]
    max_requests_inflight: u32,
    /// Requests served at once, together with those of --max-requests-inflight
    #[arg(long, default_value_t = 200)]
    max_mutating_requests_inflight: u32,
    #[command(flatten)]
    audit: audit::AuditFlags,
    /// How long Events live after they were last written; 0 for ever
    #[arg(long, default_value = "1h", value_parser = duration)]
    event_ttl: Duration,
    /// How long a request may take that is no watch, log, exec or the like
    #[arg(long, default_value = "1m", value_parser = duration)]
    request_timeout: Duration,
    /// Seconds to go on serving, not ready any more, before stopping
    #[arg(long, default_value = "0s", value_parser = duration)]
    shutdown_delay_duration: Duration,
    #[command(flatten)]
    authentication: authentication::AuthenticationFlags,
    /// Admission plugins that run beside those that do by default
    #[arg(long, value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that do not run
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// Features that are on or off, as `NAME=true`; known is MutatingAdmissionPolicy, which is off by default
    #[arg(long, value_parser = switches, default_value = "")]
    feature_gates: Switches,
    /// APIs that are served although they are not by default, as `admissionregistration.k8s.io/v1beta1=true`; or `api/beta`,
    /// `api/all`
    #[arg(long, value_parser = switches, default_value = "")]
    runtime_config: Switches,
    /// An AdmissionConfiguration with the plugins' own settings
    #[arg(long)]
    admission_control_config_file: Option<PathBuf>,
    #[command(flatten)]
    authorization: authorization::AuthorizationFlags,
}

impl ApiServerFlags {
    /// Writes what was given into the configuration.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        if let Some(accounts) = &mut config.service_account {
            if let Some((issuer, others)) = self.service_account_issuer.split_first() {
                accounts.issuer.clone_from(issuer);
                accounts.other_issuers = others.to_vec();
            }
            accounts.audiences.clone_from(&self.api_audiences);
        }
        if let Some(range) = &self.service_node_port_range {
            config.node_ports = range.clone();
        }
        self.authentication.apply(config);
        self.authorization.apply(config);
        config.max_requests_inflight = self.max_requests_inflight;
        config.max_mutating_requests_inflight = self.max_mutating_requests_inflight;
        config.audit = self.audit.audit()?;
        config.event_ttl = self.event_ttl;
        config.request_timeout = self.request_timeout;
        config.shutdown_delay = self.shutdown_delay_duration;
        config.enable_admission_plugins.clone_from(&self.enable_admission_plugins);
        config.disable_admission_plugins.clone_from(&self.disable_admission_plugins);
        config.feature_gates.clone_from(&self.feature_gates);
        config.runtime_config.clone_from(&self.runtime_config);
        config.admission_control_config_file.clone_from(&self.admission_control_config_file);
        Ok(())
    }
}

/// As Go writes durations: `90s`, `1m30s`, `1h`; nothing below zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let nanos = keelson_api::time::parse_duration(text)?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("{text:?} is below zero"))
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ApiServerFlags,
    }

    #[test]
    fn times_are_upstreams_unless_they_are_given() {
        let times = |flags: &[&str]| {
            let line = Line::try_parse_from(["keelson"].iter().chain(flags)).map_err(|error| error.to_string())?;
            let mut config = Config::default();
            line.flags.apply(&mut config).map_err(|error| error.to_string())?;
            Ok::<_, String>((config.event_ttl.as_secs(), config.request_timeout.as_secs()))
        };
        assert_eq!(times(&[]), Ok((3600, 60)));
        assert_eq!(times(&["--event-ttl=2h30m", "--request-timeout=5s"]), Ok((9000, 5)));
        let error = times(&["--request-timeout=-1s"]).unwrap_err();
        assert!(error.contains("--request-timeout") && error.contains("below zero"), "{error}");
    }
}
