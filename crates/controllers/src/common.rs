//! What several controllers share: reading objects, owner references, selectors, minimal writes.

pub(crate) mod discovery;
pub(crate) mod expectations;
pub(crate) mod intstr;
pub(crate) mod objects;
pub(crate) mod owners;
pub(crate) mod patch;
pub(crate) mod pods;
pub(crate) mod slim;
