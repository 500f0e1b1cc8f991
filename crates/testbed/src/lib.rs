//! What tests and benchmarks start: images without a registry, clusters, clients.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod device_plugin;
pub mod git;
pub mod image;
pub mod logind;
