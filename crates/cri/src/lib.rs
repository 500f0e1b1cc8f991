//! The Container Runtime Interface, v1: message types, gRPC client and server traits (from the `k8s-cri` crate), and how
//! to reach a runtime over its Unix socket. No behaviour lives here: the kubelet calls, the runtime answers. Beside it the
//! [`device_plugin`] interface, the kubelet's other gRPC over Unix sockets, and what both sides of CRI use: the [`mountinfo`]
//! table, and the [`steps`] that tests kill at.

pub mod device_plugin;
pub mod mountinfo;
pub mod pod_resources;
pub mod steps;

use std::path::{Path, PathBuf};

pub use k8s_cri::v1;

use k8s_cri::v1::{image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient};
use tonic::transport::{Channel, Endpoint, Uri};

/// gRPC message limit, in bytes, both ways; upstream's kubelet uses the same 16 MiB.
pub const MAX_MESSAGE_SIZE_BYTES: usize = 16 << 20;

/// What Keelson's own runtime calls itself.
pub const RUNTIME_NAME: &str = "keelson";
/// Annotation of a container by which the kubelet tells Keelson's own runtime the signal that asks the container to end, such
/// as `SIGUSR1`: what `ContainerConfig.stop_signal` is in CRI from v0.33 on, which `k8s-cri` does not have.
pub const STOP_SIGNAL: &str = "io.keelson.container.stop-signal";

/// The beginning of annotations of a container by which the kubelet tells Keelson's own runtime which path inside the image
/// is to be mounted; the rest is the mount's path in the container. What `Mount.image_sub_path` is in CRI from v0.33 on.
pub const IMAGE_SUB_PATH: &str = "io.keelson.container.image-sub-path.";

/// Why an endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Only `unix:///path` and plain absolute paths are endpoints on Linux.
    #[error("container runtime endpoint {0:?} is not supported: use unix:///path/to/socket")]
    Unsupported(String),
}

/// A runtime's two services over one lazily connected, self-reconnecting channel.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Sandboxes, containers, streaming, stats.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Images and the image filesystem.
    pub image: ImageServiceClient<Channel>,
}

/// Makes clients for `endpoint` (`unix:///run/containerd/containerd.sock` or a path). Nothing is dialled until the first
/// call, and a broken connection is dialled again by the next one.
pub fn connect(endpoint: &str) -> Result<Clients, EndpointError> {
    let channel = channel(socket_path(endpoint)?);
    Ok(Clients {
        runtime: RuntimeServiceClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_SIZE_BYTES),
        image: ImageServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_SIZE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_SIZE_BYTES),
    })
}

/// A channel to a Unix socket, dialled by the first call and again by the first after a break.
fn channel(path: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
    });
    // The authority is never resolved; the connector ignores it.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

/// The socket's path in `endpoint`.
pub fn socket_path(endpoint: &str) -> Result<PathBuf, EndpointError> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if Path::new(path).is_absolute() { Ok(path.into()) } else { Err(EndpointError::Unsupported(endpoint.into())) }
}

#[cfg(test)]
mod tests {
    use super::socket_path;

    #[test]
    fn endpoints() {
        for (endpoint, path) in [
            ("unix:///run/a.sock", Some("/run/a.sock")),
            ("/run/a.sock", Some("/run/a.sock")),
            ("tcp://127.0.0.1:1", None),
            ("npipe:////./pipe/a", None),
            ("", None),
        ] {
            assert_eq!(socket_path(endpoint).ok().as_deref(), path.map(std::path::Path::new), "{endpoint}");
        }
    }
}
