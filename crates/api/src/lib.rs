//! Kubernetes' kinds as data, and everything that can be said about an object without doing IO: group/version/resource,
//! schema, metadata, selectors, quantities, patches, encodings, `Status` errors.

#![forbid(unsafe_code)]

pub mod apply;
pub mod codec;
pub mod crd;
pub mod go_regex;
pub mod jsonpath;
pub mod kind;
pub mod kinds;
pub mod openapi;
pub mod patch;
pub mod placement;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod selector;
pub mod status;
pub mod time;
pub mod validation;
