//! ResourceClaim: what is wanted, and in its status what it got and who uses it.

use std::collections::HashSet;

use serde_json::Value;

use super::devices::{self, Requests};
use super::{GROUP, driver_name, label, pool_name, raw, set, slice, text};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::gates::{Field, drop_unused};
use crate::kinds::mutate::{child, keep_metadata};
use crate::kinds::pod_spec::validate_node_selector;
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, items};
use crate::status::FieldError;
use crate::validation::{Errors, View, conditions, immutable_as, names, required_one_of};

const MAX_CONSUMERS: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_CONDITIONS: usize = 8;
const MAX_IPS: usize = 16;
const MAX_INTERFACE_BYTES: usize = 256;
const MAX_HARDWARE_ADDRESS_BYTES: usize = 128;
/// The status' fields behind features that are off: taints, conditions before binding, shares of a device's capacity.
const GATED: [&[Field]; 3] = [
    &[&["status", "allocation", "devices", "results", "tolerations"]],
    &[
        &["status", "allocation", "devices", "results", "bindingConditions"],
        &["status", "allocation", "devices", "results", "bindingFailureConditions"],
        &["status", "allocation", "allocationTimestamp"],
    ],
    &[
        &["status", "allocation", "devices", "results", "shareID"],
        &["status", "allocation", "devices", "results", "consumedCapacity"],
        &["status", "devices", "shareID"],
    ],
];

pub(crate) fn kind() -> Kind {
    Kind::namespaced(GROUP, "v1", "ResourceClaim", "resourceclaims", &ResourceClaim)
        .with_status()
        .returns_deleted()
        .columns(vec![
            Column::string("State", "Whether it has devices, and whether they are in use.", |object, _| {
                state(object).into()
            }),
            age(),
        ])
}

/// `allocated,reserved`
fn state(object: &Value) -> String {
    let deleted = !object["metadata"]["deletionTimestamp"].is_null();
    let allocated = !object["status"]["allocation"].is_null();
    let reserved = items(&object["status"]["reservedFor"]).next().is_some();
    let states = [
        (deleted, "deleted"),
        (!allocated && !deleted, "pending"),
        (allocated, "allocated"),
        (allocated && reserved, "reserved"),
    ];
    states.iter().filter(|(holds, _)| *holds).map(|(_, state)| *state).collect::<Vec<_>>().join(",")
}

#[derive(Debug)]
struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.as_object_mut().and_then(|object| child(object, "spec")) {
            devices::default(spec);
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
        match write {
            Write::Create | Write::Update(_) => {
                let old = if let Write::Update(old) = write { old.get("spec") } else { None };
                if let Some(spec) = object.get_mut("spec") {
                    drop_unused(spec, old, &devices::GATED);
                }
            }
            Write::Subresource(_, old) => {
                keep_metadata(object, old);
                drop_unused(object, Some(old), &GATED);
                forget_deallocated(object, old);
            }
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        match write {
            Write::Create => devices::validate(root.get("spec"), &mut errors),
            Write::Update(old) => {
                immutable_as("api.resource.v1.ResourceClaimSpec", root.get("spec"), &old["spec"], &mut errors);
            }
            Write::Subresource(_, old) => {
                let deleted = !object["metadata"]["deletionTimestamp"].is_null();
                let known = Requests::of(&object["spec"]);
                validate_status(root.get("status"), &old["status"], deleted, &known, &mut errors);
            }
        }
        errors
    }
}

/// `driver/pool/device`
fn id(device: &Value) -> String {
    format!("{}/{}/{}", text(device, "driver"), text(device, "pool"), text(device, "device"))
}

fn allocated(object: &Value) -> HashSet<String> {
    items(&object["status"]["allocation"]["devices"]["results"]).map(id).collect()
}

/// Drops what drivers reported of devices that the claim has no longer.
fn forget_deallocated(object: &mut Value, old: &Value) {
    let now = allocated(object);
    let gone: HashSet<String> = allocated(old).into_iter().filter(|device| !now.contains(device)).collect();
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    if let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) {
        devices.retain(|device| !gone.contains(&id(device)));
        if devices.is_empty() {
            status.remove("devices");
        }
    }
}

