//! IPAddress: an allocated address, named after itself.

use serde_json::Value;

use super::GROUP;
use crate::kind::{Column, Kind, NameRule, Strategy, Write};
use crate::kinds::prepare_plain;
use crate::kinds::print::NONE;
use crate::status::FieldError;
use crate::validation::{View, checked, immutable, names};

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "IPAddress", "ipaddresses", &IpAddress).short("ip").columns(vec![Column::string(
        "ParentRef",
        "What the address belongs to.",
        |object, _| parent(object).into(),
    )])
}

/// `services/default/kubernetes`
fn parent(object: &Value) -> String {
    let parent = &object["spec"]["parentRef"];
    if parent.is_null() {
        return NONE.into();
    }
    let text = |field: &str| parent[field].as_str().unwrap_or_default();
    let mut shown = text("resource").to_ascii_lowercase();
    if !text("group").is_empty() {
        shown = format!("{shown}.{}", text("group").to_ascii_lowercase());
    }
    if !text("namespace").is_empty() {
        shown = format!("{shown}/{}", text("namespace"));
    }
    format!("{shown}/{}", text("name"))
}

#[derive(Debug)]
struct IpAddress;

impl Strategy for IpAddress {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        let parent = spec.get("parentRef");
        if let Write::Update(old) = write {
            immutable(parent, &old["spec"]["parentRef"], &mut errors);
            return errors;
        }
        if !parent.is_set() {
            errors.push(parent.required(""));
            return errors;
        }
        let group = parent.get("group");
        if !group.is_empty() {
            checked(group, names::subdomain, &mut errors);
        }
        for (field, needed) in [("resource", true), ("name", true), ("namespace", false)] {
            let part = parent.get(field);
            if !part.is_empty() {
                checked(part, names::path_segment, &mut errors);
            } else if needed {
                errors.push(part.required(""));
            }
        }
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Ip
    }
}
