//! Endpoints: the older, single-object form of EndpointSlices, kept for clients that still read it.

pub mod plan;
mod run;

pub use run::run;
