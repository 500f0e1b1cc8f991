//! The pod spec: its defaults and rules, shared by pods and everything that holds a pod template.

mod containers;
pub(super) mod defaults;
mod env;
mod probes;
pub(super) use probes::port_or_name;
pub(super) mod resources;
pub(super) mod scheduling;
pub(super) use scheduling::{node_selector as validate_node_selector, renamed_label, selector_label_warnings};
mod security;
pub(super) mod sources;
pub(super) mod validate;
mod volumes;
