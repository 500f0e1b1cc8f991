//! What is written down of requests: `--audit-*`, by upstream's names and defaults.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keelson_apiserver::{
    Audit, AuditBatch, AuditFormat, AuditLog, AuditMode, AuditThrottle, AuditTruncate, AuditWebhook,
};

use super::{Failure, duration};

/// Size of an audit log where none is said.
const AUDIT_LOG_MIB: u64 = 100;
/// The only version of events that there is.
const VERSION: &str = "audit.k8s.io/v1";

#[derive(Args)]
#[command(next_help_heading = "API server, audit")]
pub(super) struct AuditFlags {
    /// What to write down of requests: a file with a Policy of audit.k8s.io/v1
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Write audit events to this file, one a line; `-` for standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_log_path: Option<PathBuf>,
    /// How a line is written: json, or legacy for text without objects
    #[arg(long, default_value = "json")]
    audit_log_format: AuditFormat,
    /// The version of events in the log
    #[arg(long, default_value = VERSION, value_parser = version)]
    audit_log_version: String,
    /// MiB after which a new audit log is begun; 0 means 100, as upstream
    #[arg(long, default_value_t = 0)]
    audit_log_maxsize: u64,
    /// Old audit logs that are kept; 0 for all
    #[arg(long, default_value_t = 0)]
    audit_log_maxbackup: usize,
    /// Days for which old audit logs are kept; 0 for ever
    #[arg(long, default_value_t = 0)]
    audit_log_maxage: u64,
    /// Compress old audit logs with gzip
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    audit_log_compress: bool,
    /// Whether requests wait for the audit log: batch, blocking, or blocking-strict
    #[arg(long, default_value = "blocking")]
    audit_log_mode: AuditMode,
    /// In batch mode: events that wait at most
    #[arg(long, default_value_t = AuditBatch::LOG.buffer_events)]
    audit_log_batch_buffer_size: usize,
    /// In batch mode: events that are written together
    #[arg(long, default_value_t = AuditBatch::LOG.max_events)]
    audit_log_batch_max_size: usize,
    /// In batch mode: how long an event waits for others
    #[arg(long, default_value = "0s", value_parser = duration)]
    audit_log_batch_max_wait: Duration,
    /// In batch mode: write only so often
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    audit_log_batch_throttle_enable: bool,
    /// Batches a second, where they are throttled
    #[arg(long, default_value_t = 0.0)]
    audit_log_batch_throttle_qps: f32,
    /// Batches at once, where they are throttled and there were fewer before
    #[arg(long, default_value_t = 0)]
    audit_log_batch_throttle_burst: u32,
    /// Write events that are too large without their objects
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    audit_log_truncate_enabled: bool,
    /// Bytes that are written together, where events are truncated
    #[arg(long, default_value_t = AuditTruncate::default().max_batch_bytes)]
    audit_log_truncate_max_batch_size: usize,
    /// Bytes of an event, where events are truncated; it is lost if it is larger without its objects
    #[arg(long, default_value_t = AuditTruncate::default().max_event_bytes)]
    audit_log_truncate_max_event_size: usize,
    /// Send audit events to the server of this kubeconfig file
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_webhook_config_file: Option<PathBuf>,
    /// The version of events that are sent
    #[arg(long, default_value = VERSION, value_parser = version)]
    audit_webhook_version: String,
    /// How long after a first failure it is tried again
    #[arg(long, default_value = "10s", value_parser = duration)]
    audit_webhook_initial_backoff: Duration,
    /// Whether requests wait for that server: batch, blocking, or blocking-strict
    #[arg(long, default_value = "batch")]
    audit_webhook_mode: AuditMode,
    /// In batch mode: events that wait at most
    #[arg(long, default_value_t = AuditBatch::WEBHOOK.buffer_events)]
    audit_webhook_batch_buffer_size: usize,
    /// In batch mode: events that are sent together
    #[arg(long, default_value_t = AuditBatch::WEBHOOK.max_events)]
    audit_webhook_batch_max_size: usize,
    /// In batch mode: how long an event waits for others
    #[arg(long, default_value = "30s", value_parser = duration)]
    audit_webhook_batch_max_wait: Duration,
    /// In batch mode: send only so often
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    audit_webhook_batch_throttle_enable: bool,
    /// Batches a second, where they are throttled
    #[arg(long, default_value_t = 10.0)]
    audit_webhook_batch_throttle_qps: f32,
    /// Batches at once, where they are throttled and there were fewer before
    #[arg(long, default_value_t = 15)]
    audit_webhook_batch_throttle_burst: u32,
    /// Send events that are too large without their objects
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    audit_webhook_truncate_enabled: bool,
    /// Bytes that are sent together, where events are truncated
    #[arg(long, default_value_t = AuditTruncate::default().max_batch_bytes)]
    audit_webhook_truncate_max_batch_size: usize,
    /// Bytes of an event, where events are truncated; it is lost if it is larger without its objects
    #[arg(long, default_value_t = AuditTruncate::default().max_event_bytes)]
    audit_webhook_truncate_max_event_size: usize,
}

