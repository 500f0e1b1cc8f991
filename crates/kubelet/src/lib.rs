//! The kubelet: makes the pods that the API server assigns to this node run, through the container runtime interface, and
//! tells the API server how they and the node are. It knows no runtime, no network plugin and no other component.
//!
//! Map: [`config`] what it is told; `pod` one task per pod (`plan` decides, purely; the executors act); `node` the Node
//! object and its heartbeats; `volumes` what is mounted into containers; `server` the HTTPS endpoints; `logs` the CRI log
//! files; `runtime` the CRI calls.

#![forbid(unsafe_code)]

pub mod config;
mod error;
#[allow(dead_code)] // The first slice; its callers come next.
mod runtime;

pub use config::{Config, EvictionThresholds};
pub use error::Error;

use tokio_util::sync::CancellationToken;

/// Runs the kubelet until `shutdown`. Containers go on after that.
pub async fn run(_client: kube::Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let runtime = runtime::Runtime::connect(
        &config.container_runtime_endpoint,
        config.runtime_request_timeout,
        config.image_pull_deadline,
    )?;
    tracing::info!(node = config.node_name, "kubelet starts");
    if let Err(error) = runtime.version().await {
        tracing::warn!(%error, "the container runtime does not answer yet");
    }
    shutdown.cancelled().await;
    Ok(())
}
