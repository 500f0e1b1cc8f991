//! What every component needs to be a client of the API: shared informers, work queues, events, leader election, back-off
//! and the clock. Components get a `kube::Client` from outside, over TLS or straight into the API server in the same
//! process, and never know which.
//!
//! - [`InformerFactory`] and [`SharedInformer`]: one list and watch per kind and process, many readers.
//! - [`WorkQueue`]: which keys are to be worked on, each by one worker at a time.
//! - [`EventRecorder`]: what users see in `kubectl describe`.
//! - [`LeaderElector`]: one acting process of several.
//! - [`changes`]: files that change under us.
//! - [`tls`]: servers that nobody vouches for.
//! - [`connect`]: clients from kubeconfig files and from services in this process.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod changes;
pub mod clock;
pub mod connect;
pub mod events;
pub mod informer;
pub mod key;
pub mod leader;
mod metrics;
pub mod queue;
pub mod tls;

pub use backoff::Backoff;
pub use events::{EventRecorder, reference};
pub use informer::{Change, InformerFactory, SharedInformer, Subscription};
pub use key::Key;
pub use leader::LeaderElector;
pub use queue::{Item, WorkQueue, run_workers};

/// A request that is given up after `limit`: a connection may be dead without a sign of it.
///
/// # Errors
/// The request's, and [`kube::Error::Service`] when there is no answer in time.
pub async fn within<T>(
    limit: std::time::Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    let elapsed = |elapsed| Err(kube::Error::Service(Box::new(elapsed)));
    tokio::time::timeout(limit, request).await.unwrap_or_else(elapsed)
}

/// Whether the API server answered 404 (the object, not the server, is missing).
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether a write lost against another one (409 with reason `Conflict`).
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason != "AlreadyExists")
}

/// Whether a create found its name taken (409 with reason `AlreadyExists`).
pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// Whether a create was refused because its namespace is being deleted (403 with cause `NamespaceTerminating`).
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403
        && status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating")))
}