fn validate_status(status: View, old: &Value, deleted: bool, known: &Requests<'_>, errors: &mut Errors) {
    let (consumers, allocation) = (status.get("reservedFor"), status.get("allocation"));
    set(
        consumers,
        MAX_CONSUMERS,
        errors,
        |one| text(one, "uid").to_owned(),
        |one, errors| {
            for field in ["resource", "name", "uid"] {
                if one.get(field).is_empty() {
                    errors.push(one.get(field).required(""));
                }
            }
        },
    );
    let allocated: HashSet<String> = items(&allocation.value["devices"]["results"]).map(id).collect();
    let devices = status.get("devices");
    devices.items().for_each(|device| validate_device(device, &allocated, errors));
    let mut seen = HashSet::new();
    for device in devices.items() {
        let id = id(device.value);
        if !seen.insert(id.clone()) {
            errors.push(shown_bare("FieldValueDuplicate", &device, format!("Duplicate value: {id}")));
        }
    }
    if !consumers.is_empty() {
        if !allocation.is_set() {
            errors.push(consumers.forbidden("may not be specified when `allocated` is not set"));
        } else if deleted && consumers.items().any(|one| !items(&old["reservedFor"]).any(|old| old == one.value)) {
            errors.push(consumers.forbidden(
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
            ));
        }
    }
    if !allocation.is_set() {
        return;
    }
    if old["allocation"].is_null() {
        validate_allocation(allocation, known, errors);
    } else {
        immutable_as("api.resource.v1.AllocationResult", allocation, &old["allocation"], errors);
    }
}

/// For values that upstream shows without quotes.
fn shown_bare(reason: &'static str, view: &View, message: String) -> FieldError {
    FieldError { reason, field: view.path(), message }
}

fn validate_device(device: View, allocated: &HashSet<String>, errors: &mut Errors) {
    driver_name(device.get("driver"), errors);
    pool_name(device.get("pool"), errors);
    label(device.get("device"), errors);
    let id = id(device.value);
    if !allocated.contains(&id) {
        let message = format!("Invalid value: {id}: must be an allocated device in the claim");
        errors.push(shown_bare("FieldValueInvalid", &device, message));
    }
    let reported = device.get("conditions");
    if reported.len() > MAX_CONDITIONS {
        errors.push(reported.too_many(MAX_CONDITIONS));
    }
    conditions::validate(reported, errors);
    if device.get("data").is_set() {
        raw(device.get("data"), errors);
    }
    let network = device.get("networkData");
    for (field, max) in [("interfaceName", MAX_INTERFACE_BYTES), ("hardwareAddress", MAX_HARDWARE_ADDRESS_BYTES)] {
        if network.get(field).len() > max {
            errors.push(network.get(field).too_long(max));
        }
    }
    let ip = |one: &Value| one.as_str().unwrap_or_default().to_owned();
    set(network.get("ips"), MAX_IPS, errors, ip, interface_address);
}

/// An address with the length of its network's prefix.
fn interface_address(address: View, errors: &mut Errors) {
    let Some((ip, bits)) = names::parse_cidr(address.str()) else {
        errors.push(address.invalid_str("must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"));
        return;
    };
    let canonical = format!("{ip}/{bits}");
    if address.str() != canonical {
        errors.push(address.invalid_str(&format!("must be in canonical form (\"{canonical}\")")));
    }
}

fn validate_allocation(allocation: View, known: &Requests<'_>, errors: &mut Errors) {
    let devices = allocation.get("devices");
    slice(devices.get("results"), MAX_RESULTS, errors, |result, errors| {
        known.reference(result.get("request"), errors);
        driver_name(result.get("driver"), errors);
        pool_name(result.get("pool"), errors);
        label(result.get("device"), errors);
    });
    slice(devices.get("config"), 2 * devices::MAX_CONFIG, errors, |config, errors| {
        required_one_of(config.get("source"), &["FromClaim", "FromClass"], errors);
        known.references(config.get("requests"), errors);
        devices::configuration(config, errors);
    });
    let selector = allocation.get("nodeSelector");
    if selector.is_set() {
        validate_node_selector(selector, errors);
    }
}
