//! HTTP: bodies, paths, queries, content negotiation, the TLS listener.

pub(crate) mod body;
