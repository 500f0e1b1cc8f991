//! ResourceSlice: devices that a driver offers, on a node or beside them.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::{GROUP, driver_name, label, pool_name, qualified_name, set, text};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::gates::{Field, drop_unused};
use crate::kinds::mutate::{Rules, prepare};
use crate::kinds::pod_spec::validate_node_selector;
use crate::kinds::print::{age, or};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, immutable, names};

const MAX_DEVICES: usize = 128;
const MAX_ATTRIBUTES_AND_CAPACITIES: usize = 32;
const MAX_ATTRIBUTE_BYTES: usize = 64;
const WHERE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
/// Fields behind features that are off: devices cut in parts, taints, conditions before binding, shares of a device's
/// capacity.
const GATED: [&[Field]; 4] = [
    &[
        &["spec", "sharedCounters"],
        &["spec", "perDeviceNodeSelection"],
        &["spec", "devices", "consumesCounters"],
        &["spec", "devices", "nodeName"],
        &["spec", "devices", "nodeSelector"],
        &["spec", "devices", "allNodes"],
    ],
    &[&["spec", "devices", "taints"]],
    &[
        &["spec", "devices", "bindsToNode"],
        &["spec", "devices", "bindingConditions"],
        &["spec", "devices", "bindingFailureConditions"],
    ],
    &[&["spec", "devices", "allowMultipleAllocations"], &["spec", "devices", "capacity", "*", "requestPolicy"]],
];
const NUMBER: &str = r"(0|[1-9]\d*)";
const PRERELEASE: &str = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)";

/// A version as semver.org has it.
static VERSION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let build = "[0-9a-zA-Z-]+";
    let pattern = format!(r"\A{NUMBER}\.{NUMBER}\.{NUMBER}(-{PRERELEASE}(\.{PRERELEASE})*)?(\+{build}(\.{build})*)?\z");
    Regex::new(&pattern.replace(r"\d", "[0-9]")).ok()
});

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "ResourceSlice", "resourceslices", &ResourceSlice)
        .returns_deleted()
        .select("spec.nodeName", |object| Cow::Borrowed(text(&object["spec"], "nodeName")))
        .select("spec.driver", |object| Cow::Borrowed(text(&object["spec"], "driver")))
        .columns(vec![
            Column::string("Node", "The node that the devices are on.", |object, _| {
                or(&object["spec"]["nodeName"], "")
            }),
            Column::string("Driver", "Whose devices they are.", |object, _| or(&object["spec"]["driver"], "")),
            Column::string("Pool", "The pool that they are part of.", |object, _| {
                or(&object["spec"]["pool"]["name"], "")
            }),
            age(),
        ])
}

#[derive(Debug)]
struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        let old = if let Write::Update(old) = write { Some(old) } else { None };
        drop_unused(object, old, &GATED);
        prepare(object, write, Rules { generation: true, create_with_status: false });
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        let (driver, pool, node) = (spec.get("driver"), spec.get("pool"), spec.get("nodeName"));
        driver_name(driver, &mut errors);
        validate_pool(pool, &mut errors);
        if let Write::Update(old) = write {
            immutable(pool.get("name"), &old["spec"]["pool"]["name"], &mut errors);
            immutable(driver, &old["spec"]["driver"], &mut errors);
            immutable(node, &old["spec"]["nodeName"], &mut errors);
        }
        validate_place(spec, &mut errors);
        set(spec.get("devices"), MAX_DEVICES, &mut errors, |one| text(one, "name").to_owned(), validate_device);
        errors
    }
}

fn validate_pool(pool: View, errors: &mut Errors) {
    pool_name(pool.get("name"), errors);
    let number = |field| pool.value[field].as_i64().unwrap_or(0);
    let (count, generation) = (number("resourceSliceCount"), number("generation"));
    if count <= 0 {
        let field = pool.get("resourceSliceCount").path();
        errors.push(FieldError::invalid(field, count, "must be greater than zero"));
    }
    if generation < 0 {
        let field = pool.get("generation").path();
        errors.push(FieldError::invalid(field, generation, "must be greater than or equal to zero"));
    }
}

/// Which nodes have the devices.
fn validate_place(spec: View, errors: &mut Errors) {
    let mut places = Vec::new();
    let (node, selector, all) = (spec.get("nodeName"), spec.get("nodeSelector"), spec.get("allNodes"));
    if node.is_set() {
        if node.is_empty() {
            errors.push(node.invalid("must be either unset or set to a non-empty string"));
        } else {
            places.push("`nodeName`");
            checked(node, names::subdomain, errors);
        }
    }
    if selector.is_set() {
        places.push("`nodeSelector`");
        validate_node_selector(selector, errors);
        let terms = selector.get("nodeSelectorTerms");
        if terms.len() != 1 {
            errors.push(terms.invalid("must have exactly one node selector term"));
        }
    }
    if all.is_set() {
        if all.bool() {
            places.push("`allNodes`");
        } else {
            errors.push(all.invalid("must be either unset or set to true"));
        }
    }
    match places.len() {
        0 => errors.push(spec.required(WHERE)),
        1 => {}
        _ => {
            let detail = format!("{WHERE}, but multiple fields are set");
            errors.push(FieldError::invalid(spec.path(), format!("{{{}}}", places.join(", ")), &detail));
        }
    }
}

fn validate_device(device: View, errors: &mut Errors) {
    label(device.get("name"), errors);
    let (attributes, capacity) = (device.get("attributes"), device.get("capacity"));
    let count = attributes.len() + capacity.len();
    if count > MAX_ATTRIBUTES_AND_CAPACITIES {
        let detail =
            format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES_AND_CAPACITIES}");
        errors.push(FieldError::invalid(device.path(), count, &detail));
    }
    for (name, attribute) in attributes.entries() {
        qualified_name(name, attributes, errors);
        validate_attribute(attribute, errors);
    }
    for (name, _) in capacity.entries() {
        qualified_name(name, capacity, errors);
    }
}

fn validate_attribute(attribute: View, errors: &mut Errors) {
    let (string, version) = (attribute.get("string"), attribute.get("version"));
    if string.len() > MAX_ATTRIBUTE_BYTES {
        errors.push(string.too_long(MAX_ATTRIBUTE_BYTES));
    }
    if version.is_set() {
        if !VERSION.as_ref().is_some_and(|shape| shape.is_match(version.str())) {
            errors.push(version.invalid_str("must be a string compatible with semver.org spec 2.0.0"));
        }
        if version.len() > MAX_ATTRIBUTE_BYTES {
            errors.push(version.too_long(MAX_ATTRIBUTE_BYTES));
        }
    }
    let one = "exactly one value must be specified";
    match ["bool", "int", "string", "version"].iter().filter(|field| attribute.get(field).is_set()).count() {
        0 => errors.push(FieldError::invalid(attribute.path(), "", one)),
        1 => {}
        _ => errors.push(attribute.invalid(one)),
    }
}