impl AuditFlags {
    /// What they come to; errors are upstream's.
    pub(super) fn audit(&self) -> Result<Option<Audit>, Failure> {
        let log = self.audit_log_path.clone().map(|path| self.log(path)).transpose()?;
        let webhook = self.audit_webhook_config_file.clone().map(|file| self.webhook(file)).transpose()?;
        Ok(self.audit_policy_file.clone().map(|policy| Audit { policy, log, webhook }))
    }

    fn log(&self, path: PathBuf) -> Result<AuditLog, Failure> {
        let batch = AuditBatch {
            buffer_events: self.audit_log_batch_buffer_size,
            max_events: self.audit_log_batch_max_size,
            max_wait: self.audit_log_batch_max_wait,
            throttle: self.audit_log_batch_throttle_enable.then_some(AuditThrottle {
                qps: self.audit_log_batch_throttle_qps,
                burst: self.audit_log_batch_throttle_burst,
            }),
        };
        let truncate = AuditTruncate {
            max_event_bytes: self.audit_log_truncate_max_event_size,
            max_batch_bytes: self.audit_log_truncate_max_batch_size,
        };
        check("log", self.audit_log_mode, &batch, truncate)?;
        Ok(AuditLog {
            path,
            max_size_mib: if self.audit_log_maxsize == 0 { AUDIT_LOG_MIB } else { self.audit_log_maxsize },
            max_backups: self.audit_log_maxbackup,
            max_age_days: self.audit_log_maxage,
            compress: self.audit_log_compress,
            format: self.audit_log_format,
            mode: self.audit_log_mode,
            batch,
            truncate: self.audit_log_truncate_enabled.then_some(truncate),
        })
    }

    fn webhook(&self, kubeconfig: PathBuf) -> Result<AuditWebhook, Failure> {
        let batch = AuditBatch {
            buffer_events: self.audit_webhook_batch_buffer_size,
            max_events: self.audit_webhook_batch_max_size,
            max_wait: self.audit_webhook_batch_max_wait,
            throttle: self.audit_webhook_batch_throttle_enable.then_some(AuditThrottle {
                qps: self.audit_webhook_batch_throttle_qps,
                burst: self.audit_webhook_batch_throttle_burst,
            }),
        };
        let truncate = AuditTruncate {
            max_event_bytes: self.audit_webhook_truncate_max_event_size,
            max_batch_bytes: self.audit_webhook_truncate_max_batch_size,
        };
        check("webhook", self.audit_webhook_mode, &batch, truncate)?;
        Ok(AuditWebhook {
            kubeconfig,
            initial_backoff: self.audit_webhook_initial_backoff,
            mode: self.audit_webhook_mode,
            batch,
            truncate: self.audit_webhook_truncate_enabled.then_some(truncate),
        })
    }
}

fn check(backend: &str, mode: AuditMode, batch: &AuditBatch, truncate: AuditTruncate) -> Result<(), Failure> {
    let positive = |what: &str, value: &dyn std::fmt::Display, holds: bool| match holds {
        true => Ok(()),
        false => Err(Failure::from(format!("invalid audit {what} {value}, must be a positive number"))),
    };
    if mode == AuditMode::Batch {
        let AuditBatch { buffer_events, max_events, throttle, .. } = batch;
        positive(&format!("batch {backend} buffer size"), buffer_events, *buffer_events > 0)?;
        positive(&format!("batch {backend} max batch size"), max_events, *max_events > 0)?;
        if let Some(AuditThrottle { qps, burst }) = throttle {
            positive(&format!("batch {backend} throttle QPS"), qps, *qps > 0.0)?;
            positive(&format!("batch {backend} throttle burst"), burst, *burst > 0)?;
        }
    }
    let AuditTruncate { max_event_bytes, max_batch_bytes } = truncate;
    positive(&format!("truncate {backend} max event size"), &max_event_bytes, max_event_bytes > 0)?;
    if max_batch_bytes < max_event_bytes {
        return Err(Failure::from(format!(
            "invalid audit truncate {backend} max batch size {max_batch_bytes}, must be greater than max event size \
             ({max_event_bytes})"
        )));
    }
    Ok(())
}

