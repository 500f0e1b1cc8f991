//! Byte streams for exec, attach and port-forward: SPDY/3.1, and (to come) remotecommand and port-forward on it.

#![forbid(unsafe_code)]

pub mod spdy;
