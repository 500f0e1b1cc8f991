//! ReplicaSets and ReplicationControllers: the right number of pods of one template. Both kinds are the same controller
//! over an [`Owner`], the plain values they have in common.

mod owner;
pub mod plan;
mod run;

pub(crate) use run::{BY_CONTROLLER, by_controller};
pub use run::{run_replicasets, run_replicationcontrollers};
