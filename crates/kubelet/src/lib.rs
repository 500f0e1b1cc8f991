//! The kubelet: makes the pods that the API server assigns to this node run, through the container runtime interface, and
//! tells the API server how they and the node are. It knows no runtime, no network plugin and no other component.
//!
//! Map: [`config`] what it is told; `pod` one task per pod (`plan` decides, purely; the executors act); `node` the Node
//! object and its heartbeats; `volumes` what is mounted into containers; `server` the HTTPS endpoints; `logs` the CRI log
//! files; `runtime` the CRI calls; `stats` what everything uses.

#![forbid(unsafe_code)]

mod admit;
pub mod certificates;
mod cgroup;
pub mod config;
mod context;
mod devices;
mod downward;
mod env;
mod error;
mod eviction;
mod expansion;
mod image_gc;
mod images;
mod logs;
mod manager;
mod managers;
mod metrics;
mod node;
mod node_shutdown;
mod objects;
mod pleg;
mod pod;
mod pod_resources;
mod preempt;
mod probe;
mod quantity;
mod resources;
mod rotation;
mod run;
mod runtime;
mod security;
mod server;
mod static_pods;
mod stats;
mod sysctl;
mod volumes;

pub use config::Config;
pub use error::Error;
pub use eviction::signal::{Amount, Signal, Thresholds};
pub use run::run;
