//! ReplicaSets and ReplicationControllers: the right number of pods of one template. Both kinds are the same controller
//! over an [`Owner`], the plain values they have in common.

mod owner;
pub mod plan;
mod run;

pub use run::{BY_CONTROLLER, run_replicasets, run_replicationcontrollers};
