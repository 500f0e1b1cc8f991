//! Byte streams for exec, attach and port-forward, on both sides of the API server, the kubelet and the runtime.
//!
//! - [`upgrade`]: which protocol a request asks for, and the answer that switches to it.
//! - [`remotecommand`]: stdin, stdout, stderr, status and terminal size, whatever carries them.
//! - [`portforward`]: connections to ports of a pod.
//! - [`proxy`]: passing an upgraded connection through without looking inside.
//! - [`idle`]: connections that may not be still for too long.
//! - [`spdy`], [`websocket`]: what carries the bytes.

#![forbid(unsafe_code)]

pub mod idle;
pub mod portforward;
pub mod proxy;
pub mod remotecommand;
pub mod spdy;
pub mod upgrade;
pub mod websocket;

use std::{io, pin::Pin};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};

/// Something to read from; ends when the other side ends it.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
/// Something to write to; dropping it ends it properly.
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// What can go wrong before streams exist, and on them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backend answered something else than a switch of protocols.
    #[error("the backend answered {status} instead of switching protocols: {message}")]
    NotUpgraded { status: StatusCode, message: String },
    #[error("cannot send the request to the backend: {0}")]
    Http(#[from] hyper::Error),
    /// The peer does not keep to the protocol, or not in time.
    #[error("{0}")]
    Protocol(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}
