//! Keelson's container runtime: a CRI v1 server on `libcontainer`, with its own image store, one small shim process per
//! pod sandbox, and a streaming server on loopback.
//!
//! Three kinds of process live here. [`run`] is the server, inside whoever composes it. [`shim_main`] is the entry of
//! the processes the server starts from [`Config::exe`]: the shim of a sandbox (single-threaded, outlives the server)
//! and its short-lived helpers that call `libcontainer`. [`client`] is for programs that load images into a running
//! server.

#![forbid(unsafe_code)]

pub mod client;
mod config;
mod error;
mod server;
mod shim;

pub use config::{Config, LOCAL_IMAGE_DOMAIN};
pub use error::Error;
pub use server::run;
pub use shim::shim_main;
