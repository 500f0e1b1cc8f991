//! Pods nobody else removes: of nodes that are gone, deleted before they were placed, and finished ones beyond a number.

pub mod plan;
mod run;

pub use run::run;
