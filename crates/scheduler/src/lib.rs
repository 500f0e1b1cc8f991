//! The scheduler: gives every pod that has none a node.
//!
//! Upstream's framework by its own names: a queue with back-off whose pods are woken by the events that can help them,
//! a cycle of PreEnqueue, PreFilter, Filter, Score and NormalizeScore over plugins, and an asynchronous Bind. The cycle
//! ([`cycle`]) is pure: it sees compact records of nodes and pods ([`node`], [`pod`]), kept up to date by events, never API
//! objects. Only [`run`] talks to the API.
//!
//! Extension points appear with the first plugin that needs them: Reserve, Permit and PreBind come with volumes,
//! PostFilter with preemption.

#![forbid(unsafe_code)]

pub mod cache;
pub mod cycle;
pub mod framework;
pub mod node;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod resources;

mod run;
#[cfg(test)]
mod testing;

pub use run::{Config, Error, run};
