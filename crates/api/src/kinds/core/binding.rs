//! Binding: a pod, put on a node by writing it.

use serde_json::Value;

use crate::kind::{Kind, Strategy, Verb, Write};
use crate::kinds::prepare_plain;
use crate::status::FieldError;
use crate::validation::{View, required};

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "Binding", "bindings", &Binding).verbs(&[Verb::Create])
}

#[derive(Debug)]
struct Binding;

impl Strategy for Binding {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let target = root.get("target");
        if !matches!(target.get("kind").str(), "" | "Node") {
            errors.push(target.get("kind").not_supported(&["Node", "<empty>"]));
        }
        required(target.get("name"), &mut errors);
        errors
    }
}
