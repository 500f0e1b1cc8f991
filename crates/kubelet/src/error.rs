//! Why a kubelet stops, or what went wrong on the way to a pod.

use std::path::PathBuf;

/// The crate's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CRI endpoint cannot be used.
    #[error(transparent)]
    Endpoint(#[from] keelson_cri::EndpointError),
    /// The runtime refused a call. The text is gRPC's, as upstream prints it.
    #[error("rpc error: code = {} desc = {}", grpc_code(.0.code()), .0.message())]
    Cri(#[from] tonic::Status),
    /// The API server refused a call or cannot be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// A file operation failed.
    #[error("{context} {path}: {source}")]
    File {
        /// What was being done.
        context: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The serving certificate, its key or the client CA cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// The HTTPS server's address cannot be bound.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// A failure that is already worded for the user, as upstream words it.
    #[error("{0}")]
    Message(String),
}

impl Error {
    /// Wraps an IO error with what was done to which file.
    pub fn file(context: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { context, path, source }
    }

    /// Without what gRPC puts before the runtime's own words.
    pub fn words(&self) -> String {
        match self {
            Error::Cri(status) => status.message().to_string(),
            other => other.to_string(),
        }
    }

    /// An error in words.
    pub fn message(text: impl Into<String>) -> Error {
        Error::Message(text.into())
    }
}

/// gRPC's name of a code as Go's client prints it.
fn grpc_code(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
