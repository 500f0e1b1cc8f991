//! What several controllers share: reading objects, owner references, selectors, minimal writes.

pub mod expectations;
pub mod intstr;
pub mod objects;
pub mod owners;
pub mod patch;
pub mod pods;
pub mod slim;
