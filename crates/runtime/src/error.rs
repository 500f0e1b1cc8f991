//! The crate's error, and the one place that turns it into a gRPC status.

use std::path::PathBuf;

use tonic::{Code, Status};

/// Why an operation of the runtime failed. `Display` is what a kubelet's event shows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request names something impossible; retrying does not help.
    #[error("{0}")]
    Invalid(String),
    /// The object does not exist (`kind`, `id`).
    #[error("an error occurred when try to find {0} {1:?}: not found")]
    NotFound(&'static str, String),
    /// An image or a registry's answer about it does not exist.
    #[error("{0}")]
    ImageNotFound(String),
    /// The registry refused the credentials, or wants some.
    #[error("{0}")]
    Unauthorized(String),
    /// The object is not in a state that allows the operation.
    #[error("{0}")]
    Precondition(String),
    /// The request asks for something this runtime does not do.
    #[error("{0}")]
    Unsupported(String),
    /// A time limit passed.
    #[error("{0}")]
    Deadline(String),
    /// A limit on names, sessions or sizes was reached.
    #[error("{0}")]
    Exhausted(String),
    /// A network plugin failed.
    #[error("{0}")]
    Network(String),
    /// The shim of a sandbox, or the container's own start, reported an error.
    #[error("{0}")]
    Shim(String),
    /// A file or mount operation failed; `action` says which.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Anything else, already in words.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// For `map_err` on system calls: keeps what was done and where.
    pub(crate) fn io<E: Into<std::io::Error>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source: source.into() }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let code = match &error {
            Error::Invalid(_) => Code::InvalidArgument,
            Error::NotFound(..) | Error::ImageNotFound(_) => Code::NotFound,
            Error::Precondition(_) => Code::FailedPrecondition,
            Error::Unsupported(_) => Code::Unimplemented,
            Error::Deadline(_) => Code::DeadlineExceeded,
            Error::Exhausted(_) => Code::ResourceExhausted,
            Error::Unauthorized(_) | Error::Network(_) | Error::Shim(_) | Error::Io { .. } | Error::Other(_) => {
                Code::Unknown
            }
        };
        Status::new(code, error.to_string())
    }
}
