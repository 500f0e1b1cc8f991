//! The cloud controller manager: what a cluster asks of the place it runs in, behind the [`provider::LoadBalancers`]
//! trait, and the controller that asks ([`service`]). The [`local`] provider is the first: it publishes Services on the
//! loopback of the machine that a local cluster runs on.

#![forbid(unsafe_code)]

pub mod local;
pub mod provider;
pub mod service;

pub use service::{Config, run};
