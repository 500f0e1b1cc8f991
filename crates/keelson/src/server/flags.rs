//! The API server's flags of `keelson server`, under upstream's names.

mod authentication;
mod authorization;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keelson_apiserver::{Audit, AuditLog, AuditMode, AuditWebhook, Config, Switches, switches};

/// Size of an audit log where none is said.
const AUDIT_LOG_MIB: u64 = 100;

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
    /// What to write down of requests: a file with a Policy of audit.k8s.io/v1
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Write audit events to this file, one a line; `-` for standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_log_path: Option<PathBuf>,
    /// MiB after which a new audit log is begun; 0 means 100, as upstream
    #[arg(long, default_value_t = 0)]
    audit_log_maxsize: u64,
    /// Old audit logs that are kept; 0 for all
    #[arg(long, default_value_t = 0)]
    audit_log_maxbackup: usize,
    /// Days for which old audit logs are kept; 0 for ever
    #[arg(long, default_value_t = 0)]
    audit_log_maxage: u64,
    /// Whether requests wait for the audit log: batch, blocking, or blocking-strict
    #[arg(long, default_value = "blocking")]
    audit_log_mode: AuditMode,
    /// Send audit events to the server of this kubeconfig file
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_webhook_config_file: Option<PathBuf>,
    /// Whether requests wait for that server: batch, blocking, or blocking-strict
    #[arg(long, default_value = "batch")]
    audit_webhook_mode: AuditMode,
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
    pub(super) fn apply(&self, config: &mut Config) {
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
        config.audit = self.audit();
        config.shutdown_delay = self.shutdown_delay_duration;
        config.enable_admission_plugins.clone_from(&self.enable_admission_plugins);
        config.disable_admission_plugins.clone_from(&self.disable_admission_plugins);
        config.feature_gates.clone_from(&self.feature_gates);
        config.runtime_config.clone_from(&self.runtime_config);
        config.admission_control_config_file.clone_from(&self.admission_control_config_file);
    }

    fn audit(&self) -> Option<Audit> {
        let log = self.audit_log_path.clone().map(|path| AuditLog {
            path,
            max_size_mib: if self.audit_log_maxsize == 0 { AUDIT_LOG_MIB } else { self.audit_log_maxsize },
            max_backups: self.audit_log_maxbackup,
            max_age_days: self.audit_log_maxage,
            mode: self.audit_log_mode,
        });
        let mode = self.audit_webhook_mode;
        let webhook = self.audit_webhook_config_file.clone().map(|kubeconfig| AuditWebhook { kubeconfig, mode });
        self.audit_policy_file.clone().map(|policy| Audit { policy, log, webhook })
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
