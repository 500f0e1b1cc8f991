//! Clusters on one machine: the PKI, kubeconfig contexts, and nodes made of Linux namespaces. This is what stands behind
//! `keelson up`, `down`, `delete` and `status`. It never prints: progress goes to a callback, the CLI shows it.
//!
//! A **node** is one process, its `init` (PID 1 of the node's PID namespace), with network, mount, UTS, IPC and cgroup
//! namespaces of its own and a root of its own: programs come from the host by bind mounts, while `/var`, `/run`, `/tmp`,
//! `/opt` and changes to `/etc` are private, so every component finds upstream's usual paths and two clusters never meet.
//! The nodes' veths end on a bridge in a namespace that holds nothing else (the **fabric**). Nothing has a route out, and
//! the host's own network is not changed. The first node also runs the control plane; the API server's socket is bound on
//! the host's loopback before the node's network namespace is entered, and keeps answering there.
//!
//! Rejected: a supervisor on the host (one more process, and a second place that restarts things), and overlayfs over the
//! host's `/` (the kernel refuses an upper directory inside the lower one, and containers could not stack theirs on it).

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod fabric;
pub mod init;
pub mod kubeconfig;
pub mod layout;
pub mod lifecycle;
pub mod pki;
pub mod preflight;
pub mod process;

mod rootfs;

/// Why something about a local cluster failed, with what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or system call failed.
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// A file holds what it should not.
    #[error("{path}: {why}")]
    BadFile { path: String, why: String },
    /// Making keys or certificates failed.
    #[error("certificates: {0}")]
    Pki(#[from] rcgen::Error),
    /// Setting up links failed.
    #[error("network of node {node}: {why}")]
    Network { node: String, why: String },
    /// A value given by the user is not usable.
    #[error("{field}: {why}")]
    Invalid { field: &'static str, why: String },
    /// The machine lacks something.
    #[error("this machine cannot run a cluster yet: {0}")]
    Preflight(String),
    /// A node's init did not come up.
    #[error("node {node} did not start: {why}")]
    Node { node: String, why: String },
    /// Waiting took too long.
    #[error("timed out after {seconds} s waiting for {what}; see `keelson logs --profile {profile}`")]
    Timeout { what: String, seconds: u64, profile: String },
    /// No such cluster.
    #[error("there is no cluster named {profile:?} in {data_dir}; `keelson up --profile {profile}` makes one")]
    NoCluster { profile: String, data_dir: String },
    /// The API server answered with an error, or not at all.
    #[error("{what}: {why}")]
    Api { what: String, why: String },
}

/// This crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) trait Context<T> {
    /// Says what was being done when an IO error came.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source: source.into() })
    }
}
