//! Taint eviction: pods leave nodes whose `NoExecute` taints they do not tolerate, at once or after the seconds for which
//! they do.

pub mod plan;
mod run;

pub use run::run;
