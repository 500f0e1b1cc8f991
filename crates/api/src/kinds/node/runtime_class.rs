//! RuntimeClass

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::pod_spec::{resources, scheduling};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, or};
use crate::status::FieldError;
use crate::validation::{View, checked, immutable, labels, names};

pub(crate) fn kind() -> Kind {
    Kind::cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", &RuntimeClass).columns(vec![
        Column::string("Handler", "The name by which the container runtime knows it.", |object, _| {
            or(&object["handler"], "")
        }),
        age(),
    ])
}

#[derive(Debug)]
struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let handler = root.get("handler");
        checked(handler, names::label, &mut errors);
        if root.get("overhead").is_set() {
            // Upstream checks it as the limits of a container, and reports it so.
            let limits = json!({"limits": object["overhead"]["podFixed"]});
            resources::requirements(View::at("overhead", &limits), &HashSet::new(), &mut errors);
        }
        let rules = root.get("scheduling");
        labels::validate(rules.get("nodeSelector"), &mut errors);
        scheduling::tolerations(rules.get("tolerations"), &mut errors);
        if let Write::Update(old) = write {
            immutable(handler, &old["handler"], &mut errors);
        }
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}
