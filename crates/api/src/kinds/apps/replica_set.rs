//! ReplicaSet

use serde_json::{Value, json};

use crate::kind::{Kind, Strategy, Write};
use crate::kinds::core::{replica_columns, workload_warnings};
use crate::kinds::mutate::{make, set, set_status};
use crate::kinds::pod_spec::{defaults, validate::controller_template};
use crate::kinds::print::selector_text;
use crate::status::FieldError;
use crate::validation::{View, immutable, labels, non_negative};

pub(crate) fn kind() -> Kind {
    Kind::namespaced("apps", "v1", "ReplicaSet", "replicasets", &ReplicaSet)
        .short("rs")
        .category_all()
        .with_scale(|object| selector_text(&object["spec"]["selector"]))
        .with_status()
        .columns(replica_columns())
        .select("status.replicas", |object| object["status"]["replicas"].as_i64().unwrap_or(0).to_string().into())
}

#[derive(Debug)]
struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) else { return };
        set(spec, "replicas", 1);
        if let Some(template) = spec.get_mut("template") {
            defaults::template(template);
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        crate::kinds::prepare(object, write);
        if write == Write::Create {
            set_status(object, json!({"replicas": 0}));
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let (spec, status) = (root.get("spec"), root.get("status"));
        if let Write::Subresource("status", _) = write {
            let counts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
            for field in counts.iter().chain(&["replicas", "observedGeneration"]) {
                non_negative(status.get(field), &mut errors);
            }
            super::within_replicas(status, &counts, &mut errors);
            return errors;
        }
        non_negative(spec.get("replicas"), &mut errors);
        non_negative(spec.get("minReadySeconds"), &mut errors);
        let selector = spec.get("selector");
        // Upstream says deployment here.
        labels::validate_required_selector(selector, "deployment", &mut errors);
        controller_template(spec.get("template"), selector, &mut errors);
        if let Write::Update(old) = write {
            immutable(selector, &old["spec"]["selector"], &mut errors);
        }
        errors
    }

    fn warnings(&self, object: &Value, write: Write<'_>) -> Vec<String> {
        workload_warnings(object, write, "spec.template")
    }
}
