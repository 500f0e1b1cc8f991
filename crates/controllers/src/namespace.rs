//! Deletion of namespaces: everything in them goes first, pods before the rest.

pub mod plan;
mod run;

pub use run::run;
