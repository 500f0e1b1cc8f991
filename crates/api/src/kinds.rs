//! The built-in kinds: one folder per API group, one file per kind, and the list of them all.

use serde_json::Value;

use crate::kind::{Kind, Strategy, Write};

mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod coordination;
mod core;
mod discovery;
mod events;
mod policy;
mod rbac;
mod scheduling;

/// Every built-in kind, in discovery order.
pub fn all() -> Vec<Kind> {
    [
        core::all(),
        apps::all(),
        events::all(),
        authentication::all(),
        authorization::all(),
        rbac::all(),
        coordination::all(),
        discovery::all(),
        scheduling::all(),
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

/// A kind with nothing special about it.
#[derive(Debug)]
struct Plain;

impl Strategy for Plain {}

/// The common part of [`crate::kind::Strategy::prepare`].
pub fn prepare(object: &mut Value, write: Write<'_>) {
    let Some(map) = object.as_object_mut() else { return };
    match write {
        Write::Create => {
            map.remove("status");
            map["metadata"]["generation"] = 1.into();
        }
        Write::Update(old) => {
            match old.get("status") {
                Some(status) => map.insert("status".into(), status.clone()),
                None => map.remove("status"),
            };
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            let changed = map.get("spec") != old.get("spec");
            map["metadata"]["generation"] = (generation + i64::from(changed)).into();
        }
        Write::Subresource(_, old) => {
            let status = map.remove("status");
            let resource_version = map["metadata"]["resourceVersion"].take();
            let mut merged = old.clone();
            merged["metadata"]["resourceVersion"] = resource_version;
            if let (Some(merged), Some(status)) = (merged.as_object_mut(), status) {
                merged.insert("status".into(), status);
            }
            *object = merged;
        }
    }
}
