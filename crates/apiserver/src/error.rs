//! Why the server cannot start or go on. What a *request* fails with is always an [`keelson_api::status::Status`].

/// The server's own errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configured file cannot be read.
    #[error("{path}: {source}")]
    File { path: String, source: std::io::Error },
    /// A configured file says what it must not.
    #[error("{path}: {why}")]
    Configuration { path: String, why: String },
    /// A configured certificate or key makes no sense.
    #[error("{what}: {why}")]
    Credentials { what: &'static str, why: String },
    /// The encryption configuration cannot be used.
    #[error("{path}: {why}")]
    Encryption { path: String, why: String },
    /// The store failed while the caches were filled.
    #[error("loading the watch cache: {0}")]
    Store(#[from] keelson_store::Error),
    /// Objects that the server keeps by itself could not be written.
    #[error("creating {object}: {why}")]
    Bootstrap { object: String, why: String },
    /// The listening socket failed.
    #[error("listener: {0}")]
    Listener(#[source] std::io::Error),
}