fn version(text: &str) -> Result<String, String> {
    match text {
        VERSION => Ok(text.to_owned()),
        _ => Err(format!("invalid group version, allowed versions are [{VERSION:?}]")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: AuditFlags,
    }

    fn audit(flags: &[&str]) -> Result<Audit, String> {
        let usual = ["keelson", "--audit-policy-file=p", "--audit-log-path=l", "--audit-webhook-config-file=w"];
        let line = Line::try_parse_from(usual.iter().chain(flags)).map_err(|error| error.to_string())?;
        line.flags.audit().map(Option::unwrap).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_upstreams() {
        let audit = audit(&[]).unwrap();
        let (log, webhook) = (audit.log.unwrap(), audit.webhook.unwrap());
        assert_eq!((log.max_size_mib, log.max_backups, log.max_age_days, log.compress), (100, 0, 0, false));
        assert_eq!((log.format, log.mode, log.batch), (AuditFormat::Json, AuditMode::Blocking, AuditBatch::LOG));
        assert_eq!((webhook.mode, webhook.batch), (AuditMode::Batch, AuditBatch::WEBHOOK));
        assert_eq!(webhook.initial_backoff, Duration::from_secs(10));
        assert_eq!((log.truncate, webhook.truncate), (None, None));
    }

    #[test]
    fn every_flag_arrives() {
        let audit = audit(&[
            "--audit-log-format=legacy",
            "--audit-log-version=audit.k8s.io/v1",
            "--audit-log-compress",
            "--audit-log-mode=batch",
            "--audit-log-batch-buffer-size=7",
            "--audit-log-batch-max-size=3",
            "--audit-log-batch-max-wait=2s",
            "--audit-log-batch-throttle-enable=true",
            "--audit-log-batch-throttle-qps=0.5",
            "--audit-log-batch-throttle-burst=2",
            "--audit-log-truncate-enabled",
            "--audit-log-truncate-max-batch-size=2000",
            "--audit-log-truncate-max-event-size=1000",
            "--audit-webhook-initial-backoff=1m",
            "--audit-webhook-batch-throttle-enable=false",
            "--audit-webhook-truncate-enabled=true",
        ])
        .unwrap();
        let (log, webhook) = (audit.log.unwrap(), audit.webhook.unwrap());
        let throttle = Some(AuditThrottle { qps: 0.5, burst: 2 });
        let max_wait = Duration::from_secs(2);
        assert_eq!(log.batch, AuditBatch { buffer_events: 7, max_events: 3, max_wait, throttle });
        assert_eq!(log.truncate, Some(AuditTruncate { max_event_bytes: 1000, max_batch_bytes: 2000 }));
        assert_eq!((log.format, log.mode, log.compress), (AuditFormat::Legacy, AuditMode::Batch, true));
        assert_eq!((webhook.batch.throttle, webhook.initial_backoff), (None, Duration::from_secs(60)));
        assert_eq!(webhook.truncate, Some(AuditTruncate::default()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_upstreams_words() {
        for (flags, expected) in [
            (
                &["--audit-webhook-batch-buffer-size=0"][..],
                "invalid audit batch webhook buffer size 0, must be a positive number",
            ),
            (
                &["--audit-log-mode=batch", "--audit-log-batch-max-size=0"],
                "invalid audit batch log max batch size 0, must be a positive number",
            ),
            (
                &["--audit-log-mode=batch", "--audit-log-batch-throttle-enable"],
                "invalid audit batch log throttle QPS 0, must be a positive number",
            ),
            (
                &["--audit-log-truncate-max-event-size=0"],
                "invalid audit truncate log max event size 0, must be a positive number",
            ),
            (
                &["--audit-log-truncate-max-batch-size=1"],
                "invalid audit truncate log max batch size 1, must be greater than max event size (102400)",
            ),
            (&["--audit-log-format=xml"], "invalid audit log format xml, allowed formats are \"legacy,json\""),
            (&["--audit-log-version=audit.k8s.io/v1beta1"], "invalid group version, allowed versions are"),
        ] {
            let error = audit(flags).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        // What is not used is not looked at.
        audit(&["--audit-log-batch-buffer-size=0"]).unwrap();
    }
}
