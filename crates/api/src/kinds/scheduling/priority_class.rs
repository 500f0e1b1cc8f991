//! PriorityClass

use serde_json::{Value, json};

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::set_str;
use crate::kinds::print::{age, count, or};
use crate::status::FieldError;
use crate::validation::{View, immutable, required_one_of};

/// The highest value that a user may give.
const MAX_USER_VALUE: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub(crate) fn kind() -> Kind {
    Kind::cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", &PriorityClass).short("pc").columns(
        vec![
            Column::integer("Value", "The priority of its pods.", |object, _| count(&object["value"])),
            Column::string("Global-Default", "Whether pods that name no class get it.", |object, _| {
                json!(object["globalDefault"] == true)
            })
            .typed("boolean"),
            age(),
            Column::string("PreemptionPolicy", "Whether its pods push others out.", |object, _| {
                or(&object["preemptionPolicy"], "")
            }),
        ],
    )
}

#[derive(Debug)]
struct PriorityClass;

impl Strategy for PriorityClass {
    fn kept(&self, name: &str) -> Option<&'static str> {
        let system = SYSTEM.iter().any(|(known, _)| *known == name);
        system.then_some("this is a system priority class and cannot be deleted")
    }

    fn default(&self, object: &mut Value) {
        if let Some(object) = object.as_object_mut() {
            set_str(object, "preemptionPolicy", "PreemptLowerPriority");
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let metadata = root.get("metadata");
        let (name, value) = (metadata.get("name"), root.get("value"));
        if name.str().starts_with("system-") {
            let known = SYSTEM.iter().find(|(known, _)| *known == name.str());
            let why = match known {
                None => Some(format!("{} is not a known system priority class", name.str())),
                Some((_, wanted)) if value.int() != Some(*wanted) => {
                    Some(format!("value of {} PriorityClass must be {wanted}", name.str()))
                }
                Some(_) if object["globalDefault"] == true => {
                    Some(format!("globalDefault of {} PriorityClass must be false", name.str()))
                }
                Some(_) => None,
            };
            if let Some(why) = why {
                let head = "priority class names with 'system-' prefix are reserved for system use only. error: ";
                errors.push(name.forbidden(&format!("{head}{why}")));
            }
        } else if value.int().is_some_and(|n| n > MAX_USER_VALUE) {
            let detail = format!("maximum allowed value of a user defined priority is {MAX_USER_VALUE}");
            errors.push(value.forbidden(&detail));
        }
        required_one_of(root.get("preemptionPolicy"), &["Never", "PreemptLowerPriority"], &mut errors);
        if let Write::Update(old) = write {
            if value.int().unwrap_or(0) != old["value"].as_i64().unwrap_or(0) {
                errors.push(value.forbidden("may not be changed in an update."));
            }
            immutable(root.get("preemptionPolicy"), &old["preemptionPolicy"], &mut errors);
        }
        errors
    }
}
