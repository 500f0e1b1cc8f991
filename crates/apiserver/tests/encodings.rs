//! Encodings over HTTP. Kinds are found by discovery, so a new kind is covered by being served (and having a manifest).

#[path = "encodings/custom.rs"]
mod custom;
#[path = "encodings/every_kind.rs"]
mod every_kind;
#[path = "encodings/negotiation.rs"]
mod negotiation;
mod support;
#[path = "encodings/watches.rs"]
mod watches;
#[path = "encodings/wire.rs"]
mod wire;
