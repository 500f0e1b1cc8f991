//! etcd's errors as the store's. They are told apart by their texts, which are part of etcd's API.

use std::{future::Future, time::Duration};

use crate::Error;

/// How long etcd may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

const LEASE_LOST: &str = "requested lease not found";

/// A request with its time limit.
pub(super) async fn call<T>(
    what: &'static str,
    request: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(outcome) => outcome.map_err(|error| failed(what, &error)),
        Err(_) => Err(Error::Timeout { what: format!("etcd: {what}: no answer within {} s", TIMEOUT.as_secs()) }),
    }
}

/// An answer that etcd's API does not allow.
pub(super) fn unexpected(what: &str) -> Error {
    Error::Unreachable { what: format!("etcd: {what}: the answer makes no sense") }
}

pub(super) fn is_lease_lost(error: &Error) -> bool {
    matches!(error, Error::Unreachable { what } if what.contains(LEASE_LOST))
}

/// An error once more, for another who waited for the same answer.
pub(super) fn again(error: &Error) -> Error {
    match error {
        Error::Timeout { what } => Error::Timeout { what: what.clone() },
        Error::Io { context, source } => {
            Error::Io { context: context.clone(), source: std::io::Error::new(source.kind(), source.to_string()) }
        }
        error => Error::Unreachable { what: error.to_string() },
    }
}

/// Numbers are not in etcd's errors; who knows them puts them in.
fn failed(what: &str, error: &etcd_client::Error) -> Error {
    let text = match error {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        error => error.to_string(),
    };
    if text.contains("required revision has been compacted") {
        return Error::Compacted { requested: 0, oldest: 0 };
    }
    if text.contains("required revision is a future revision") {
        return Error::Future { requested: 0, newest: 0 };
    }
    if text.contains("request is too large") || text.contains("trying to send message larger than max") {
        return Error::TooLarge { what: text };
    }
    if text.contains("database space exceeded") {
        let source = std::io::Error::new(std::io::ErrorKind::StorageFull, text);
        return Error::Io { context: format!("etcd: {what}"), source };
    }
    if text.contains("request timed out") {
        return Error::Timeout { what: format!("etcd: {what}: {text}") };
    }
    Error::Unreachable { what: format!("etcd: {what}: {text}") }
}
