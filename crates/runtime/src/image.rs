//! Images: names, manifests, a content-addressed store with layers unpacked once, archives, registries, built-in images.

pub(crate) mod archive;
pub(crate) mod builtin;
pub(crate) mod layer;
mod limits;
pub(crate) mod local;
pub(crate) mod manifest;
pub(crate) mod reference;
pub(crate) mod registry;
pub(crate) mod store;
mod turns;

pub(crate) use reference::Reference;
pub(crate) use store::{Image, Store};
