//! The pod spec: its defaults and rules, shared by pods and everything that holds a pod template.

mod containers;
pub(super) mod defaults;
mod env;
mod probes;
pub(super) use probes::port_or_name;
pub(super) mod resources;
mod scheduling;
mod security;
pub(super) mod validate;
mod volumes;
