//! HTTP: bodies, paths, queries, content negotiation, replies and their presentation, the TLS
//! listener.

pub(crate) mod body;
pub(crate) mod listen;
pub(crate) mod negotiate;
pub(crate) mod path;
pub(crate) mod present;
pub(crate) mod query;
pub(crate) mod reply;
