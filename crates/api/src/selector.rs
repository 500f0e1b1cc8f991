//! Label and field selectors: from query strings, from `LabelSelector` JSON, and matching. Messages are upstream's.

mod fields;
mod labels;
mod parse;
#[cfg(test)]
mod tests;

pub use fields::{FieldRequirement, FieldSelector};
pub use labels::{LabelSelector, Labels, Operator, Requirement};

/// A selector that cannot be read. The text is upstream's; the API server wraps it into a 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);
