//! Deployments: roll from one ReplicaSet to the next, within what `maxSurge` and `maxUnavailable` allow.

pub mod plan;
mod revision;
mod rollout;
mod run;
mod status;

pub use run::run;
