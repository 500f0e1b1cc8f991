//! The controller manager: the loops that make what is out of what was asked for.
//!
//! Each controller is a folder: `plan` decides (pure: observed state in, actions out), `run` observes and acts. All of
//! them read the same shared informers, are level-triggered, and write only differences, as merge patches that carry the
//! resource version they were made from. [`run`] takes the lease and runs them until told to stop.

#![forbid(unsafe_code)]

mod common;
mod config;
mod context;
mod manager;

pub mod bootstraptokens;
pub mod certificates;
pub mod deployment;
pub mod endpoints;
pub mod endpointslice;
pub mod garbagecollector;
pub mod namespace;
pub mod nodeipam;
pub mod nodelifecycle;
pub mod podgc;
pub mod replicaset;
pub mod resourcequota;
pub mod rootca;
pub mod serviceaccount;
pub mod serviceaccounttoken;
pub mod tainteviction;
pub mod volumeprotection;

pub use config::{Config, Hidden};
pub use manager::{CONTROLLERS, Error, run};
