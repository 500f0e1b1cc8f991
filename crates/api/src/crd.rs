//! What a CustomResourceDefinition says about its objects, apart from how they are served: structural schemas, defaults,
//! validation, and the [`Kind`](crate::kind::Kind)s that it brings.
//!
//! - [`node`]: a schema, compiled once per version of a CRD
//! - [`structure`]: the same as the [`Schema`](crate::schema::Schema) that pruning and server-side apply read
//! - [`defaults`], [`value`], [`lists`], [`embedded`]: what is done to objects and demanded of them
//! - [`rules`], [`structural`]: what is demanded of schemas
//! - [`custom`]: definitions as kinds

mod custom;
mod defaults;
mod embedded;
mod format;
mod lists;
mod node;
mod publish;
pub(crate) mod rules;
mod structural;
mod structure;
#[cfg(test)]
mod tests;
mod value;

pub use custom::{Custom, Definition, Version, compare_versions, kinds};
pub use node::{Additional, Checks, JsonType, Node};
