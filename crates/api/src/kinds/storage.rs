//! `storage.k8s.io/v1`, and the rules its kinds share.

use serde_json::Value;

use crate::kind::{Column, Kind};
use crate::status::FieldError;
use crate::validation::{Errors, View, names};

mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod storage_class;
#[cfg(test)]
mod tests;
mod volume_attachment;
mod volume_attributes_class;

const GROUP: &str = "storage.k8s.io";
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_BYTES: usize = 256 * 1024;
const MAX_DRIVER_NAME_BYTES: usize = 63;

pub(super) fn all() -> Vec<Kind> {
    vec![
        csi_driver::kind(),
        csi_node::kind(),
        csi_storage_capacity::kind(),
        storage_class::kind(),
        volume_attachment::kind(),
        volume_attributes_class::kind(),
    ]
}

/// The name of a CSI (or DRA) driver.
pub(crate) fn driver_name(view: View, errors: &mut Errors) {
    if view.is_empty() {
        errors.push(view.required(""));
    }
    if view.len() > MAX_DRIVER_NAME_BYTES {
        errors.push(view.too_long(MAX_DRIVER_NAME_BYTES));
    }
    let complaints = names::subdomain(&view.str().to_ascii_lowercase());
    errors.extend(complaints.iter().map(|complaint| view.invalid_str(complaint)));
}

/// Who provisions: a qualified name, upper case let through.
fn provisioner(view: View, errors: &mut Errors) {
    if view.is_empty() {
        errors.push(view.required(""));
        return;
    }
    let name = view.str().to_ascii_lowercase();
    let complaints = names::qualified(&name);
    errors.extend(complaints.iter().map(|complaint| FieldError::invalid(view.path(), name.as_str(), complaint)));
}

/// Settings for the driver.
fn parameters(view: View, errors: &mut Errors) {
    if view.len() > MAX_PARAMETERS {
        errors.push(view.too_long(MAX_PARAMETERS));
        return;
    }
    let mut total = 0;
    for (key, value) in view.entries() {
        if key.is_empty() {
            errors.push(FieldError::invalid(view.path(), key, "field can not be empty."));
        }
        total += key.len() + value.len();
    }
    if total > MAX_PARAMETERS_BYTES {
        errors.push(view.too_long(MAX_PARAMETERS_BYTES));
    }
}

/// The `Name` column of kinds of which one object can be the default, which an annotation says.
fn name_column(cell: fn(&Value, jiff::Timestamp) -> Value) -> Column {
    Column::string("Name", "Its name.", cell).format("name")
}

fn marked_name(object: &Value, annotations: &[&str]) -> Value {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let default = annotations.iter().any(|key| metadata["annotations"][*key] == "true");
    if default { format!("{name} (default)").into() } else { name.into() }
}
