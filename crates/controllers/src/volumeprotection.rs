//! Claims, volumes and attributes classes that are being deleted go once nobody uses them: these controllers take away the finalizers with which
//! the API server made them.

mod plan;
mod run;

pub use run::{run_attributes_classes, run_claims, run_volumes};
