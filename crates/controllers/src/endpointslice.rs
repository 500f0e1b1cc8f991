//! EndpointSlices: which addresses answer for a Service. The node parts (`proxy`, `dns`) read nothing else.

pub mod plan;
mod ports;
mod run;

pub(crate) use ports::{Port, pod_ports};
pub use run::run;
pub(crate) use run::{selector, selects, services_of_change};
