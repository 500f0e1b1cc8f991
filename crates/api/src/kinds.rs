//! The built-in kinds: one folder per API group, one file per kind, and the list of them all. A new kind is a new file
//! and a line in its group's list. What kinds share: `pod_spec` (pods and templates), `mutate` (filling in objects, what a
//! write does to status and generation), `print` (columns), `qos`. `testing` has the `check` functions of their tables.

use serde_json::Value;

use crate::kind::{Kind, Strategy, Write};

mod admission_registration;
mod api_registration;
pub mod apiextensions;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod events;
mod flow_control;
mod gates;
mod int_or_percent;
mod mutate;
mod networking;
mod node;
mod pod_spec;
mod policy;
mod print;
mod qos;
mod rbac;
mod resource;
mod scheduling;
mod storage;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod webhook_config;

pub use api_registration::{local_priority, local_services};
pub use certificates::{SubjectNames, parse_request, request_der, requested_groups, subject_names};
pub use core::bind;
pub use flow_control::{AUTO_UPDATE, mandatory as mandatory_flow_control, suggested as suggested_flow_control};
pub(crate) use pod_spec::resources::{is_extended, is_native, together};
pub use policy::eviction_rules;
pub use print::human_duration;
pub use qos::qos_class;

/// Every built-in kind, in discovery order.
pub fn all() -> Vec<Kind> {
    [
        core::all(),
        api_registration::all(),
        apps::all(),
        events::all(),
        authentication::all(),
        authorization::all(),
        autoscaling::all(),
        batch::all(),
        policy::all(),
        certificates::all(),
        networking::all(),
        rbac::all(),
        storage::all(),
        admission_registration::all(),
        scheduling::all(),
        apiextensions::all(),
        coordination::all(),
        node::all(),
        discovery::all(),
        flow_control::all(),
        resource::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Kinds that are only ever the body of a subresource (`TokenRequest`, `Eviction`, `Scale`). Their `resource` is empty;
/// they are here for their defaults and validation.
pub fn bodies() -> Vec<Kind> {
    [authentication::bodies(), policy::bodies(), autoscaling::bodies()].into_iter().flatten().collect()
}

/// The `Age` column of kinds that have no columns of their own.
pub(crate) fn age_column() -> crate::kind::Column {
    print::age()
}

/// A kind with nothing special about it.
#[derive(Debug)]
struct Plain;

impl Strategy for Plain {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }
}

/// The common part of [`crate::kind::Strategy::prepare`], for kinds with a status and a generation.
pub fn prepare(object: &mut Value, write: Write<'_>) {
    mutate::prepare(object, write, mutate::Rules { generation: true, create_with_status: false });
}

/// The same for kinds without a generation.
fn prepare_plain(object: &mut Value, write: Write<'_>) {
    mutate::prepare(object, write, mutate::Rules { generation: false, create_with_status: false });
}

/// Removes nulls from the maps under these keys.
fn drop_nulls(object: &mut Value, keys: &[&str]) {
    for key in keys {
        if let Some(map) = object.get_mut(*key).and_then(Value::as_object_mut) {
            map.retain(|_, value| !value.is_null());
        }
    }
}
