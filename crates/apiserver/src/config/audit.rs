//! What is written down of requests, and where.

use std::path::PathBuf;

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

/// Events as lines of JSON in a file.
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
    /// `--audit-log-mode`
    pub mode: AuditMode,
}

/// Events sent to a server.
#[derive(Clone, Debug)]
pub struct AuditWebhook {
    /// A kubeconfig file that says where it is and who calls.
    pub kubeconfig: PathBuf,
    /// `--audit-webhook-mode`
    pub mode: AuditMode,
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

impl std::str::FromStr for AuditMode {
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
