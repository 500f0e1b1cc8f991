//! Kubernetes' kinds as data, and everything that can be said about an object without doing IO: group/version/resource,
//! schema, metadata, selectors, quantities, patches, encodings, `Status` errors.

#![forbid(unsafe_code)]

pub mod kind;
pub mod kinds;
pub mod quantity;
pub mod status;
pub mod validation;
