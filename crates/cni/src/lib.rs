//! `keelson-cni`: a Container Network Interface plugin (specification 1.1.0) that joins pods of one node to a Linux
//! bridge, with its own address management and host ports.
//!
//! The binary calls [`main`] when it is invoked as `keelson-cni`; a runtime executes it with the request in environment
//! variables and standard input. The process runs in the *node's* network namespace, the pod's comes in `CNI_NETNS`.
//! Everything goes over netlink: no other program is started.
//!
//! A configuration of type `loopback` is served too: containerd asks for it (Keelson's own runtime brings `lo` up itself).
//!
//! What is deliberately absent: masquerading towards the outside (the cluster's namespaces have no route out) and overlays
//! between nodes (`keelson-proxy` keeps plain routes).

#![forbid(unsafe_code)]

mod conf;
mod error;
mod ipam;
mod link;
mod loopback;
mod ops;
mod ports;
mod request;
mod result;

pub use conf::{ConflistOptions, NetConf, conflist};
pub use error::{CniError, code};
pub use ipam::{Ipam, Reservation};
pub use request::{Command, Request};

/// Versions of the CNI specification this plugin answers in, oldest first.
pub const SUPPORTED_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Serves one CNI call: `env` looks up the `CNI_*` variables, `stdin` is the network configuration. Returns what goes to
/// standard output (JSON: a result, an error, or nothing) and the exit code of the process.
///
/// Builds its own single-threaded tokio runtime, so it must not be called from within one; see [`serve`] for that.
pub fn main(env: impl Fn(&str) -> Option<String>, stdin: &[u8]) -> (String, i32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let version = conf::answer_version(stdin);
    match runtime {
        Ok(runtime) => runtime.block_on(serve(env, stdin)),
        Err(e) => (CniError::new(code::IO, "cannot start the plugin", e.to_string()).to_json(&version), 1),
    }
}

/// [`main`] for callers that are inside a tokio runtime already. Netlink sockets are opened in the calling thread's
/// network namespace.
pub async fn serve(env: impl Fn(&str) -> Option<String>, stdin: &[u8]) -> (String, i32) {
    let version = conf::answer_version(stdin);
    let outcome = match Request::parse(env) {
        Ok(request) => ops::dispatch(&request, stdin).await,
        Err(e) => Err(e),
    };
    match outcome {
        Ok(stdout) => (stdout, 0),
        Err(e) => (e.to_json(&version), 1),
    }
}
