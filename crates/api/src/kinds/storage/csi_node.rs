//! CSINode: the drivers on a node.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{GROUP, driver_name};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, items, size};
use crate::status::FieldError;
use crate::validation::{Errors, View, names, non_negative, same};

const MAX_NODE_ID_BYTES: usize = 256;

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "CSINode", "csinodes", &CsiNode).returns_deleted().columns(vec![
        Column::integer("Drivers", "How many drivers are on the node.", |object, _| {
            json!(size(&object["spec"]["drivers"]))
        }),
        age(),
    ])
}

#[derive(Debug)]
struct CsiNode;

impl Strategy for CsiNode {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        let drivers = spec.get("drivers");
        let mut seen = HashSet::new();
        for driver in drivers.items() {
            validate_driver(driver, &mut errors);
            let name = driver.get("name");
            if !seen.insert(name.str()) {
                errors.push(FieldError::duplicate(name.path(), name.str()));
            }
            validate_keys(driver, &mut errors);
        }
        if let Write::Update(old) = write {
            for old in items(&old["spec"]["drivers"]) {
                for new in drivers.items().filter(|new| new.value["name"] == old["name"]) {
                    let (new, old) = (fixed_part(new.value), fixed_part(old));
                    if !same(&new, &old) {
                        errors.push(FieldError::invalid(drivers.path(), new, "field is immutable"));
                    }
                }
            }
        }
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

/// All of a driver but how many volumes it takes, which may change.
fn fixed_part(driver: &Value) -> Value {
    let mut driver = driver.clone();
    if let Some(map) = driver.as_object_mut() {
        map.remove("allocatable");
    }
    driver
}

fn validate_driver(driver: View, errors: &mut Errors) {
    driver_name(driver.get("name"), errors);
    let id = driver.get("nodeID");
    if id.is_empty() {
        errors.push(id.required(""));
    }
    if id.len() > MAX_NODE_ID_BYTES {
        errors.push(id.invalid(&format!("must be {MAX_NODE_ID_BYTES} characters or less")));
    }
    non_negative(driver.get("allocatable").get("count"), errors);
}

/// `topologyKeys`, which upstream reports at the driver.
fn validate_keys(driver: View, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for key in driver.get("topologyKeys").items() {
        if key.is_empty() {
            errors.push(driver.required(""));
        }
        if !seen.insert(key.str()) {
            errors.push(FieldError::duplicate(driver.path(), key.str()));
        }
        let complaints = names::qualified(key.str());
        errors.extend(complaints.iter().map(|c| FieldError::invalid(driver.path(), key.str(), c)));
    }
}
