//! The gRPC services: CRI's two and our own for loading images. They translate; what is done is done elsewhere.

pub(crate) mod image;
pub(crate) mod loading;
pub(crate) mod runtime;

use std::{collections::HashMap, future::Future};

use tonic::Status;

use crate::Error;

/// Runs `work` to its end even if the caller goes away: half a sandbox helps nobody.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome.map_err(Status::from),
        Err(error) => Err(Status::internal(format!("an operation was aborted: {error}"))),
    }
}

/// Whether `labels` has every pair of `selector`.
fn matches_labels(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
