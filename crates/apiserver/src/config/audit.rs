//! What is written down of requests, and where.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Auditing (`--audit-policy-file`). Without a backend nothing is recorded.
#[derive(Clone, Debug)]
pub struct Audit {
    /// An `audit.k8s.io/v1 Policy`.
    pub policy: PathBuf,
    /// `--audit-log-path`
    pub log: Option<AuditLog>,
    /// `--audit-webhook-config-file`
    pub webhook: Option<AuditWebhook>,
}

/// Events as lines in a file.
#[derive(Clone, Debug)]
pub struct AuditLog {
    /// `-` is standard output.
    pub path: PathBuf,
    /// `--audit-log-maxsize`: a file that would grow beyond it is renamed, and a new one begun. 0: no limit.
    pub max_size_mib: u64,
    /// `--audit-log-maxbackup`: files kept besides the one that is written. 0: all.
    pub max_backups: usize,
    /// `--audit-log-maxage`: days after which such a file is removed. 0: never.
    pub max_age_days: u64,
    /// `--audit-log-compress`: such files are compressed with gzip.
    pub compress: bool,
    /// `--audit-log-format`
    pub format: AuditFormat,
    /// `--audit-log-mode`
    pub mode: AuditMode,
    /// In batch mode.
    pub batch: AuditBatch,
    /// `--audit-log-truncate-enabled`
    pub truncate: Option<AuditTruncate>,
}

impl AuditLog {
    /// A file that grows without end, with upstream's defaults for everything else.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            max_size_mib: 0,
            max_backups: 0,
            max_age_days: 0,
            compress: false,
            format: AuditFormat::Json,
            mode: AuditMode::Blocking,
            batch: AuditBatch::LOG,
            truncate: None,
        }
    }
}

/// Events sent to a server.
#[derive(Clone, Debug)]
pub struct AuditWebhook {
    /// A kubeconfig file that says where it is and who calls.
    pub kubeconfig: PathBuf,
    /// `--audit-webhook-initial-backoff`: how long after a first failure it is tried again.
    pub initial_backoff: Duration,
    /// `--audit-webhook-mode`
    pub mode: AuditMode,
    /// In batch mode.
    pub batch: AuditBatch,
    /// `--audit-webhook-truncate-enabled`
    pub truncate: Option<AuditTruncate>,
}

impl AuditWebhook {
    /// With upstream's defaults.
    pub fn new(kubeconfig: PathBuf) -> Self {
        let initial_backoff = Duration::from_secs(10);
        Self { kubeconfig, initial_backoff, mode: AuditMode::Batch, batch: AuditBatch::WEBHOOK, truncate: None }
    }
}

/// How events are put together that nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AuditBatch {
    /// `--audit-*-batch-buffer-size`: events that wait; more are lost.
    pub buffer_events: usize,
    /// `--audit-*-batch-max-size`: events that are handed on together.
    pub max_events: usize,
    /// `--audit-*-batch-max-wait`: how long an event waits for others.
    pub max_wait: Duration,
    /// `--audit-*-batch-throttle-enable`
    pub throttle: Option<AuditThrottle>,
}

impl AuditBatch {
    /// Upstream's for the log: events are handed on as they come.
    pub const LOG: Self = Self { buffer_events: 10_000, max_events: 1, max_wait: Duration::ZERO, throttle: None };
    /// Upstream's for the webhook.
    pub const WEBHOOK: Self = Self {
        buffer_events: 10_000,
        max_events: 400,
        max_wait: Duration::from_secs(30),
        throttle: Some(AuditThrottle { qps: 10.0, burst: 15 }),
    };
}

/// How many batches are handed on in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AuditThrottle {
    /// `--audit-*-batch-throttle-qps`
    pub qps: f32,
    /// `--audit-*-batch-throttle-burst`: as many at once, if there were fewer before.
    pub burst: u32,
}

/// What is too large loses its objects; what still is, is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditTruncate {
    /// `--audit-*-truncate-max-event-size`, of the event as JSON.
    pub max_event_bytes: usize,
    /// `--audit-*-truncate-max-batch-size`: bytes of events that are handed on together.
    pub max_batch_bytes: usize,
}

impl Default for AuditTruncate {
    fn default() -> Self {
        Self { max_event_bytes: 100 << 10, max_batch_bytes: 10 << 20 }
    }
}

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditFormat {
    /// A line of JSON.
    Json,
    /// A line of text, without objects and statuses.
    Legacy,
}

impl FromStr for AuditFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "legacy" => Ok(Self::Legacy),
            _ => Err(format!("invalid audit log format {text}, allowed formats are \"legacy,json\"")),
        }
    }
}

/// Whether a request waits for its events to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditMode {
    /// It does not; events that find the buffer full are lost.
    Batch,
    /// It waits, and goes on when they cannot be stored.
    Blocking,
    /// As `Blocking`, and it is refused when its first event cannot be stored.
    BlockingStrict,
}

impl FromStr for AuditMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "batch" => Ok(Self::Batch),
            "blocking" => Ok(Self::Blocking),
            "blocking-strict" => Ok(Self::BlockingStrict),
            _ => Err(format!("invalid audit mode {text}, allowed modes are \"batch,blocking,blocking-strict\"")),
        }
    }
}
