//! Node IPAM: a network for the pods of each node, out of the cluster's.

pub mod plan;
mod run;

pub use run::run;
