//! Whole objects inside objects (`x-kubernetes-embedded-resource`): they have a type, and metadata that is sound.

use serde_json::Value;

use super::node::Node;
use crate::validation::{Errors, View, checked, labels, names};

impl Node {
    /// Everything wrong with the embedded objects below.
    pub fn check_embedded(&self, view: View, errors: &mut Errors) {
        match view.value {
            Value::Object(_) => {
                if self.embedded {
                    check(view, errors);
                }
                for (key, _) in view.entries() {
                    if let Some(node) = self.child(key) {
                        node.check_embedded(view.get(key), errors);
                    }
                }
            }
            Value::Array(_) => {
                if let Some(node) = &self.items {
                    view.items().for_each(|item| node.check_embedded(item, errors));
                }
            }
            _ => {}
        }
    }
}

fn check(view: View, errors: &mut Errors) {
    let api_version = view.get("apiVersion");
    if api_version.is_empty() {
        errors.push(api_version.required("must not be empty"));
    } else if api_version.str().matches('/').count() > 1 {
        let shown = api_version.str();
        errors.push(api_version.invalid_str(&format!("unexpected GroupVersion string: {shown}")));
    }
    let kind = view.get("kind");
    if kind.is_empty() {
        errors.push(kind.required("must not be empty"));
    } else {
        let complaints = names::label_1035(&kind.str().to_ascii_lowercase());
        if !complaints.is_empty() {
            let why = complaints.join(",");
            errors.push(kind.invalid_str(&format!("may have mixed case, but should otherwise match: {why}")));
        }
    }
    let meta = view.get("metadata");
    if !meta.is_set() {
        return;
    }
    let name = meta.get("name");
    if !name.is_empty() {
        checked(name, names::path_segment, errors);
    }
    let namespace = meta.get("namespace");
    if !namespace.is_empty() {
        checked(namespace, names::label, errors);
    }
    labels::validate(meta.get("labels"), errors);
    labels::validate_annotations(meta.get("annotations"), errors);
}
