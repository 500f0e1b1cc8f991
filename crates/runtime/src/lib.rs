//! Keelson's container runtime: a CRI v1 server on `libcontainer`, with its own image store, one small shim process per
//! pod sandbox, and a streaming server on loopback.
//!
//! Three kinds of process live here. [`run`] is the server, inside whoever composes it. [`shim_main`] is the entry of
//! the processes the server starts from [`Config::exe`]: the shim of a sandbox (single-threaded, outlives the server)
//! and its short-lived helpers that call `libcontainer`. [`client`] is for programs that load images into a running
//! server.

#![deny(unsafe_code)] // `shim::pidfd` and `shim::sys` are the exceptions and have their reasons.

mod cdi;
mod cgroup;
pub mod client;
mod cni;
mod config;
mod container;
mod core;
mod disk;
mod error;
mod exec;
mod handlers;
mod huge_pages;
mod idmap;
mod image;
mod info;
mod machine;
mod metrics;
mod mounts;
mod namespaces;
mod oci;
mod processes;
mod records;
mod recovery;
mod refusals;
mod resources;
mod sandbox;
mod server;
mod service;
mod shim;
mod shim_client;
mod stats;
mod status;
mod streaming;
mod user;
mod userns;
mod witness;

pub use config::{Config, LOCAL_IMAGE_DOMAIN};
pub use error::Error;
pub use handlers::{Handler, Settings};
pub use image::local::{Documents, LocalImages, MANIFEST_TYPE};
pub use server::run;
pub use shim::shim_main;
