//! ControllerRevision

use serde_json::{Value, json};

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::prepare_plain;
use crate::kinds::print::{NONE, age, count, items};
use crate::status::FieldError;
use crate::validation::{View, immutable, non_negative};

pub(crate) fn kind() -> Kind {
    Kind::namespaced("apps", "v1", "ControllerRevision", "controllerrevisions", &ControllerRevision).columns(vec![
        Column::string("Controller", "What owns it.", |object, _| controller(object)),
        Column::string("Revision", "Its place among its owner's revisions.", |object, _| count(&object["revision"])),
        age(),
    ])
}

fn controller(object: &Value) -> Value {
    let Some(owner) = items(&object["metadata"]["ownerReferences"]).find(|owner| owner["controller"] == true) else {
        return NONE.into();
    };
    let kind = owner["kind"].as_str().unwrap_or_default().to_ascii_lowercase();
    let name = owner["name"].as_str().unwrap_or_default();
    match owner["apiVersion"].as_str().unwrap_or_default().split_once('/') {
        Some((group, _)) => json!(format!("{kind}.{group}/{name}")),
        None => json!(format!("{kind}/{name}")),
    }
}

#[derive(Debug)]
struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        if !root.get("data").is_set() {
            errors.push(root.get("data").required("data is mandatory"));
        }
        non_negative(root.get("revision"), &mut errors);
        if let Write::Update(old) = write {
            immutable(root.get("data"), &old["data"], &mut errors);
        }
        errors
    }
}
