//! Node health: a node that no longer renews its Lease is unknown, its pods are not ready, and taints keep new pods away
//! and (through the taint eviction controller) move old ones.

pub mod plan;
mod run;
mod zones;

pub(crate) use run::BY_NODE;
pub use run::run;
