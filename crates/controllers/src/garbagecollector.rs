//! The garbage collector: objects go with the last of their owners.
//!
//! A graph of owners and dependents is kept from metadata-only watches of every resource that can be deleted. It only
//! says whom to look at; before anything is deleted, the object and its owners are read from the server and compared by
//! uid.

pub mod graph;
mod plan;
mod run;
mod watch;

pub use run::run;
