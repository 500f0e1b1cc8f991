//! Quotas' status: what is enforced, and what is used of it. The API server charges what is created; here everything is
//! counted anew, which is how quotas begin, and how they learn of what went away.

mod plan;
mod run;
mod watch;

pub use run::run;
