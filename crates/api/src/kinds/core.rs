//! The core group, `v1`.

use crate::kind::{Kind, Verb};

mod binding;
mod component_status;
mod config_map;
mod endpoints;
mod event;
mod limit_range;
mod namespace;
mod node;
mod persistent_volume;
pub(super) mod persistent_volume_claim;
mod pod;
mod pod_template;
mod replication_controller;
mod resource_quota;
mod secret;
mod service;
mod service_account;
mod storage;
#[cfg(test)]
mod tests;

pub(super) use config_map::decoded_len;
pub(super) use endpoints::special_address;
pub(super) use event::{columns as event_columns, validate_new as validate_new_event};
pub(super) use persistent_volume::validate_inline as validate_inline_volume;
pub use pod::bind;
pub(super) use pod::{template_warnings, workload_warnings};
pub(super) use replication_controller::replica_columns;

const PROXY_VERBS: [Verb; 5] = [Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];

pub(super) fn all() -> Vec<Kind> {
    vec![
        binding::kind(),
        component_status::kind(),
        config_map::kind(),
        endpoints::kind(),
        event::kind(),
        limit_range::kind(),
        namespace::kind(),
        node::kind(),
        persistent_volume_claim::kind(),
        persistent_volume::kind(),
        pod::kind(),
        pod_template::kind(),
        replication_controller::kind(),
        resource_quota::kind(),
        secret::kind(),
        service_account::kind(),
        service::kind(),
    ]
}
