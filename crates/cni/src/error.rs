//! CNI errors: what a failed call prints, with the codes of the specification.

use serde_json::json;

/// Error codes. Below 100 they are the specification's, from 100 on our own.
pub mod code {
    /// The configuration's `cniVersion` is not one we speak.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration has a value we do not support.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown: there is nothing to check.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A `CNI_*` variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// The configuration is not JSON of the expected shape.
    pub const DECODING: u32 = 6;
    /// The configuration is well-formed but cannot work.
    pub const INVALID_NETWORK_CONFIG: u32 = 7;
    /// `CNI_NETNS` is the namespace the plugin itself runs in.
    pub const INVALID_NETNS: u32 = 8;
    /// A passing shortage; the runtime may call again later.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// STATUS: the plugin cannot serve ADD.
    pub const NOT_AVAILABLE: u32 = 50;
    /// The kernel refused a change to the network.
    pub const NETLINK: u32 = 100;
    /// CHECK: the attachment is not what ADD made.
    pub const CHECK_FAILED: u32 = 101;
}

/// A failed call: the CNI code, what failed, and the underlying cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {details}")]
pub struct CniError {
    /// One of [`code`].
    pub code: u32,
    /// What failed, on which object.
    pub message: String,
    /// Why.
    pub details: String,
}

impl CniError {
    /// An error with `code`, saying what failed and why.
    pub fn new(code: u32, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: details.into() }
    }

    /// The specification's error object, in `version`.
    pub fn to_json(&self, version: &str) -> String {
        json!({ "cniVersion": version, "code": self.code, "msg": self.message, "details": self.details }).to_string()
    }
}

/// Names what an operation of the kernel or the file system was about.
pub(crate) trait Context<T> {
    /// Turns the error into a [`CniError`] with `code` and `message`.
    fn context(self, code: u32, message: impl FnOnce() -> String) -> Result<T, CniError>;
}

impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
    fn context(self, code: u32, message: impl FnOnce() -> String) -> Result<T, CniError> {
        self.map_err(|e| CniError::new(code, message(), e.to_string()))
    }
}
